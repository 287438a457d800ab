"""The newest row of each entity, in batches, and the arrays of stored rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.rows import unpack_valid
from features.storage.database import Columns, fetch_columns
from features.storage.queries import feature_columns, valid_columns
from features.views import View

BATCH_ROWS = 50_000
"""Rows that `NewestRows.batches` gives at once."""


@dataclass(frozen=True, slots=True)
class LatestRows:
    """The newest row of each entity of one view, ordered by id."""

    ids: list[bytes]
    event_times_ms: NDArray[np.int64]
    values: NDArray[np.float32]
    """(N, F): all features of the view. Invalid features hold the default."""
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "LatestRows":
        """Return some of the rows."""
        return LatestRows(
            self.ids[rows], self.event_times_ms[rows], self.values[rows], self.valid[rows]
        )


class NewestRows:
    """The newest row of each entity, in a table of DuckDB. `OfflineStore.open_newest` gives it."""

    def __init__(self, view: View, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        self._view = view
        self._connection = connection
        self._count = count

    def __len__(self) -> int:
        return self._count

    def id_bytes(self) -> int:
        """Return the bytes of the joined ids of all rows."""
        sql = "SELECT coalesce(sum(strlen(entity_id)), 0)::BIGINT FROM newest"
        return int(self._connection.execute(sql).fetchall()[0][0]) if self._count else 0

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[LatestRows]:
        """Yield all rows in batches of at most *rows*, ordered by id."""
        for start in range(0, self._count, rows):
            columns = fetch_columns(
                self._connection,
                f"SELECT * FROM newest WHERE rowid >= {start:d} AND rowid < {start + rows:d} "
                "ORDER BY rowid",
            )
            ids = [text.encode() for text in columns["entity_id"]]
            values, valid = assemble_rows(self._view, columns, len(ids))
            yield LatestRows(ids, columns["event_time_ms"].astype(np.int64), values, valid)


def default_values(view: View) -> NDArray[np.float32]:
    """Return the default of each feature, (F,)."""
    return np.array([feature.default_value for feature in view.features], dtype=np.float32)


def valid_of(view: View, columns: Columns) -> NDArray[np.bool_]:
    """Return validity (N, F) from the validity words of stored rows."""
    words = np.stack([np.ma.getdata(columns[name]) for name in valid_columns(view)], axis=1)
    return unpack_valid(words, len(view.features))


def assemble_rows(
    view: View, columns: Columns, count: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return values and validity, each (*count*, F), from the columns of stored rows."""
    shape = (count, len(view.features))
    if count == 0:
        return np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.bool_)
    valid = valid_of(view, columns)
    # DuckDB may return NULL for NaN, so the defaults come from the view, not from the file.
    raw = np.stack([np.ma.getdata(columns[name]) for name in feature_columns(view)], axis=1)
    return np.where(valid, raw, default_values(view)).astype(np.float32, copy=False), valid
