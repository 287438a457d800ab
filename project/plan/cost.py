"""What a new edition of a view costs: rows to back-fill, and bytes in the online store."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from features.rows import ViewRows
from features.views import View

ENTITY_ID_BYTES = 16
"""Length that is assumed of an id."""
STORE_BYTES_A_KEY = 88
"""What Valkey needs for a key beside its bytes and its value's (docs/project.md)."""


@dataclass(frozen=True, slots=True)
class BackfillCost:
    """The cost of one new edition."""

    view: str
    rows: int | None
    """Rows to ingest anew; None when they cannot be counted without reading the source."""
    bytes_a_row: int
    """Bytes of one entity in the online store."""

    @property
    def store_bytes_max(self) -> int | None:
        """Bytes in the online store if each row is another entity; None without a count."""
        return None if self.rows is None else self.rows * self.bytes_a_row


def backfill_cost(view: View, old_hash: str, root: Path, offline: Path) -> BackfillCost:
    """Return the cost of ingesting and materialising *view* for the first time.

    old_hash  hash of its applied edition, whose stored rows are counted; empty for a new view.
    root      the project's folder, below which the source's files are.
    offline   folder of the offline store.
    """
    layout = ViewRows(view)
    key_bytes = len(layout.store_key(b"x" * ENTITY_ID_BYTES))
    bytes_a_row = layout.row_bytes + key_bytes + STORE_BYTES_A_KEY
    rows = _stored_rows(offline / f"{view.name}@{old_hash[:16]}") if old_hash else None
    if rows is None and view.source is not None and view.source.format == "parquet":
        rows = _parquet_rows(str(root / view.source.location))
    return BackfillCost(view.name, rows, bytes_a_row)


def _stored_rows(folder: Path) -> int | None:
    return _parquet_rows(str(folder / "**" / "*.parquet")) if folder.is_dir() else None


def _parquet_rows(pattern: str) -> int | None:
    """Return the rows of Parquet files by their footers; None when there are none."""
    if not importlib.util.find_spec("duckdb"):
        return None
    import duckdb

    try:
        with duckdb.connect() as connection:
            found = connection.execute(
                "SELECT sum(num_rows)::BIGINT FROM parquet_file_metadata(?)", [pattern]
            ).fetchone()
    except duckdb.Error:
        return None
    return None if found is None or found[0] is None else int(found[0])
