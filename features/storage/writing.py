"""Writes the rows of one ingest to Parquet files that each hold a period of event times."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.storage.database import glob_escaped, quoted
from features.storage.ingests import StoredFile, file_digest
from features.storage.queries import feature_columns, stored_columns, valid_columns
from features.views import View

PERIOD_MS = 30 * 86_400_000
"""Files are cut at multiples of this, so that equal event times are never in two files."""

FILE_ROWS_MIN = 1_000_000
"""Neighbouring periods share a file until it has this many rows."""

GROUP_VALUES_MAX = 16_000_000
"""Values in one row group: about 64 MB before compression."""


def write_files(
    connection: duckdb.DuckDBPyConnection, rows: str, columns: Sequence[str], folder: Path
) -> list[StoredFile]:
    """Write the rows of a relation, in its order, and return the files; none without rows.

    rows     SQL of a relation that gives the same rows in the same order each time. It has a
             column event_time_ms.
    columns  SQL of the stored columns (features.storage.queries.stored_columns), from *rows*.
    folder   an existing empty folder.
    """
    return [
        write_file(
            connection,
            f"SELECT {', '.join(columns)} FROM ({rows}) "
            f"WHERE event_time_ms >= {start_ms:d} AND event_time_ms < {end_ms:d}",
            folder / f"{number:04d}.parquet",
            len(columns),
        )
        for number, (start_ms, end_ms) in enumerate(_periods(connection, rows), start=1)
    ]


def write_arrays(
    connection: duckdb.DuckDBPyConnection,
    view: View,
    entity_ids: NDArray[np.object_],
    instants_ms: tuple[NDArray[np.int64], NDArray[np.int64]],
    values: NDArray[np.float32],
    valid_words: NDArray[np.uint64],
    folder: Path,
) -> list[StoredFile]:
    """Write N encoded rows, in their order, as `write_files` does.

    entity_ids           (N,) joined ids as text.
    instants_ms          event times and created times, (N,) each, Unix ms.
    values, valid_words  (N, F) and (N, W), as a stored row has them.
    """
    event_times_ms, created_ms = instants_ms
    table: dict[str, NDArray[Any]] = {
        "entity_id": entity_ids,
        "event_time_ms": event_times_ms,
        "created_ms": created_ms,
        **dict(zip(valid_columns(view), valid_words.T, strict=True)),
        **dict(zip(feature_columns(view), values.T, strict=True)),
    }
    contiguous = {name: np.ascontiguousarray(column) for name, column in table.items()}
    connection.register("arriving", contiguous)
    return write_files(connection, "SELECT * FROM arriving", stored_columns(view), folder)


def write_file(
    connection: duckdb.DuckDBPyConnection, rows: str, path: Path, width: int
) -> StoredFile:
    """Write the rows of a SELECT, in its order, to one file. It has at least one row.

    width  the number of its columns.
    """
    # Parquet is written by groups of rows, which lie in memory. Wide rows make small groups.
    group_rows = max(2_048, min(122_880, GROUP_VALUES_MAX // width))
    connection.execute(
        f"COPY ({rows}) TO {quoted(str(path))} (FORMAT parquet, COMPRESSION zstd, "
        f"ROW_GROUP_SIZE {group_rows:d})"
    ).fetchall()
    # Read back what the manifest says of them.
    count, *instants = connection.execute(
        "SELECT count(*), min(event_time_ms), max(event_time_ms), "
        "min(greatest(event_time_ms, created_ms)) "
        f"FROM read_parquet({quoted(glob_escaped(path))}, hive_partitioning = false)"
    ).fetchall()[0]
    return StoredFile(path.name, count, file_digest(path), *instants)


def _periods(connection: duckdb.DuckDBPyConnection, rows: str) -> list[tuple[int, int]]:
    """Return the half-open spans of event times, Unix ms, that get a file each."""
    counts = connection.execute(
        f"SELECT event_time_ms // {PERIOD_MS:d} AS period, count(*) FROM ({rows}) "
        "GROUP BY period ORDER BY period"
    ).fetchall()
    spans: list[tuple[int, int]] = []
    size = FILE_ROWS_MIN
    for period, count in counts:
        # A full file ends before this period; otherwise the period joins it.
        start_ms, end_ms = period * PERIOD_MS, (period + 1) * PERIOD_MS
        if size >= FILE_ROWS_MIN:
            spans.append((start_ms, end_ms))
            size = 0
        spans[-1] = (spans[-1][0], end_ms)
        size += count
    return spans
