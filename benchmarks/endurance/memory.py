"""Measures a worker's memory after many calls and cancelled calls.

    python -m benchmarks.endurance.memory --millions 10

The gateway serves three models whose features are in the store. For each million, 10,000 calls are
cancelled as soon as they are sent, over new connections. Then a million calls by key follow, with
8 x 16 open at once. Then no call is open, and the command prints the serving worker's resident
memory. Exit code 1: the memory is above 250 MB at the end, or it grew by more than 5 MB after the
first million, or a call failed that was not cancelled, or the worker was replaced. Exit code 2:
cargo is not there, which builds the load generator.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks.load import rust_generator
from benchmarks.load.http2_peer import Http2Peer, PreparedCall
from benchmarks.serving.bench_model import BenchModel
from benchmarks.serving.servers import (
    CARGO_MISSING,
    THIS_CHECKOUT,
    RunningServer,
    ServerSetup,
    pin_to_core,
    running_checkout,
)
from benchmarks.serving.workloads import THREE_SKEWED
from benchmarks.standalone_gateway import PREDICT
from features.online.store_server import find_or_start
from gateway.ingress_choice import is_built
from host.processes import rss_bytes

MILLION = 1_000_000
CANCELS = 10_000
CANCELS_A_CONNECTION = 1_000
"""The native ingress closes a connection that resets 2,000 streams at once."""
SERVER_CORE, GENERATOR_CORE = 0, 1
ENTITIES = 20_000
RSS_MB_MAX, GROWTH_MB_MAX = 250.0, 5.0


async def send_cancelled_calls(port: int, body: bytes, count: int) -> None:
    """Send *count* calls over new connections, and cancel each as soon as it is sent."""
    loop, call = asyncio.get_running_loop(), PreparedCall(PREDICT, body, 1_000)
    for _ in range(count // CANCELS_A_CONNECTION):
        room = asyncio.Event()
        _, peer = await loop.create_connection(
            lambda room=room: Http2Peer(lambda *_: None, lambda _: room.set()),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        for number in range(CANCELS_A_CONNECTION):
            # A cancelled call frees its stream at once, but its bytes wait for the flow control.
            while peer.free_streams <= 0:
                room.clear()
                await asyncio.wait_for(room.wait(), 10.0)
            peer.cancel(peer.send(call, number))
            if number % 16 == 0:
                await asyncio.sleep(0)
        peer.close()


def send_million_calls(target: str, bodies: Path, number: int) -> int:
    """Send a million calls; return how many failed."""
    options = ["--calls", MILLION, "--seconds", 600, "--warm", 0, "--first", 997 * number]
    options += ["--connections", 8, "--streams", 16]
    line = rust_generator.generator_command(target, bodies, options)
    generator = subprocess.run(pin_to_core(line, GENERATOR_CORE), check=True, capture_output=True)
    return int(rust_generator.parse_figures(generator.stdout.decode())["failed"])


def rss_mb(pid: int) -> float:
    """Return the resident memory of *pid* in MiB."""
    return rss_bytes(pid) / 2**20


def memory_faults(rss_by_million: Sequence[float], failed: int, replaced: bool) -> list[str]:
    """Return a sentence for each promise that did not hold.

    rss_by_million  resident memory in MB after each million of calls.
    failed          calls that failed and were not cancelled.
    replaced        whether another process serves at the end.
    """
    faults = []
    if rss_by_million[-1] > RSS_MB_MAX:
        faults.append(
            f"the worker has {rss_by_million[-1]:.0f} MB; at most {RSS_MB_MAX:.0f} were promised"
        )
    if rss_by_million[-1] - rss_by_million[0] > GROWTH_MB_MAX:
        growth = rss_by_million[-1] - rss_by_million[0]
        faults.append(
            f"it grew by {growth:.1f} MB after the first million; at most {GROWTH_MB_MAX}"
        )
    if failed:
        faults.append(f"{failed} calls failed that were not cancelled")
    if replaced:
        faults.append("the worker was replaced; its successor's memory says nothing")
    return faults


def serving_workers(gateway: RunningServer) -> list[int]:
    """Return the process ids of the workers that serve now."""
    with urllib.request.urlopen(f"{gateway.pages}/workers", timeout=5.0) as page:
        return [row["pid"] for row in json.load(page) if row["state"] == "serving"]


def measure_memory(millions: int, ingress: str) -> list[str]:
    """Send all calls, print the memory after each million, and return the faults."""
    rss_by_million: list[float] = []
    failed = 0
    with tempfile.TemporaryDirectory(prefix="turnout-memory-") as folder:
        bench_model = BenchModel.prepare(Path(folder), ENTITIES, (THREE_SKEWED,))
        bodies = bench_model.write_requests(THREE_SKEWED, 1)
        content = bodies.read_bytes()  # each message follows its length in 4 bytes
        body = content[4 : 4 + int.from_bytes(content[:4], "little")]
        os.sched_setaffinity(0, {GENERATOR_CORE})
        store = find_or_start(None, Path(folder))
        setup = ServerSetup(store.url, ingress, SERVER_CORE, GENERATOR_CORE)
        folders = bench_model.folder, bench_model.gateway_folder
        try:
            bench_model.fill_store(store.url)
            with running_checkout(THIS_CHECKOUT, *folders, setup) as gateway:
                worker, port = gateway.pids[0], int(gateway.target.rpartition(":")[2])
                print(f"idle: {rss_mb(worker):.1f} MB", flush=True)
                for number in range(millions):
                    uvloop.run(send_cancelled_calls(port, body, CANCELS))
                    failed += send_million_calls(gateway.target, bodies, number)
                    rss_by_million.append(rss_mb(worker))
                    print(f"{number + 1} M calls: {rss_by_million[-1]:.1f} MB", flush=True)
                replaced = serving_workers(gateway) != [worker]
        finally:
            store.stop()
    return memory_faults(rss_by_million, failed, replaced)


def main() -> int:
    """Measure, print the faults, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=10)
    parser.add_argument("--ingress", choices=("native", "grpcio"))
    arguments = parser.parse_args()
    if rust_generator.build_generator() is None:
        sys.stderr.write(f"{CARGO_MISSING}\n")
        return 2
    ingress = arguments.ingress or ("native" if is_built() else "grpcio")
    faults = measure_memory(arguments.millions, ingress)
    print(
        "\n".join(faults)
        or "every promise held: at most 250 MB, at most 5 MB more after the first million"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
