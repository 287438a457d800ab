"""Removes a person's rows from the files of a view: ingests, quarantine, log, leftovers.

Each file is replaced whole, so a killed removal leaves complete files and may be repeated.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from features.entity_ids import SEPARATOR, named_positions
from features.storage.database import glob_escaped, identifier, open_duckdb, quoted
from features.storage.ingests import (
    StoredFile,
    StoredIngest,
    delete_replaced,
    delete_unnamed_files,
    replace_files,
    stored_ingests,
)
from features.storage.pushed_log import PushedLog, has_log
from features.storage.settle import finish_settling
from features.storage.writing import write_file
from host.files import folder_lock, replacing_file


@dataclass(frozen=True, slots=True)
class ForgottenOffline:
    """Rows of a person in one view's folder, or in several."""

    rows: int = 0
    """In the ingests."""
    quarantined: int = 0
    """In the quarantine."""

    def __add__(self, other: "ForgottenOffline") -> "ForgottenOffline":
        return ForgottenOffline(self.rows + other.rows, self.quarantined + other.quarantined)


def forget_offline(
    folder: Path, entities: Sequence[str], named: Mapping[str, str], *, dry_run: bool = False
) -> ForgottenOffline:
    """Remove the rows of *named* from one view's folder, and return how many there were.

    It waits until no process reads or adds files. Later readers find no such row, so a
    materialise that begins after it writes none.

    folder    `<view>@<hash>` of the offline store.
    entities  those of the view, in order.
    named     entity -> id. A row must have all of them.
    dry_run   counts only.

    Raises SourceError for a manifest that cannot be read, duckdb.Error for a file.
    """
    positions = named_positions(entities, named)
    if not positions:
        return ForgottenOffline()
    with folder_lock(folder, shared=dry_run), open_duckdb() as connection:
        # What no process needs may hold the person's rows too.
        if not dry_run:
            delete_replaced(folder, leftover_s=0)
        rows = _forget_in_log(folder, positions, len(entities), dry_run=dry_run)
        stored = _stored_condition(positions, len(entities))
        for ingest in stored_ingests(folder):
            rows += _forget_in_ingest(connection, ingest, stored, dry_run=dry_run)
        # The quarantine has rows as the transform returned them, with a column for each entity.
        set_aside = " AND ".join(
            f"CAST({identifier(entities[position])} AS VARCHAR) = {quoted(text)}"
            for position, text in positions.items()
        )
        quarantined = sum(
            _forget_in_quarantine(connection, path, set_aside, dry_run=dry_run)
            for path in sorted((folder / "quarantine").glob("*.parquet"))
        )
        return ForgottenOffline(rows, quarantined)


def _stored_condition(positions: Mapping[int, str], entities: int) -> str:
    """Return SQL that says whether a stored row is the person's."""
    if len(positions) == entities:
        joined = SEPARATOR.decode().join(positions[position] for position in range(entities))
        return f"entity_id = {quoted(joined)}"
    separator = f"chr({SEPARATOR[0]:d})"
    return " AND ".join(
        f"split_part(entity_id, {separator}, {position + 1:d}) = {quoted(text)}"
        for position, text in positions.items()
    )


def _forget_in_log(
    folder: Path, positions: Mapping[int, str], entities: int, *, dry_run: bool
) -> int:
    """Remove the person's pushed rows that are in no ingest yet, and return their number."""
    if not has_log(folder):
        return 0
    wanted = {position: text.encode() for position, text in positions.items()}

    def is_person(entity_id: bytes) -> bool:
        ids = entity_id.split(SEPARATOR)
        return len(ids) == entities and all(ids[at] == text for at, text in wanted.items())

    with closing(PushedLog(folder)) as log:
        # An ingest gets another digest below, by which the log would no longer know it.
        if not dry_run:
            finish_settling(folder, log)
        return log.forget(is_person, dry_run=dry_run)


def _forget_in_ingest(
    connection: duckdb.DuckDBPyConnection, ingest: StoredIngest, condition: str, *, dry_run: bool
) -> int:
    """Replace the files that have such rows, and return the number of the rows."""
    if not dry_run:
        delete_unnamed_files(ingest.path, ingest.files)
    numbers = [int(Path(file.name).stem) for file in ingest.files]
    number, removed = max(numbers, default=0), 0
    kept: list[StoredFile] = []
    for file in ingest.files:
        path = ingest.path / file.name
        count = _count(connection, path, condition)
        removed += count
        if not count:
            kept.append(file)
        elif count < file.rows and not dry_run:
            # The other rows keep their order, which decides among equal event times.
            number += 1
            rest = f"SELECT * FROM {_parquet(path)} WHERE NOT ({condition})"
            columns = connection.execute(f"DESCRIBE {rest}").fetchall()
            written = write_file(
                connection, rest, ingest.path / f"{number:04d}.parquet", len(columns)
            )
            kept.append(written)
    if removed and not dry_run:
        replace_files(ingest, kept)
    return removed


def _forget_in_quarantine(
    connection: duckdb.DuckDBPyConnection, path: Path, condition: str, *, dry_run: bool
) -> int:
    """Replace a file that has such rows, or delete it when it has no others."""
    count = _count(connection, path, condition)
    if not count or dry_run:
        return count
    # A row whose id is NULL belongs to no person, and stays.
    rest = f"SELECT * FROM {_parquet(path)} WHERE ({condition}) IS NOT TRUE"
    with replacing_file(path) as beside:
        connection.execute(f"COPY ({rest}) TO {quoted(str(beside))} (FORMAT parquet)").fetchall()
    if not _count(connection, path, "true"):
        path.unlink()
    return count


def _count(connection: duckdb.DuckDBPyConnection, path: Path, condition: str) -> int:
    sql = f"SELECT count(*) FROM {_parquet(path)} WHERE {condition}"
    return int(connection.execute(sql).fetchall()[0][0])


def _parquet(path: Path) -> str:
    return f"read_parquet({quoted(glob_escaped(path))}, hive_partitioning = false)"
