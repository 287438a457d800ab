"""Tests that batches start at the right time: more load makes calls neither dearer nor fewer.

    python -m benchmarks.micro.calls_open                      # about four minutes
    python -m benchmarks.micro.calls_open --before ../old --rounds 5

With 1 to 64 calls open on one connection, calls/s may not fall as more calls are open. In open
loops of 1,000 to 80,000 calls/s, CPU a call may not rise with the rate. Noise is allowed for: a
value is worse only if its best round is worse than the worst round of an easier load. With
*--before*, an older checkout, prepared as for `before_after`, takes turns with this one. A rate
that a side does not reach is left out. Exit code 1 if a figure is worse. Needs cargo.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import rust_generator
from benchmarks.serving.bench_model import BenchModel
from benchmarks.serving.report import spread_text
from benchmarks.serving.servers import (
    CARGO_MISSING,
    THIS_CHECKOUT,
    Checkout,
    RunningServer,
    ServerSetup,
    pin_to_core,
    running_checkout,
    stopped_unless_awake,
)
from benchmarks.serving.workloads import BY_KEY, IN_REQUEST
from features.online.store_server import find_or_start

SERVER_CORE, GENERATOR_CORE = 0, 1
ENTITIES = 20_000
WARM_S = 0.2
CALLS_OPEN = (1, 2, 4, 8, 12, 15, 16, 20, 24, 31, 32, 48, 64)
RATES = (1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000)
RATE_SHARE_MIN = 0.97
"""An open loop counts if this share of its calls was answered in its time."""


@dataclass(frozen=True, slots=True)
class Load:
    """Calls of one model: so many open on one connection, or so many a second on eight."""

    model: str
    calls_open: int = 0
    rate: int = 0

    @property
    def options(self) -> list[object]:
        """The options of the load generator."""
        if self.rate:
            return ["--connections", 8, "--streams", 32, "--rate", self.rate]
        return ["--connections", 1, "--streams", self.calls_open]


LOADS = tuple(
    load
    for model in (IN_REQUEST, BY_KEY)
    for load in (
        *[Load(model, calls_open=number) for number in CALLS_OPEN],
        *[Load(model, rate=rate) for rate in RATES],
    )
)
Figures = dict[str, float]
Rounds = dict[tuple[str, Load], list[Figures]]
"""(name of the side, load) -> the figures of each round."""


def time_load(
    server: RunningServer, load: Load, bodies: Path, seconds: float, number: int
) -> Figures:
    """Send one load for *seconds*; return calls/s, latencies in ms and CPU us a call."""
    options = ["--seconds", seconds, "--warm", WARM_S, "--first", 997 * number, *load.options]
    line = rust_generator.generator_command(server.target, bodies, options)
    before_s = server.cpu_s()
    run = subprocess.run(pin_to_core(line, GENERATOR_CORE), check=True, capture_output=True)
    spent_s = server.cpu_s() - before_s
    figures = rust_generator.parse_figures(run.stdout.decode())
    answered = figures["calls_per_s"] * (figures["seconds"] + WARM_S)
    return {**figures, "us_per_call": spent_s / answered * 1e6}


def worse_loads(rounds: Rounds, side: str, model: str) -> list[str]:
    """Return a sentence for each load of *side* that does worse than an easier one."""
    found = []
    for figure, sign, loads in (
        ("calls_per_s", 1, [load for load in LOADS if load.calls_open]),
        ("us_per_call", -1, [load for load in LOADS if load.rate]),
    ):
        best_worst, easier = float("-inf"), None
        for load in loads:
            timed = rounds[side, load]
            if load.model != model or not _reached(load, timed):
                continue
            values = [sign * figures[figure] for figures in timed]
            if easier is not None and max(values) < best_worst:
                found.append(f"{side}, {model}: {figure} at {_name(load)} is worse than {easier}")
            if min(values) > best_worst:
                best_worst, easier = min(values), f"at {_name(load)}"
    return found


def _reached(load: Load, timed: Sequence[Figures]) -> bool:
    share = sorted(figures["calls_per_s"] for figures in timed)[len(timed) // 2] / (load.rate or 1)
    return not load.rate or share >= RATE_SHARE_MIN


def _name(load: Load) -> str:
    return f"{load.rate:,} calls/s" if load.rate else f"{load.calls_open} open"


def table(rounds: Rounds, sides: Sequence[str]) -> str:
    """Return the medians (lowest-highest) of all loads and sides as a Markdown table."""
    lines = [
        "| load | side | calls/s | p50 ms | p99 ms | CPU us/call |",
        "|---|---|---|---|---|---|",
    ]
    columns = (("calls_per_s", 0), ("p50_ms", 3), ("p99_ms", 2), ("us_per_call", 1))
    for load in LOADS:
        for side in sides:
            timed = rounds[side, load]
            cells = [spread_text([row[name] for row in timed], digits) for name, digits in columns]
            lines.append(f"| {load.model}, {_name(load)} | {side} | {' | '.join(cells)} |")
    return "\n".join(lines)


@contextmanager
def running_sides(
    sides: Sequence[Checkout], bench_model: BenchModel, redis_url: str
) -> Iterator[list[RunningServer]]:
    """Run the gateway of each checkout on a copy of the model; each runs only when `awake`."""
    setup = ServerSetup(redis_url, "native", SERVER_CORE, GENERATOR_CORE)
    with contextlib.ExitStack() as stack:
        servers = []
        for side in sides:
            folder = bench_model.folder / f"side-{side.name}"
            shutil.copytree(bench_model.gateway_folder, folder / "gateway")
            running = running_checkout(side, folder, folder / "gateway", setup)
            servers.append(stack.enter_context(running))
        yield stack.enter_context(stopped_unless_awake(servers))


def measure_loads(sides: Sequence[Checkout], count: int, seconds: float) -> Rounds:
    """Time all loads with all sides by turns, in *count* rounds."""
    rounds: Rounds = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="turnout-calls-open-") as name:
        bench_model = BenchModel.prepare(Path(name), ENTITIES)
        os.sched_setaffinity(0, {GENERATOR_CORE})
        store = find_or_start(None, Path(name))
        try:
            bench_model.fill_store(store.url)
            bodies = {m: bench_model.write_requests(m, 1) for m in (IN_REQUEST, BY_KEY)}
            with running_sides(sides, bench_model, store.url) as servers:
                for number in range(count):
                    print(f"round {number + 1} of {count}", file=sys.stderr)
                    for load in LOADS:
                        for server in servers if number % 2 == 0 else servers[::-1]:
                            with server.awake():
                                figures = time_load(
                                    server, load, bodies[load.model], seconds, number
                                )
                                rounds[server.name, load].append(figures)
        finally:
            store.stop()
    return rounds


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 1 if a load does worse than an easier one, 2 without cargo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="an older checkout, which takes turns")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args(argv)
    if rust_generator.build_generator() is None:
        print(CARGO_MISSING, file=sys.stderr)
        return 2
    sides = [THIS_CHECKOUT]
    if arguments.before is not None:
        before = arguments.before.resolve()
        sides.insert(0, Checkout("before", before, before / ".venv/bin/python"))
    rounds = measure_loads(sides, arguments.rounds, arguments.seconds)
    print(table(rounds, [side.name for side in sides]))
    worse = [
        sentence
        for model in (IN_REQUEST, BY_KEY)
        for sentence in worse_loads(rounds, THIS_CHECKOUT.name, model)
    ]
    print("\n".join(worse or ["more load is never dearer"]))
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
