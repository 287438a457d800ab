"""Measures what the workers of a host share, and what a second worker costs.

    python -m benchmarks.serving.workers --rounds 3 --json

Three gateways serve the same model by key, one at a time in each round: one worker on a core, two
workers on the same core, and two workers on the core and on that of generator and store. So the
first two differ by the second worker alone. The third does not show what a second worker brings,
because two hyperthreads cannot carry two workers, a generator and a store. The command prints a
table of medians and (lowest-highest), what each worker has for itself, and the model of a host with
up to 16 workers (benchmarks.serving.worker_model). Needs cargo.
"""

import argparse
import json
import os
import re
import resource
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import redis

from benchmarks.load import rust_generator
from benchmarks.serving.bench import print_progress, time_round
from benchmarks.serving.bench_model import BenchModel
from benchmarks.serving.report import spread_text
from benchmarks.serving.servers import (
    CARGO_MISSING,
    THIS_CHECKOUT,
    RunningServer,
    ServerSetup,
    running_checkout,
)
from benchmarks.serving.worker_model import WorkerFigures, model_text
from benchmarks.serving.workloads import BY_KEY, ROLLING, Workload
from features.online.store_server import StoreServer, find_or_start
from gateway.ingress_choice import is_built
from gateway.methods.idempotency_keys import IdempotencyKeys
from host.processes import cpu_seconds, rss_bytes
from journal.segment import JournalKind
from journal.writer import JournalAppender
from protos.journal_pb2 import OutcomeRecord

SERVER_CORE, GENERATOR_CORE = 0, 1
ENTITIES = 50_000
REPORTS = 20_000
ACCEPTED = 2_000
"""Connections that are opened one after the other, to see what one costs and where it ends."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What an HTTP/2 client sends first: the preface, and SETTINGS without a change."""
FRAME_HEADER_BYTES = 9
PRIVATE_KB = re.compile(r"^Private_(?:Clean|Dirty): *(\d+) kB", re.MULTILINE)
PARTS = "what a worker has"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A number of workers, and where they run."""

    name: str
    workers: int
    cores: int | str


ARRANGEMENTS = (
    Arrangement("1 worker on one core", 1, SERVER_CORE),
    Arrangement("2 workers on one core", 2, SERVER_CORE),
    Arrangement("2 workers on both cores", 2, f"{SERVER_CORE},{GENERATOR_CORE}"),
)
CLOSED, WIDE = "32 connections x 4", "32 connections x 16"
OPEN_LOOP = "open loop of 10,000 calls/s"
COMPARED = (
    Workload(CLOSED, BY_KEY, 1, 32, 4),
    Workload(WIDE, BY_KEY, 1, 32, 16),
    Workload(OPEN_LOOP, BY_KEY, 1, 32, 8, rate=10_000),
    Workload("32 connections x 4, canary and shadow", ROLLING, 1, 32, 4),
)
CURVE = {
    open_calls: Workload(f"{open_calls} open", BY_KEY, 1, 1, open_calls)
    for open_calls in (1, 2, 4, 8)
} | {
    16 * streams: Workload(f"{16 * streams} open", BY_KEY, 1, 16, streams)
    for streams in (1, 2, 4, 8, 16, 64)
}
"""Calls open in one worker, from which the model takes what a call costs in smaller batches."""

Round = dict[str, Any]


def measure_arrangement(
    arrangement: Arrangement,
    bench_model: BenchModel,
    store: StoreServer,
    arguments: argparse.Namespace,
    number: int,
) -> list[Round]:
    """Return one round of an arrangement: its loads, what a connection costs, what a worker has."""
    # Start the gateway.
    setup = ServerSetup(
        store.url, arguments.ingress, arrangement.cores, GENERATOR_CORE, arrangement.workers
    )
    folders = bench_model.folder, bench_model.gateway_folder
    rounds: list[Round] = []
    connected = store_connections(store)
    with running_checkout(THIS_CHECKOUT, *folders, setup) as gateway:
        workers = gateway.pids[: arrangement.workers]
        # Time the loads, and what the store pays for each.
        curve = tuple(CURVE.values()) if arrangement.workers == 1 else ()
        for workload in (*COMPARED, *curve):
            store_s = cpu_seconds(store.pid or 0)
            bodies = bench_model.folder / f"{workload.model}_1.bodies"
            timed = time_round(gateway, workload, bodies, arguments, number)
            answered = timed["calls"] / timed["seconds"] * (timed["seconds"] + arguments.warm)
            timed["store_us_per_call"] = (cpu_seconds(store.pid or 0) - store_s) / answered * 1e6
            rounds.append({"arrangement": arrangement.name, **timed})
            print_progress(f"  {arrangement.name}, {workload.name}: {timed['calls_per_s']:,.0f}/s")
        # What connections cost, and what each worker has for itself. The spare reads, too.
        opened = store_connections(store) - connected - 1
        us_per_connection, connections = measure_accepts(gateway, workers)
        parts = {
            "us_per_connection": us_per_connection,
            "connections_by_worker": connections,
            "store_connections_by_worker": opened / arrangement.workers,
            "private_mb": median(private_mb(pid) for pid in workers),
            "rss_mb": median(rss_bytes(pid) / 2**20 for pid in workers),
            "supervisor_mb": rss_bytes(gateway.pids[-1]) / 2**20,
            "shadow_mb": median([private_mb(pid) for pid in child_processes(workers)]),
            "report_us": report_reading_us(bench_model.folder / f"{arrangement.name} {number}"),
        }
    return [*rounds, {"arrangement": arrangement.name, "workload": PARTS, **parts}]


def measure_accepts(gateway: RunningServer, workers: Sequence[int]) -> tuple[float, list[int]]:
    """Open ACCEPTED connections; return the workers' CPU time of each, us, and where they are."""
    host, _, port = gateway.target.rpartition(":")
    with ExitStack() as sockets:
        before_s = sum(map(cpu_seconds, workers))
        for _ in range(ACCEPTED):
            client = sockets.enter_context(socket.create_connection((host, int(port)), 10.0))
            client.sendall(PREFACE)
            # The server's own SETTINGS show that a worker has the connection.
            client.recv(FRAME_HEADER_BYTES, socket.MSG_WAITALL)
        spent_s = sum(map(cpu_seconds, workers)) - before_s
        # The page has the workers' figures of up to one second ago.
        deadline_s = time.monotonic() + 10.0
        while sum(connections := connections_of_workers(gateway, workers)) < ACCEPTED:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"of {ACCEPTED} connections /statistics shows {connections}")
            time.sleep(0.1)
    return spent_s / ACCEPTED * 1e6, connections


def connections_of_workers(gateway: RunningServer, workers: Sequence[int]) -> list[int]:
    """Return the open connections of each of *workers*, as /statistics shows them."""
    with urllib.request.urlopen(f"{gateway.pages}/statistics", timeout=5.0) as page:
        rows = json.load(page)
    return [
        row["statistics"]["server"]["connections"] or 0 for row in rows if row["pid"] in workers
    ]


def store_connections(store: StoreServer) -> int:
    """Return how many connections the store has, without that of this question."""
    with redis.Redis.from_url(store.url) as client:
        return int(client.info("clients")["connected_clients"]) - 1


def private_mb(pid: int) -> float:
    """Return the memory that a process shares with no other, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return (
        sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): *(\d+) kB", text, re.MULTILINE))) / 1024
    )


def report_reading_us(folder: Path) -> float:
    """Return the CPU time to read an outcome report that another worker has journalled, us."""
    folder.mkdir()
    writer = JournalAppender(folder, JournalKind.OUTCOMES, boot_id=1)
    for number in range(REPORTS):
        record = OutcomeRecord(
            prediction_id=number.to_bytes(64, "big"),
            name="churned",
            value=1.0,
            event_time_ms=1_760_000_000_000 + number,
            idempotency_key=f"key-{number}",
        )
        writer.append(record.SerializeToString())
    writer.close()
    # Another worker, which has read none of them.
    keys = IdempotencyKeys(folder, 2, REPORTS)
    began_s = time.process_time()
    keys.catch_up([])
    spent_s = time.process_time() - began_s
    if len(keys) != REPORTS:
        raise RuntimeError(f"of {REPORTS} reports {len(keys)} were read back")
    return spent_s / REPORTS * 1e6


def child_processes(parents: Sequence[int]) -> list[int]:
    """Return the processes that *parents* started, such as those of shadows."""
    found: list[int] = []
    for parent in parents:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def values_of(rounds: Sequence[Round], name: str, workload: str, figure: str) -> list[float]:
    """Return one figure of every round of one arrangement and workload."""
    return [
        float(r[figure]) for r in rounds if (r["arrangement"], r["workload"]) == (name, workload)
    ]


def worker_figures(rounds: Sequence[Round]) -> WorkerFigures:
    """Return what the model needs, as medians over the rounds."""

    def middle(name: str, figure: str, workload: str = PARTS) -> float:
        return median(values_of(rounds, name, workload, figure))

    one, two = ARRANGEMENTS[0].name, ARRANGEMENTS[1].name
    return WorkerFigures(
        private_mb=middle(two, "private_mb"),
        shared_mb=middle(two, "rss_mb") - middle(two, "private_mb"),
        supervisor_mb=middle(two, "supervisor_mb"),
        shadow_mb=middle(two, "shadow_mb"),
        report_us=middle(two, "report_us"),
        store_connections=middle(two, "store_connections_by_worker"),
        us_by_open={n: middle(one, "server_us_per_call", w.name) for n, w in CURVE.items()},
        store_us_by_open={n: middle(one, "store_us_per_call", w.name) for n, w in CURVE.items()},
    )


FIGURES = (
    ("calls_per_s", 0),
    ("p99_ms", 2),
    ("server_us_per_call", 1),
    ("store_us_per_call", 2),
)


def comparison_rows(rounds: Sequence[Round]) -> list[str]:
    """Return a row for each load and arrangement, with the ratio of CPU a call to one worker's."""
    lines = []
    first = ARRANGEMENTS[0].name
    for workload in COMPARED:
        for arrangement in ARRANGEMENTS:
            cells = [
                spread_text(values_of(rounds, arrangement.name, workload.name, figure), digits)
                for figure, digits in FIGURES
            ]
            cpu, of_one = (
                values_of(rounds, name, workload.name, "server_us_per_call")
                for name in (arrangement.name, first)
            )
            ratios = [a / b for a, b in zip(cpu, of_one, strict=True)]
            cells.append(spread_text(ratios, 2))
            lines.append(f"| {workload.name} | {arrangement.name} | {' | '.join(cells)} |")
    return lines


def part_rows(rounds: Sequence[Round]) -> list[str]:
    """Return a row for each arrangement: what a worker has for itself."""
    lines = []
    for name in (arrangement.name for arrangement in ARRANGEMENTS):
        cells = [
            spread_text(values_of(rounds, name, PARTS, figure), 1)
            for figure in (
                "us_per_connection",
                "report_us",
                "store_connections_by_worker",
                "private_mb",
                "shadow_mb",
            )
        ]
        shares = [
            r["connections_by_worker"]
            for r in rounds
            if (r["arrangement"], r["workload"]) == (name, PARTS)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {shares} |")
    return lines


def workers_table(rounds: Sequence[Round]) -> str:
    """Return what was measured, and the model that follows from it, as Markdown."""
    return "\n".join(
        [
            "| by key, 1 row | workers | calls/s | p99 ms | CPU us/call | store CPU us/call "
            "| CPU us/call over one worker's |",
            "|---|---|---|---|---|---|---|",
            *comparison_rows(rounds),
            "",
            f"| workers | CPU us of each of {ACCEPTED:,} new connections "
            "| CPU us to read another worker's report | store connections of a worker "
            "| private MB of a worker | of a shadow | connections by worker, each round |",
            "|---|---|---|---|---|---|---|",
            *part_rows(rounds),
            "",
            model_text(worker_figures(rounds)),
        ]
    )


def measure_workers(arguments: argparse.Namespace) -> list[Round]:
    """Fit the model, fill the store, and measure every arrangement in each round."""
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="turnout-workers-") as folder:
        print_progress("fitting the models and filling the store ...")
        bench_model = BenchModel.prepare(Path(folder), ENTITIES, (BY_KEY, ROLLING))
        for model in (BY_KEY, ROLLING):
            bench_model.write_requests(model, 1)
        os.sched_setaffinity(0, {GENERATOR_CORE})
        store = find_or_start(None, Path(folder))
        try:
            bench_model.fill_store(store.url)
            for number in range(arguments.rounds):
                turns = ARRANGEMENTS if number % 2 == 0 else ARRANGEMENTS[::-1]
                for arrangement in turns:
                    rounds += measure_arrangement(
                        arrangement, bench_model, store, arguments, number
                    )
        finally:
            store.stop()
    return rounds


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 1 when a call failed, 2 without cargo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="counted, a round")
    parser.add_argument("--warm", type=float, default=0.5, help="seconds not counted, a round")
    parser.add_argument("--ingress", default="native" if is_built() else "grpcio")
    parser.add_argument("--json", action="store_true", help="print JSON, with every round")
    arguments = parser.parse_args(argv)
    arguments.generator_core = GENERATOR_CORE
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    if rust_generator.build_generator() is None:
        print_progress(CARGO_MISSING)
        return 2
    rounds = measure_workers(arguments)
    figures = asdict(worker_figures(rounds))
    report = json.dumps({"figures": figures, "rounds": rounds})
    print(report if arguments.json else workers_table(rounds))
    return int(any(timed.get("failed") for timed in rounds))


if __name__ == "__main__":
    sys.exit(main())
