"""Our gateway against a server written by hand, doing the same work, in the same minutes.

    python -m benchmarks.serving.bench                 # make bench; about nine minutes
    python -m benchmarks.serving.bench --rounds 2 --seconds 1 --keep nowhere

Servers are pinned to one core, generator and store to the other. Rounds of the two servers take
turns (A B A B ...), so that whatever else the machine does meets both. Prints a table and keeps
every round in benchmarks/results/.
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

import numpy as np

from benchmarks.load import rust_generator
from benchmarks.serving.bench_model import CONTRACTS, BenchModel
from benchmarks.serving.report import figure_values, promise_results, report_table, targets
from benchmarks.serving.servers import (
    CARGO_MISSING,
    RunningServer,
    ServerSetup,
    canned_server,
    pin_to_core,
    running_servers,
)
from benchmarks.serving.workloads import BY_KEY, CANNED, WORKLOADS, Workload
from features.online.store_server import find_or_start
from gateway.ingress_choice import is_built
from protos.predict_pb2 import DEGRADED
from turnout_client import SyncPredictClient

RESULTS = Path(__file__).parents[1] / "results"
ENTITIES_MIN = 100_000
CHECKED_CALLS = 50
DIFFERENCE_MAX = 1e-6
RETRIES_MAX, RETRY_PAUSE_S = 50, 0.1
"""Five seconds: a store's breaker that opened at a bad moment closes within two."""
KEYS_PER_ROUND = 2_500
"""More than one connection of a saturated round asks for."""

Round = dict[str, Any]


def check_answers(server: RunningServer, bench_model: BenchModel, workload: Workload) -> None:
    """Refuse to time a server whose scores are not the model's own."""
    order = np.arange(workload.rows * CHECKED_CALLS) % bench_model.entities
    session = bench_model.session(workload.model)
    expected = session.run(bench_model.values[order])[:, 0].reshape(CHECKED_CALLS, workload.rows)
    with SyncPredictClient(server.target, connections=1) as client:
        for call, request in enumerate(bench_model.requests(workload.model, workload.rows, order)):
            keys = [list(row.keys) for row in request.rows]
            inputs = [list(row.inputs) for row in request.rows]
            for _ in range(RETRIES_MAX):
                prediction = client.predict(
                    workload.model, keys=keys, inputs=inputs if inputs[0] else None, timeout_s=5.0
                )
                if not (prediction.row_flags & DEGRADED).any():
                    break  # else a busy machine kept the store from answering within its budget
                time.sleep(RETRY_PAUSE_S)
            off = float(np.abs(prediction.scores[:, 0] - expected[call]).max())
            if off > DIFFERENCE_MAX or prediction.row_flags.any():
                raise AssertionError(
                    f"{server.name} is off by {off:g} on call {call} of {workload.name!r}, flags "
                    f"{prediction.row_flags.max()}; a comparison needs equal answers"
                )


def time_round(
    server: RunningServer,
    workload: Workload,
    bodies: Path,
    arguments: argparse.Namespace,
    number: int = 0,
    rate: float = 0.0,
) -> Round:
    """Time one server for a moment; returns the round as JSON values.

    Round *number* begins at another place of the requests, so that rounds share few keys.
    rate  calls/s of an open loop; 0: as fast as it answers.
    """
    options: list[object] = ["--seconds", arguments.seconds, "--warm", arguments.warm]
    options += ["--first", number * KEYS_PER_ROUND]
    options += ["--connections", workload.connections, "--streams", workload.streams]
    options += ["--messages", workload.messages] if workload.messages else []
    options += ["--rate", rate] if rate else []
    line = rust_generator.generator_command(server.target, bodies, options)
    cpu_s, began = server.cpu_s(), time.perf_counter()
    said = subprocess.run(
        pin_to_core(line, arguments.generator_core), check=False, capture_output=True
    )
    if said.returncode:
        raise RuntimeError(
            f"the generator failed on {server.name}:\n{said.stderr.decode()[-2000:]}"
        )
    measured: Round = rust_generator.parse_figures(said.stdout.decode())
    # The server worked in the warm time too, at the same rate.
    lasted = time.perf_counter() - began
    answered = measured["calls"] / measured["seconds"] * (measured["seconds"] + arguments.warm)
    measured["server_us_per_call"] = round((server.cpu_s() - cpu_s) / answered * 1e6, 1)
    measured["rows_per_s"] = round(measured["calls_per_s"] * workload.rows, 1)
    measured["degraded_share"] = server.degraded_share(workload.rows)
    return {
        "side": server.name,
        "workload": workload.name,
        "lasted_s": round(lasted, 2),
        **measured,
    }


def measure_serving(arguments: argparse.Namespace, folder: Path) -> list[Round]:
    """Lay the ground, start both servers and the store, run all rounds."""
    print_progress(
        f"fitting {len(CONTRACTS)} models, writing {arguments.entities} requests of each kind ..."
    )
    ground = BenchModel.prepare(folder, arguments.entities)
    kinds = [w for w in WORKLOADS if arguments.only in w.name]
    bodies = {(w.model, w.rows): ground.write_requests(w.model, w.rows) for w in kinds}
    os.sched_setaffinity(0, {arguments.generator_core})
    store = find_or_start(None, folder)
    rounds: list[Round] = []
    try:
        ground.fill_store(store.url)
        with canned_server(arguments.server_core) as side:
            workload = Workload(CANNED, BY_KEY, 1, 8, 16)
            body = ground.write_requests(BY_KEY, 1)
            rounds.append(time_round(side, workload, body, arguments))
        setup = ServerSetup(
            store.url, arguments.ingress, arguments.server_core, arguments.generator_core
        )
        with running_servers(ground, setup) as sides:
            for side in sides:
                with side.awake():
                    for workload in kinds:
                        check_answers(side, ground, workload)
            print_progress("both answer what the model itself answers; now the clock")
            for number in range(arguments.rounds):
                # Whoever goes first finds the caches of the other: take turns in that too.
                for side in sides if number % 2 == 0 else sides[::-1]:
                    rounds += _time_server(side, kinds, bodies, arguments, number)
    finally:
        store.stop()
    return rounds


def _time_server(
    server: RunningServer,
    kinds: Sequence[Workload],
    bodies: Mapping[tuple[str, int], Path],
    arguments: argparse.Namespace,
    number: int,
) -> list[Round]:
    """Time one server on each workload that it can be asked, one right after the other.

    The host's pace drifts within seconds: what a server is compared with most closely, itself with
    a canary or at half its rate, comes next.
    """
    timed: list[Round] = []
    with server.awake():
        for workload in kinds:
            at_full = figure_values(timed, server.name, workload.half_rate_of, "calls_per_s")
            if server.name not in workload.servers or (workload.half_rate_of and not at_full):
                continue
            rate = round(at_full[-1] / 2, 1) if workload.half_rate_of else 0.0
            file = bodies[(workload.model, workload.rows)]
            timed.append(time_round(server, workload, file, arguments, number, rate))
            calls_per_s = timed[-1]["calls_per_s"]
            print_progress(
                f"  round {number + 1}, {workload.name}, {server.name}: {calls_per_s:.0f} calls/s"
            )
    return timed


def machine_facts() -> dict[str, Any]:
    """Return what ran this, as far as a number depends on it."""
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
    """Return the commit that was measured, marked where files were changed beside it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        cwd=RESULTS.parent,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def report_json(report: Round) -> str:
    """Return the report as JSON with one round a line, so that it is short and a diff reads."""
    head = json.dumps({key: one for key, one in report.items() if key != "rounds"}, indent=1)
    rounds = ",\n  ".join(json.dumps(one) for one in report["rounds"])
    return f'{head[:-2]},\n "rounds": [\n  {rounds}\n ]\n}}\n'


def print_progress(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and keep.

    Returns 0 when every promise and target held, 1 when one did not, 2 without cargo.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=ENTITIES_MIN)
    parser.add_argument("--rounds", type=int, default=7, help="of each server and workload")
    parser.add_argument("--seconds", type=float, default=3.0, help="counted, a round")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds not counted, a round")
    parser.add_argument("--only", default="", help="workloads whose name holds this")
    parser.add_argument(
        "--ingress", default="native" if is_built() else "grpcio", choices=("native", "grpcio")
    )
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--generator-core", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=RESULTS / "latest.json")
    asked = parser.parse_args(argv)
    if rust_generator.build_generator() is None:
        print_progress(CARGO_MISSING)
        return 2
    report: dict[str, Any] = {
        "commit": measured_commit(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine_facts(),
        "ingress": asked.ingress,
        "generator": "benchmarks/loadgen",
        "asked": {
            "entities": asked.entities,
            "rounds": asked.rounds,
            "seconds": asked.seconds,
            "warm_seconds": asked.warm,
            "workloads": [asdict(workload) for workload in WORKLOADS],
        },
    }
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        report["rounds"] = measure_serving(asked, Path(folder))
    report["verdicts"] = promise_results(report["rounds"])
    report["targets"] = targets(report["rounds"])
    print(report_table(report))
    if asked.keep.name != "nowhere":
        asked.keep.parent.mkdir(parents=True, exist_ok=True)
        asked.keep.write_text(report_json(report), encoding="utf-8")
        print_progress(f"kept in {asked.keep}")
    return 0 if all(one["held"] for one in report["verdicts"] + report["targets"]) else 1


if __name__ == "__main__":
    sys.exit(main())
