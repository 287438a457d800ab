"""What a new edition of a view costs: rows to back-fill, keys and bytes in the online store."""

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import SourceError
from features.rows import ViewRows
from features.views import View

if TYPE_CHECKING:
    import duckdb

ENTITY_ID_BYTES = 16
"""Length that is assumed of an id."""
STORE_BYTES_A_KEY = 88
"""What Valkey needs for a key beside its bytes and its value's (docs/project.md)."""
EXACT_ROWS_MAX = 1_000_000
"""Entities of more rows are counted by a sketch, which is some percent off."""
COUNT_S_MAX = 3.0
"""Time for counting the rows and entities of all views. What is not counted by then is unknown."""


@dataclass(frozen=True, slots=True)
class BackfillCost:
    """The cost of one new edition."""

    view: str
    rows: int | None
    """Rows to ingest anew; None when they cannot be counted without reading the source."""
    entities: int | None
    """Different entities of these rows, of which each has one key online; None: not counted."""
    bytes_a_row: int
    """Bytes of one entity in the online store."""

    @property
    def store_bytes_max(self) -> int | None:
        """Bytes in the online store; without a count of entities as if each row were another."""
        keys = self.rows if self.entities is None else self.entities
        return None if keys is None else keys * self.bytes_a_row


def backfill_costs(
    editions: Sequence[tuple[View, str]], root: Path, offline: Path
) -> tuple[BackfillCost, ...]:
    """Return the cost of ingesting and materialising each view for the first time.

    editions  each view with the hash of its applied edition, whose stored rows are counted; the
              hash is empty for a new view.
    root      the project's folder, below which the sources' files are.
    offline   folder of the offline store.
    """
    # Rows of Parquet files are counted, for which DuckDB must be installed.
    if not editions or not importlib.util.find_spec("duckdb"):
        return tuple(BackfillCost(view.name, None, None, bytes_a_row(view)) for view, _ in editions)
    from features.storage.database import identifier, open_duckdb

    end = time.monotonic() + COUNT_S_MAX
    costs = []
    with open_duckdb() as connection:
        for view, old_hash in editions:
            # Stored rows are what a back-fill writes again; a new view has its source only.
            files = _stored_files(offline / f"{view.name}@{old_hash[:16]}")
            columns = ["entity_id"]
            if not files:
                files, columns = _source_files(view, root), list(view.entities)
            rows = _count(connection, "sum(num_rows)", "parquet_file_metadata", files, end)
            exact = rows is not None and rows <= EXACT_ROWS_MAX
            ids = f"({', '.join(map(identifier, columns))})"
            distinct = f"count(DISTINCT {ids})" if exact else f"approx_count_distinct({ids})"
            entities = _count(connection, distinct, "read_parquet", files, end)
            if rows is not None and entities is not None:
                entities = min(rows, entities)
            costs.append(BackfillCost(view.name, rows, entities, bytes_a_row(view)))
    return tuple(costs)


def _stored_files(folder: Path) -> list[Path]:
    """Return the files of an edition in the offline store; none where it cannot be read."""
    from features.storage.ingests import stored_ingests

    try:
        ingests = stored_ingests(folder) if folder.is_dir() else []
    except SourceError:
        return []
    return [ingest.path / file.name for ingest in ingests for file in ingest.files]


def _source_files(view: View, root: Path) -> list[Path]:
    """Return the Parquet files of the view's source; none for another source."""
    from features.ingest.files import files_of

    if view.source is None or view.source.format != "parquet":
        return []
    try:
        return files_of(view.source, root)
    except SourceError:
        return []


def _count(
    connection: "duckdb.DuckDBPyConnection", what: str, reader: str, files: list[Path], end: float
) -> int | None:
    """Return one number over Parquet files, or None: it has no such columns, or time is up."""
    import duckdb

    from features.storage.database import glob_escaped, interrupted_after, quoted

    left_s = end - time.monotonic()
    if not files or left_s <= 0:
        return None
    paths = ", ".join(quoted(glob_escaped(path)) for path in files)
    try:
        sql = f"SELECT ({what})::BIGINT FROM {reader}([{paths}])"
        with interrupted_after(connection, left_s):
            found = connection.execute(sql).fetchall()
    except duckdb.Error:
        return None
    return None if found[0][0] is None else int(found[0][0])


def bytes_a_row(view: View) -> int:
    """Return the bytes of one entity in the online store."""
    layout = ViewRows(view)
    key_bytes = len(layout.store_key(b"x" * ENTITY_ID_BYTES))
    return layout.row_bytes + key_bytes + STORE_BYTES_A_KEY
