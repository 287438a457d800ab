"""What a new edition of a view costs: rows to back-fill, and bytes in the online store."""

import importlib.util
from collections.abc import Sequence
from contextlib import suppress
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


def backfill_costs(
    editions: Sequence[tuple[View, str]], root: Path, offline: Path
) -> tuple[BackfillCost, ...]:
    """Return the cost of ingesting and materialising each view for the first time.

    editions  each view with the hash of its applied edition, whose stored rows are counted; the
              hash is empty for a new view.
    root      the project's folder, below which the sources' files are.
    offline   folder of the offline store.
    """
    # Rows are counted by the footers of Parquet files, for which DuckDB must be installed.
    if not editions or not importlib.util.find_spec("duckdb"):
        return tuple(BackfillCost(view.name, None, bytes_a_row(view)) for view, _ in editions)
    import duckdb

    with duckdb.connect() as connection:

        def parquet_rows(pattern: Path) -> int | None:
            sql = "SELECT sum(num_rows)::BIGINT FROM parquet_file_metadata(?)"
            with suppress(duckdb.Error):  # there are no such files, or they are not Parquet
                found = connection.execute(sql, [str(pattern)]).fetchone()
                return None if found is None or found[0] is None else int(found[0])
            return None

        def count(view: View, old_hash: str) -> int | None:
            stored = offline / f"{view.name}@{old_hash[:16]}"
            rows = parquet_rows(stored / "**" / "*.parquet") if stored.is_dir() else None
            is_parquet = view.source is not None and view.source.format == "parquet"
            if rows is None and is_parquet and view.source is not None:
                return parquet_rows(root / view.source.location)
            return rows

        return tuple(
            BackfillCost(view.name, count(view, old_hash), bytes_a_row(view))
            for view, old_hash in editions
        )


def bytes_a_row(view: View) -> int:
    """Return the bytes of one entity in the online store."""
    layout = ViewRows(view)
    key_bytes = len(layout.store_key(b"x" * ENTITY_ID_BYTES))
    return layout.row_bytes + key_bytes + STORE_BYTES_A_KEY
