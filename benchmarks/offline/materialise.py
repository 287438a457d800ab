"""Measures how many rows a second `materialise` writes to one store, and their size there.

    python -m benchmarks.offline.materialise --rows 1000000
    PYTHONPATH=../old python -P benchmarks/offline/materialise.py      # of another checkout

It ingests one row of 15 numbers and 5 categories for each entity into an offline store, starts an
empty Redis or Valkey, and materialises all rows twice: into the empty store, and over the rows that
are there. A line says rows a second, the CPU time of both processes for each row, and the bytes of
the store's memory for each row. Exit code 1: a promise does not hold.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import redis

from benchmarks.offline.store import VIEW
from features.ingest.load import ingest
from features.materialise import materialise
from features.offline import OfflineStore
from features.online.store_client import store_client
from features.online.store_server import StoreServer, find_or_start
from features.storage.database import open_duckdb
from host.processes import cpu_seconds

ROWS_PER_S_MIN = 150_000
BYTES_MAX = 300


def make_rows(folder: Path, rows: int) -> OfflineStore:
    """Ingest one row of each of *rows* entities, an hour old at most."""
    now_ms = time.time_ns() // 1_000_000
    columns = ", ".join(
        f"(hash(i * 31 + {k}) % 1000000) / 100 AS {feature.name}"
        if feature.dtype != "category"
        else f"'kind ' || (hash(i * 17 + {k}) % 8) AS {feature.name}"
        for k, feature in enumerate(VIEW.features)
    )
    with open_duckdb() as connection:
        connection.execute(
            f"COPY (SELECT 'S' || lpad(i::VARCHAR, 9, '0') AS subscriber, "
            f"make_timestamp_ms({now_ms} - (i % 3600) * 1000) AS measured_at, {columns} "
            f"FROM range({rows}) r(i)) TO '{folder / 'source.parquet'}' (FORMAT parquet)"
        ).fetchall()
    store = OfflineStore(folder / "offline")
    ingest(VIEW, store, root=folder)
    return store


def run_round(title: str, offline: OfflineStore, client: redis.Redis, server: StoreServer) -> float:
    """Materialise all rows, print a line, and return rows a second."""
    assert server.pid is not None
    began, cpu, store_cpu = time.monotonic(), time.process_time(), cpu_seconds(server.pid)
    written = materialise(offline, VIEW, client, full=True).written
    seconds = time.monotonic() - began
    each_us = 1e6 * (time.process_time() - cpu) / written
    store_us = 1e6 * (cpu_seconds(server.pid) - store_cpu) / written
    print(
        f"{title:9} {written / seconds:9,.0f} rows/s, {each_us:5.2f} us of CPU a row here, "
        f"{store_us:5.2f} us in the store"
    )
    return written / seconds


def main() -> None:
    """Measure both rounds and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=300_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name:
        folder = Path(name)
        offline = make_rows(folder, options.rows)
        server = find_or_start(None, folder / "store")
        try:
            with store_client(server.url) as client:
                before = client.info("memory")["used_memory"]
                rate = run_round("empty", offline, client, server)
                size = (client.info("memory")["used_memory"] - before) / options.rows
                rate = max(rate, run_round("again", offline, client, server))
        finally:
            server.stop()
    print(f"{size:.0f} bytes of the store's memory a row")
    sys.exit(0 if rate >= ROWS_PER_S_MIN and size <= BYTES_MAX else 1)


if __name__ == "__main__":
    main()
