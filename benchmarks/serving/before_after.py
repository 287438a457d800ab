"""Compares the speed of two checkouts of this repository, by turns on one machine.

    python -m benchmarks.serving.before_after --before ../old
    python -m benchmarks.serving.before_after --before ../old --rounds 2 --seconds 1 --json

*--before* is an older checkout that has its own .venv and its own native library (run
`make .venv/.installed ingress` there). Its gateway runs from its own folder and interpreter, on a
copy of the same version files and with the same store. This checkout is the new side. In each round
the turns are old, new, new, old, so that a change of the machine's pace meets both; a server that
has no turn is stopped. The gates bound how much worse the new side may be. Exit code 0: every gate
held. 1: one did not. 2: the comparison cannot be run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.load import rust_generator
from benchmarks.serving.bench import check_answers, print_progress, time_round
from benchmarks.serving.bench_model import BenchModel
from benchmarks.serving.gates import (
    MEASURED,
    NEW,
    OLD,
    ComparedFigure,
    compare_figures,
    comparison_table,
    invalid_rounds,
)
from benchmarks.serving.report import Round
from benchmarks.serving.servers import (
    CARGO_MISSING,
    THIS_CHECKOUT,
    Checkout,
    RunningServer,
    ServerSetup,
    running_checkout,
    stopped_unless_awake,
)
from benchmarks.serving.workloads import WORKLOADS
from features.online.store_server import find_or_start

HELP_S_MAX, CLIENT_IMPORT_S_MAX = 0.4, 0.3
START_TRIES = 7


def measure_rounds(
    sides: Sequence[Checkout], arguments: argparse.Namespace, folder: Path
) -> list[Round]:
    """Fit the models, fill the store, and time both sides' gateways over both ingresses."""
    print_progress("fitting the models and filling the store ...")
    bench_model = BenchModel.prepare(folder, arguments.entities)
    os.sched_setaffinity(0, {arguments.generator_core})
    store = find_or_start(None, folder)
    rounds: list[Round] = []
    try:
        bench_model.fill_store(store.url)
        for ingress in MEASURED:
            setup = ServerSetup(store.url, ingress, arguments.server_core, arguments.generator_core)
            with _running_sides(sides, bench_model, setup) as servers:
                rounds += _time_ingress(servers, bench_model, arguments, ingress)
    finally:
        store.stop()
    return rounds


@contextmanager
def _running_sides(
    sides: Sequence[Checkout], bench_model: BenchModel, setup: ServerSetup
) -> Iterator[list[RunningServer]]:
    """Run the gateway of each side, each on a copy of the same version files."""

    def prepared_folder(side: Checkout) -> Path:
        folder = bench_model.folder / f"{setup.ingress}-{side.name}"
        shutil.copytree(bench_model.gateway_folder, folder / "gateway")
        return folder

    old_folder, new_folder = map(prepared_folder, sides)
    with (
        running_checkout(sides[0], old_folder, old_folder / "gateway", setup) as old,
        running_checkout(sides[1], new_folder, new_folder / "gateway", setup) as new,
        stopped_unless_awake([old, new]) as servers,
    ):
        yield servers


def _time_ingress(
    servers: Sequence[RunningServer],
    bench_model: BenchModel,
    arguments: argparse.Namespace,
    ingress: str,
) -> list[Round]:
    """Check both sides' answers against the model, then time all workloads, old new new old."""
    workloads = [w for w in WORKLOADS if w.name in MEASURED[ingress]]
    bodies = {w.model: bench_model.write_requests(w.model, w.rows) for w in workloads}
    for server in servers:
        with server.awake():
            for workload in workloads:
                check_answers(server, bench_model, workload)
    old, new = servers
    rounds: list[Round] = []
    for number in range(arguments.rounds):
        print_progress(f"{ingress}: round {number + 1} of {arguments.rounds}")
        for turn, server in enumerate((old, new, new, old)):
            with server.awake():
                for workload in workloads:
                    timed = time_round(
                        server, workload, bodies[workload.model], arguments, 4 * number + turn
                    )
                    rounds.append({"ingress": ingress, **timed})
    return rounds


def start_time_rows(sides: Sequence[Checkout]) -> list[ComparedFigure]:
    """Return the wall time of `turnout --help` and of importing the client, best of several."""
    commands: dict[str, tuple[float, Callable[[Checkout], list[str]]]] = {
        "turnout --help": (HELP_S_MAX, lambda c: [str(c.python.parent / "turnout"), "--help"]),
        "import turnout_client": (
            CLIENT_IMPORT_S_MAX,
            lambda c: [str(c.python), "-c", "import turnout_client"],
        ),
    }
    rows = []
    for name, (bound_s, command) in commands.items():
        old_s, new_s = (_best_start_s(command(side), side.folder) for side in sides)
        texts = [f"{s:.3f}" if s is not None else "-" for s in (old_s, new_s)]
        ratio = new_s / old_s if old_s and new_s else None
        passed = new_s is not None and new_s < bound_s
        rows.append(ComparedFigure(name, "s", *texts, ratio, f"new < {bound_s:g} s", passed))
    return rows


def _best_start_s(command: Sequence[str], folder: Path) -> float | None:
    """Return the shortest of START_TRIES runs in seconds; None when the command fails."""
    seconds = []
    for _ in range(START_TRIES):
        began = time.perf_counter()
        if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
            return None
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both checkouts, print the comparison, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="the older checkout")
    parser.add_argument("--rounds", type=int, default=5, help="of four turns: old, new, new, old")
    parser.add_argument("--seconds", type=float, default=3.0, help="counted, a workload and turn")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds not counted")
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--generator-core", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON, with every round")
    arguments = parser.parse_args(argv)
    # Check that both sides can run.
    before = arguments.before.resolve()
    sides = (
        Checkout(OLD, before, before / ".venv/bin/python"),
        Checkout(NEW, THIS_CHECKOUT.folder, THIS_CHECKOUT.python),
    )
    if not sides[0].python.exists():
        print_progress(f"{before} has no .venv: run `make .venv/.installed ingress` there")
        return 2
    if rust_generator.build_generator() is None:
        print_progress(CARGO_MISSING)
        return 2
    # Measure, compare and print.
    with tempfile.TemporaryDirectory(prefix="turnout-before-after-") as folder:
        rounds = measure_rounds(sides, arguments, Path(folder))
    rows, invalid = [*compare_figures(rounds), *start_time_rows(sides)], invalid_rounds(rounds)
    if arguments.json:
        report = {"rows": [asdict(row) for row in rows], "invalid": invalid, "rounds": rounds}
        print(json.dumps(report))
    else:
        print("\n".join([comparison_table(rows), *invalid]))
    return int(bool(invalid) or not all(row.passed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
