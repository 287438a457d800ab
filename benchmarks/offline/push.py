"""Measures how many rows a second one server of pushed rows stores, offline and online.

    python -m benchmarks.offline.push --seconds 10

The server runs in a process of its own, beside a store of its own, and is called over gRPC in plain
text. Rows have 15 numbers and 5 categories, and each has an event id and an entity of its own. For
each shape of a call (rows of a call, calls that are open at once) the command prints the rows
acknowledged a second, how long a call took, and the CPU of the server's process for each row.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from features.offline import OfflineStore
from features.online.store_client import store_client
from features.online.store_server import find_or_start
from features.push.server import STORE_S, serve_features
from features.push.view_editions import ServedViews
from features.views import Feature, View
from turnout_client import FeatureRow, FeaturesClient

SHAPES = ((1, 1), (1, 32), (100, 1), (100, 8), (1_000, 4))
"""(rows of a call, calls that are open at once)."""
NUMBERS, CATEGORIES = 15, 5
UNBOUNDED = 10**9
TICKS_S = os.sysconf("SC_CLK_TCK")

VIEW = View(
    name="pushed",
    entities=("subscriber",),
    features=(
        *(Feature(name=f"n{index}") for index in range(NUMBERS)),
        *(
            Feature(name=f"c{index}", dtype="category", dictionary=("a", "b", "c"))
            for index in range(CATEGORIES)
        ),
    ),
    ttl_ms=86_400_000,
    transform="SELECT * FROM source",
)


async def serve_pushes(url: str, folder: Path) -> None:
    """Serve until this process is killed; print the port."""

    async def read_views() -> ServedViews:
        return ServedViews("benchmark", (VIEW,))

    server = await serve_features(
        "127.0.0.1:0",
        read_views=read_views,
        offline=OfflineStore(folder),
        client=store_client(url, timeout_s=STORE_S),
        rows_s=UNBOUNDED,
    )
    print(server.port, flush=True)
    await asyncio.Event().wait()


def cpu_s(pid: int) -> float:
    """Return the user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def rows_of(first: int, count: int) -> list[FeatureRow]:
    """Return rows of new entities."""
    now_ms = time.time_ns() // 1_000_000
    return [
        FeatureRow(
            f"S{number:09d}",
            now_ms,
            {f"n{index}": number * 0.5 + index for index in range(NUMBERS)}
            | {f"c{index}": "abc"[(number + index) % 3] for index in range(CATEGORIES)},
            f"event-{number}",
        )
        for number in range(first, first + count)
    ]


async def measure(port: int, pid: int, seconds: float) -> None:
    """Print a line for each shape."""
    first = 0
    print("rows of a call, calls open: rows a second; ms of a call p50, p99; server us CPU a row")
    async with FeaturesClient(f"127.0.0.1:{port}") as client:
        for rows, calls in SHAPES:
            took_s: list[float] = []
            ends = time.perf_counter() + seconds

            async def call_until_end(first: int, rows: int, ends: float, took: list[float]) -> None:
                while (began := time.perf_counter()) < ends:
                    results = await client.push(VIEW.name, rows_of(first, rows))
                    assert all(result.status == "written" for result in results)
                    took.append(time.perf_counter() - began)
                    first += rows

            began_s, began_cpu_s = time.perf_counter(), cpu_s(pid)
            await asyncio.gather(
                *(
                    call_until_end(first + number * 10_000_000, rows, ends, took_s)
                    for number in range(calls)
                )
            )
            wall_s, used_s = time.perf_counter() - began_s, cpu_s(pid) - began_cpu_s
            done = rows * len(took_s)
            print(
                f"  {rows:5} x {calls:2}: {done / wall_s:8,.0f}/s; {1e3 * median(took_s):6.1f} "
                f"{1e3 * quantiles(took_s, n=100)[-1]:6.1f} ms; {1e6 * used_s / done:6.1f} us"
            )
            first += calls * 10_000_000


def main() -> None:
    """Start store and server, measure, and stop both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each shape")
    parser.add_argument("--serve", nargs=2, metavar=("URL", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve_pushes(arguments.serve[0], Path(arguments.serve[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        store = find_or_start(None, Path(folder))
        command = [sys.executable, "-m", "benchmarks.offline.push", "--serve", store.url, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                asyncio.run(measure(port, server.pid, arguments.seconds))
            finally:
                server.kill()
                store.stop()


if __name__ == "__main__":
    main()
