"""Compares the gateway with a server written by hand that does the same work.

    python -m benchmarks.serving.bench                 # make bench; about nine minutes
    python -m benchmarks.serving.bench --quick --only "30 models"

The servers are pinned to one core, generator and store to the other. The two servers take turns on
each workload (A B, then B A), so that a change of the machine's pace meets both. The command prints
what was measured, what a call costs as work grows, and which targets of
benchmarks.serving.workloads are met, or by how much one falls short. Every round is written to
benchmarks/results/latest.json. It needs cargo for the load generator.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.load import rust_generator
from benchmarks.serving.bench_model import BenchModel
from benchmarks.serving.report import figure_values, promise_results, report_table, targets
from benchmarks.serving.servers import (
    CARGO_MISSING,
    RunningServer,
    ServerSetup,
    canned_server,
    pin_to_core,
    running_servers,
)
from benchmarks.serving.workloads import (
    BY_KEY,
    CANNED,
    WORKLOADS,
    Workload,
    picked_workloads,
)
from features.online.store_server import find_or_start
from gateway.ingress_choice import is_built
from protos.predict_pb2 import DEGRADED, PredictReply, PredictRequest
from protos.predict_pb2_grpc import PredictorStub

RESULTS = Path(__file__).parents[1] / "results"
ENTITIES = 100_000
CHECKED_CALLS, CHECKED_ROWS_MAX = 50, 10_000
DIFFERENCE_MAX = 1e-6
RETRIES_MAX, RETRY_PAUSE_S = 50, 0.1
"""Five seconds in all. The breaker of the feature store closes again within two."""
KEYS_PER_ROUND = 2_500
"""More keys than one connection of a saturated round sends."""
QUICK = {"entities": 5_000, "rounds": 1, "seconds": 0.3, "warm": 0.2, "keep": Path("nowhere")}
"""What --quick changes. Its figures show that everything runs, and prove nothing."""

Round = dict[str, Any]


def check_answers(server: RunningServer, bench_model: BenchModel, workload: Workload) -> None:
    """Raise AssertionError unless the server's scores equal the model's own within 1e-6."""
    # The model's own scores.
    calls = max(1, min(CHECKED_CALLS, CHECKED_ROWS_MAX // workload.rows))
    order = np.arange(workload.rows * calls) % bench_model.entities_of(workload.model)
    rows = bench_model.inputs(workload.model, order)
    expected = bench_model.session(workload.model).run(rows)[:, 0].reshape(calls, workload.rows)
    # The server's scores for the same rows.
    with grpc.insecure_channel(server.target) as channel:
        stub = PredictorStub(channel)  # type: ignore[no-untyped-call]
        for call, request in enumerate(bench_model.requests(workload.model, workload.rows, order)):
            reply = _predict_undegraded(stub, request)
            difference = float(np.abs(np.array(reply.scores) - expected[call]).max())
            if difference > DIFFERENCE_MAX or any(reply.row_flags):
                raise AssertionError(
                    f"{server.name} differs by {difference:g} from the model on call {call} of "
                    f"{workload.name!r}, with flags {set(reply.row_flags)}; a comparison of speed "
                    f"needs equal answers"
                )


def _predict_undegraded(stub: PredictorStub, request: PredictRequest) -> PredictReply:
    """Return the reply to *request*, which is repeated while the store does not answer in time."""
    for _ in range(RETRIES_MAX):
        reply: PredictReply = stub.Predict(request, timeout=5.0)
        if not any(flags & DEGRADED for flags in reply.row_flags):
            break
        time.sleep(RETRY_PAUSE_S)
    return reply


def time_round(
    server: RunningServer,
    workload: Workload,
    bodies: Path,
    arguments: argparse.Namespace,
    number: int = 0,
    rate: float = 0.0,
) -> Round:
    """Time one server on one workload; return the round's figures as JSON values.

    bodies  the file of requests that the generator sends.
    number  rounds of different numbers begin at different requests, so that they share few keys.
    rate    calls/s of an open loop; 0: that of the workload, or a closed loop.
    """
    # The generator's command line.
    options: list[object] = ["--seconds", arguments.seconds, "--warm", arguments.warm]
    options += ["--first", number * KEYS_PER_ROUND]
    options += ["--connections", workload.connections, "--streams", workload.streams]
    options += ["--messages", workload.messages] if workload.messages else []
    rate = rate or workload.rate
    options += ["--rate", rate] if rate else []
    line = rust_generator.generator_command(server.target, bodies, options)
    # Run it on its core.
    cpu_s, began = server.cpu_s(), time.perf_counter()
    generator = subprocess.run(
        pin_to_core(line, arguments.generator_core), check=False, capture_output=True
    )
    if generator.returncode:
        raise RuntimeError(
            f"the generator failed on {server.name}:\n{generator.stderr.decode()[-2000:]}"
        )
    lasted_s = time.perf_counter() - began
    measured: Round = rust_generator.parse_figures(generator.stdout.decode())
    # The CPU time also covers the warm time, in which the server answers at the same rate.
    answered = measured["calls"] / measured["seconds"] * (measured["seconds"] + arguments.warm)
    measured["server_us_per_call"] = round((server.cpu_s() - cpu_s) / answered * 1e6, 1)
    measured["rows_per_s"] = round(measured["calls_per_s"] * workload.rows, 1)
    degraded = measured["rows_flagged"].get("degraded", 0)
    measured["degraded_share"] = round(degraded / (measured["calls"] * workload.rows), 6)
    return {
        "side": server.name,
        "workload": workload.name,
        "lasted_s": round(lasted_s, 2),
        **measured,
    }


def measure_serving(arguments: argparse.Namespace, folder: Path) -> list[Round]:
    """Fit the models, start the store and both servers, check their answers, run all rounds."""
    kinds = picked_workloads(arguments.only)
    print_progress(f"fitting the models, writing {arguments.entities:,} requests of each kind ...")
    bench_model = BenchModel.prepare(
        folder, arguments.entities, dict.fromkeys(workload.model for workload in kinds)
    )
    bodies = {
        kind: bench_model.write_requests(*kind)
        for kind in dict.fromkeys((workload.model, workload.rows) for workload in kinds)
    }
    # This process, the generator and the store share one core.
    os.sched_setaffinity(0, {arguments.generator_core})
    store = find_or_start(None, folder)
    rounds: list[Round] = []
    try:
        bench_model.fill_store(store.url)
        with canned_server(arguments.server_core) as server:
            workload = Workload(CANNED, BY_KEY, 1, 8, 16)
            body = next(iter(bodies.values()))
            rounds.append(time_round(server, workload, body, arguments))
        setup = ServerSetup(
            store.url, arguments.ingress, arguments.server_core, arguments.generator_core
        )
        with running_servers(bench_model, setup) as servers:
            for server in servers:
                timed = [workload for workload in kinds if server.name in workload.servers]
                with server.awake():
                    for workload in {(w.model, w.rows): w for w in timed}.values():
                        check_answers(server, bench_model, workload)
            print_progress("both servers answer as the model itself does; timing begins")
            for number in range(arguments.rounds):
                # The second server finds the pace that the first one left, so the order changes.
                turns = servers if number % 2 == 0 else servers[::-1]
                rounds += _time_turns(turns, kinds, bodies, arguments, number)
    finally:
        store.stop()
    return rounds


def _time_turns(
    servers: Sequence[RunningServer],
    kinds: Sequence[Workload],
    bodies: Mapping[tuple[str, int], Path],
    arguments: argparse.Namespace,
    number: int,
) -> list[Round]:
    """Time each workload on each server that has it, in turns.

    The machine's pace drifts within seconds, so what is compared follows each other: the servers on
    one workload, and workloads with their neighbours in WORKLOADS.
    """
    timed: list[Round] = []
    for workload in kinds:
        for server in servers:
            at_full = figure_values(timed, server.name, workload.half_rate_of, "calls_per_s")
            if server.name not in workload.servers or (workload.half_rate_of and not at_full):
                continue
            rate = round(at_full[-1] / 2, 1) if workload.half_rate_of else 0.0
            file = bodies[(workload.model, workload.rows)]
            with server.awake():
                timed.append(time_round(server, workload, file, arguments, number, rate))
            calls_per_s = timed[-1]["calls_per_s"]
            print_progress(
                f"  round {number + 1}, {workload.name}, {server.name}: {calls_per_s:.0f} calls/s"
            )
    return timed


def machine_facts() -> dict[str, Any]:
    """Return the CPU, the system and the package versions that the figures depend on."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8") if sys.platform == "linux" else ""
    names = [line.partition(":")[2].strip() for line in cpus.splitlines() if "model name" in line]
    packages = ("grpcio", "onnxruntime", "redis", "hiredis", "uvloop", "numpy", "protobuf")
    from importlib.metadata import version

    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
    }


def measured_commit() -> str:
    """Return the commit that was measured, with -dirty where files were changed beside it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        cwd=RESULTS.parent,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def report_json(report: Round) -> str:
    """Return the report as JSON with one round a line: short, and readable as a diff."""
    head = json.dumps({key: value for key, value in report.items() if key != "rounds"}, indent=1)
    rounds = ",\n  ".join(json.dumps(timed) for timed in report["rounds"])
    return f'{head[:-2]},\n "rounds": [\n  {rounds}\n ]\n}}\n'


def print_progress(text: str) -> None:
    """Print *text* to stderr, apart from the results on stdout."""
    print(text, file=sys.stderr, flush=True)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; --quick changes the defaults of QUICK."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="only workloads whose name contains this")
    parser.add_argument("--quick", action="store_true", help="one short round, which is not kept")
    parser.add_argument("--json", action="store_true", help="print JSON, with every round")
    parser.add_argument("--entities", type=int, default=ENTITIES)
    parser.add_argument("--rounds", type=int, default=5, help="of each server and workload")
    parser.add_argument("--seconds", type=float, default=1.0, help="counted, a round")
    parser.add_argument("--warm", type=float, default=0.3, help="seconds not counted, a round")
    parser.add_argument(
        "--ingress", default="native" if is_built() else "grpcio", choices=("native", "grpcio")
    )
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--generator-core", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=RESULTS / "latest.json")
    if parser.parse_known_args(argv)[0].quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and keep.

    Returns 0 when every promise and target held, 1 when one did not, 2 when nothing was measured:
    without cargo, or when no workload has the name that was asked for.
    """
    arguments = parse_arguments(argv)
    # Look whether it can run.
    if not picked_workloads(arguments.only):
        names = "\n  ".join(workload.name for workload in WORKLOADS)
        print_progress(f"no workload has {arguments.only!r} in its name; these exist:\n  {names}")
        return 2
    if rust_generator.build_generator() is None:
        print_progress(CARGO_MISSING)
        return 2
    # Describe the machine and measure.
    report: dict[str, Any] = {
        "commit": measured_commit(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine_facts(),
        "ingress": arguments.ingress,
        "generator": "benchmarks/loadgen",
        "options": {
            "entities": arguments.entities,
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "warm_seconds": arguments.warm,
            "workloads": [asdict(workload) for workload in picked_workloads(arguments.only)],
        },
    }
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        report["rounds"] = measure_serving(arguments, Path(folder))
    print_progress(f"measured in {(time.monotonic() - began_s) / 60:.1f} minutes")
    # Judge, print and keep.
    report["verdicts"] = promise_results(report["rounds"])
    report["targets"] = targets(report["rounds"])
    print(report_json(report) if arguments.json else report_table(report))
    if arguments.keep.name != "nowhere":
        arguments.keep.parent.mkdir(parents=True, exist_ok=True)
        arguments.keep.write_text(report_json(report), encoding="utf-8")
        print_progress(f"kept in {arguments.keep}")
    return 0 if all(row["held"] for row in report["verdicts"] + report["targets"]) else 1


if __name__ == "__main__":
    sys.exit(main())
