"""Prints what holds the event loop of a gateway's worker for 100 us or longer.

    python -m benchmarks.micro.loop_stalls                     # a caller alone, in the request
    python -m benchmarks.micro.loop_stalls --model by_key --open 128

It reads turnout_loop_stall_seconds of a gateway with `count_loop_stalls` before and after a load.
While a caller is alone, only its call needs the loop, so a call may have to wait for each other
source. On a busy machine a stall also counts the time that the worker did not run. Needs cargo.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import rust_generator
from benchmarks.serving.bench_model import BenchModel
from benchmarks.serving.servers import (
    CARGO_MISSING,
    THIS_CHECKOUT,
    RunningServer,
    ServerSetup,
    pin_to_core,
    running_checkout,
)
from benchmarks.serving.workloads import BY_KEY, IN_REQUEST
from features.online.store_server import find_or_start

SERVER_CORE, GENERATOR_CORE = 0, 1
ENTITIES = 20_000
SNAPSHOT_S = 2.2
"""The metrics are those of the worker's newest snapshot, which is up to a second old."""
SAMPLE = re.compile(
    r'^turnout_loop_stall_seconds_(bucket|sum)\{(?:le="([^"]+)",)?source="([^"]+)",worker="\d+"\} '
    r"(\S+)",
    re.MULTILINE,
)

Stalls = dict[str, dict[str, float]]
"""Source -> `le` of a bucket, or `sum`, to its value."""


def read_stalls(server: RunningServer) -> Stalls:
    """Return the histogram of stalls that the gateway exports."""
    time.sleep(SNAPSHOT_S)
    with urllib.request.urlopen(server.metrics, timeout=5.0) as page:
        text = page.read().decode()
    stalls: Stalls = defaultdict(lambda: defaultdict(float))
    for _, bound, source, value in SAMPLE.findall(text):
        stalls[source][bound or "sum"] = float(value)
    return stalls


def stall_table(before: Stalls, after: Stalls, seconds: float) -> str:
    """Return the stalls between two readings *seconds* apart, the heaviest source first."""
    heads = ("a second", "mean us", "% of time", "90 % within")
    lines = [f"{'source':48s} {heads[0]:>9s} {heads[1]:>9s} {heads[2]:>11s}   {heads[3]}"]
    grown = {
        source: {bound: value - before[source][bound] for bound, value in buckets.items()}
        for source, buckets in after.items()
    }
    for source, buckets in sorted(grown.items(), key=lambda item: -item[1]["sum"]):
        count, held_s = buckets["+Inf"], buckets["sum"]
        if not count:
            continue
        bounds = [bound for bound in buckets if bound not in ("+Inf", "sum")]
        within = next((b for b in bounds if buckets[b] >= 0.9 * count), "more")
        lines.append(
            f"{source:48.48s} {count / seconds:9.1f} {held_s / count * 1e6:9.0f}"
            f" {100 * held_s / seconds:11.3f}   {within} s"
        )
    return "\n".join(lines)


def load_and_print(server: RunningServer, bodies: Path, open_calls: int, seconds: float) -> None:
    """Send calls for some seconds, and print the stalls meanwhile and the calls' latency."""
    connections = max(1, min(8, open_calls // 16))
    options: list[object] = ["--seconds", seconds, "--warm", 0.0, "--connections", connections]
    options += ["--streams", open_calls // connections]
    line = rust_generator.generator_command(server.target, bodies, options)
    before, began_s = read_stalls(server), time.monotonic()
    run = subprocess.run(pin_to_core(line, GENERATOR_CORE), check=True, capture_output=True)
    figures, after = rust_generator.parse_figures(run.stdout.decode()), read_stalls(server)
    print(
        f"{figures['calls_per_s']:,.0f} calls/s, p50 {figures['p50_ms']:.3f} ms,"
        f" p99 {figures['p99_ms']:.3f} ms, {figures['failed']} failed\n"
    )
    print(stall_table(before, after, time.monotonic() - began_s))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a gateway under a load and print its stalls. Returns 2 without cargo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=(IN_REQUEST, BY_KEY), default=IN_REQUEST)
    parser.add_argument("--open", type=int, default=1, help="calls open at once")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args(argv)
    if rust_generator.build_generator() is None:
        print(CARGO_MISSING, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="turnout-stalls-") as name:
        folder = Path(name)
        bench_model = BenchModel.prepare(folder, ENTITIES)
        os.sched_setaffinity(0, {GENERATOR_CORE})
        store = find_or_start(None, folder)
        try:
            bench_model.fill_store(store.url)
            bodies = bench_model.write_requests(arguments.model, 1)
            counted = ("count_loop_stalls=true",)
            setup = ServerSetup(store.url, "native", SERVER_CORE, GENERATOR_CORE, settings=counted)
            with running_checkout(
                THIS_CHECKOUT, folder, bench_model.gateway_folder, setup
            ) as server:
                load_and_print(server, bodies, arguments.open, arguments.seconds)
        finally:
            store.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
