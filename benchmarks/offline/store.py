"""Measures how fast ingest and the as-of join are, in how much memory, beside pandas and polars.

    python -m benchmarks.offline.store --rows 12000000 --questions 1000000

It makes a Parquet file of rows with 15 numbers and 5 categories in the order of time, 12 rows for
each entity over half a year. Then each step runs in a process of its own, and a line says its
time, its CPU time and the most memory that the process had. The last column says whether the join
has the values of Turnout's; polars is left out where it is not installed.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from features.contract import ModelContract, ViewUse
from features.ingest.load import ingest
from features.offline import OfflineStore, Spine
from features.source import Source
from features.storage.database import open_duckdb
from features.views import Feature, View
from host.processes import peak_rss_bytes

START_MS = 1_765_000_000_000
SPAN_MS = 180 * 86_400_000
ROWS_OF_AN_ENTITY = 12
KINDS = tuple(f"kind {number}" for number in range(8))
NUMBERS = tuple(f"n{number}" for number in range(15))
CATEGORIES = tuple(f"c{number}" for number in range(5))

VIEW = View(
    name="bench",
    entities=("subscriber",),
    features=(
        *(Feature(name=name, default=0.0) for name in NUMBERS),
        *(Feature(name=name, dtype="category", dictionary=KINDS) for name in CATEGORIES),
    ),
    ttl_ms=2 * SPAN_MS,
    transform=f"SELECT subscriber, event_time_ms, created_ms, {', '.join(NUMBERS + CATEGORIES)} "
    "FROM source",
    source_schema=(
        ("subscriber", "VARCHAR"),
        ("measured_at", "TIMESTAMP"),
        *((name, "DOUBLE") for name in NUMBERS),
        *((name, "VARCHAR") for name in CATEGORIES),
    ),
    source=Source.files("source.parquet", time="measured_at", created="measured_at", zone="UTC"),
)
CONTRACT = ModelContract(
    entities=VIEW.entities, views=(ViewUse(view=VIEW, features=NUMBERS + CATEGORIES),)
)


def make_source(folder: Path, rows: int) -> None:
    """Write source.parquet, with the rows in the order of their times."""
    numbers = ", ".join(
        f"(hash(i * 31 + {k}) % 1000000) / 100 AS {n}" for k, n in enumerate(NUMBERS)
    )
    kinds = ", ".join(
        f"'kind ' || (hash(i * 17 + {k}) % {len(KINDS)}) AS {n}" for k, n in enumerate(CATEGORIES)
    )
    entities = max(1, rows // ROWS_OF_AN_ENTITY)
    with open_duckdb() as connection:
        connection.execute(
            f"COPY (SELECT 'S' || lpad((i % {entities})::VARCHAR, 9, '0') AS subscriber, "
            f"make_timestamp_ms({START_MS} + i * {SPAN_MS} // {rows}) AS measured_at, "
            f"{numbers}, {kinds} FROM range({rows}) r(i)) "
            f"TO '{folder / 'source.parquet'}' (FORMAT parquet)"
        ).fetchall()


def run_ingest(folder: Path, memory_mb: int) -> str:
    """Ingest the source into a new store."""
    store = OfflineStore(folder / "store", memory_mb=memory_mb)
    summary = ingest(VIEW, store, root=folder, memory_mb=memory_mb, now_ms=START_MS + SPAN_MS)
    return f"{summary.rows:,} rows"


def questions(folder: Path, count: int) -> tuple[list[str], np.ndarray]:
    """Return *count* ids and instants, drawn from all entities and the half year."""
    with open_duckdb() as connection:
        rows = connection.execute(f"SELECT count(*) FROM '{folder / 'source.parquet'}'").fetchall()[
            0
        ][0]
    rng = np.random.default_rng(7)
    entities = rng.integers(0, max(1, rows // ROWS_OF_AN_ENTITY), count)
    return [f"S{number:09d}" for number in entities], rng.integers(
        START_MS, START_MS + SPAN_MS, count, dtype=np.int64
    )


def run_turnout(folder: Path, count: int, memory_mb: int) -> np.ndarray:
    """Join by OfflineStore. Returns the values of the first number, NaN where there is no row."""
    ids, instants = questions(folder, count)
    store = OfflineStore(folder / "store", memory_mb=memory_mb)
    training = store.training_set(CONTRACT, Spine(ids={"subscriber": ids}, as_of_ms=instants))
    return np.where(training.flags & 1, np.nan, training.values[:, 0])


def run_pandas(folder: Path, count: int, memory_mb: int) -> np.ndarray:  # noqa: ARG001
    """Join by pandas.merge_asof over the stored rows."""
    import pandas as pd

    ids, instants = questions(folder, count)
    asked = pd.DataFrame({"entity_id": ids, "at": instants}).reset_index().sort_values("at")
    with open_duckdb() as connection:
        rows = pd.DataFrame(connection.execute(_stored_sql(folder)).fetchnumpy())
    joined = pd.merge_asof(
        asked,
        rows.sort_values("event_time_ms"),
        left_on="at",
        right_on="event_time_ms",
        by="entity_id",
    )
    return np.asarray(joined.sort_values("index")["f_n0"], dtype=np.float64)


def run_polars(folder: Path, count: int, memory_mb: int) -> np.ndarray:  # noqa: ARG001
    """Join by polars.join_asof over the stored rows."""
    import polars as pl

    ids, instants = questions(folder, count)
    asked = pl.DataFrame({"entity_id": ids, "at": instants}).with_row_index().sort("at")
    rows = pl.read_parquet(f"{folder}/store/*/*/*.parquet").sort("event_time_ms")
    joined = asked.join_asof(
        rows, left_on="at", right_on="event_time_ms", by="entity_id", check_sortedness=False
    )
    return np.asarray(joined.sort("index")["f_n0"].to_numpy(), dtype=np.float64)


def _stored_sql(folder: Path) -> str:
    return f"SELECT * EXCLUDE (created_ms) FROM '{folder}/store/*/*/*.parquet'"


def run_measured(step: Callable[..., Any], *arguments: object) -> tuple[Any, float, float, int]:
    """Run *step* and return its result, seconds, CPU seconds and the most memory in MB."""
    began = time.monotonic()
    result = step(*arguments)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (
        result,
        time.monotonic() - began,
        usage.ru_utime + usage.ru_stime,
        # ru_maxrss would have that of the process which started this one.
        peak_rss_bytes() // 1_000_000,
    )


def in_process(step: Callable[..., Any], *arguments: object) -> tuple[Any, float, float, int]:
    """Run *step* as `run_measured` does, in a new process, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(run_measured, step, *arguments).result()


def main() -> None:
    """Measure each step and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--questions", type=int, default=200_000)
    parser.add_argument("--memory-mb", type=int, default=2_000, help="memory of DuckDB")
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnout-bench-", dir=options.folder) as name:
        folder = Path(name)
        make_source(folder, options.rows)
        _, seconds, cpu, mb = in_process(run_ingest, folder, options.memory_mb)
        rate = options.rows / seconds
        print(f"ingest    {seconds:7.1f} s {cpu:7.1f} s CPU {mb:6,} MB  {rate:,.0f} rows/s")
        expected: np.ndarray | None = None
        for title, step in (
            ("turnout", run_turnout),
            ("pandas", run_pandas),
            ("polars", run_polars),
        ):
            try:
                found, seconds, cpu, mb = in_process(
                    step, folder, options.questions, options.memory_mb
                )
            except ModuleNotFoundError as error:
                print(f"{title:9} {error.name} is not installed")
                continue
            expected = found if expected is None else expected
            equal = "equal" if np.array_equal(found, expected, equal_nan=True) else "DIFFERENT"
            print(f"{title:9} {seconds:7.1f} s {cpu:7.1f} s CPU {mb:6,} MB  {equal}")


if __name__ == "__main__":
    main()
