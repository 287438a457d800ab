"""Cells in the database: adding to them, reading them, and rolling old ones up.

Every function works in a transaction of its caller. A cell is one row with its columns as a
message, because a cell of 20 inputs has some hundred counts, and a row for each would make a push
of a hundred cells a hundred times as long.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, insert, select, update

from monitoring.cells.cell import CellCounts, CellKey
from monitoring.store.tables import DAY, GRAIN_HOURS, HOUR, WEEK, cells, outcomes, window_rows

DAY_HOURS = 24
WEEK_HOURS = 168
MONDAY_HOURS = 3 * DAY_HOURS
"""Unix day 0 was a Thursday, so a week begins this many hours before a multiple of seven days."""

SELECTED_HOURS = 500
"""Hours of a version whose cells are read in one statement."""
_CHANGE_CELL = update(cells).where(
    *(cells.c[column.name] == bindparam(f"of_{column.name}") for column in cells.primary_key)
)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each grain is kept, in days."""

    hour_days: int = 35
    day_days: int = 400
    week_days: int = 1_826
    outcome_days: int = 400
    """Reported outcomes: later a second report of one is counted as a first."""


@dataclass(frozen=True, slots=True)
class StoredCell:
    """A cell as it was read."""

    grain: str
    key: CellKey
    """Its hour is that at which the grain begins."""
    counts: CellCounts


def start_of(grain: str, hour: int) -> int:
    """Return the Unix hour at which the day or week (from Monday, UTC) of *hour* begins."""
    if grain == WEEK:
        return (hour + MONDAY_HOURS) // WEEK_HOURS * WEEK_HOURS - MONDAY_HOURS
    return hour // GRAIN_HOURS[grain] * GRAIN_HOURS[grain]


def digest_text(digest: int) -> str:
    """Return 8 bytes as 16 hex digits: databases have no unsigned numbers."""
    return f"{digest:016x}"


def add_to_cells(
    connection: Connection, grain: str, added: Iterable[tuple[CellKey, CellCounts]]
) -> None:
    """Add counts to cells, which are made where there are none.

    The cells are read and written together: building a statement costs more than running it.
    """
    sums: dict[CellKey, CellCounts] = {}
    for key, counts in added:
        sums.setdefault(key, CellCounts()).add_cell(counts)
    known = _stored_columns(connection, grain, sums)
    # Add what is there, and keep new cells and others apart.
    new, changed = [], []
    for key, counts in sums.items():
        stored = known.get(key)
        total = counts
        if stored is not None:
            total = CellCounts.from_bytes(stored)
            total.add_cell(counts)
        content = {"calls": total.calls, "rows": total.rows, "columns": total.to_bytes()}
        values = _key_values(grain, key)
        if stored is None:
            new.append(values | content)
        else:
            changed.append({f"of_{name}": value for name, value in values.items()} | content)
    if new:
        connection.execute(insert(cells), new)
    if changed:
        connection.execute(_CHANGE_CELL, changed)


def _stored_columns(
    connection: Connection, grain: str, keys: Iterable[CellKey]
) -> dict[CellKey, bytes]:
    """Return the stored columns of those cells that are there."""
    wanted = set(keys)
    hours: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for key in wanted:
        hours[key.model, key.version, key.digest8].add(key.hour)
    found = {}
    for (model, version, digest8), starts in hours.items():
        ordered = sorted(starts)
        for first in range(0, len(ordered), SELECTED_HOURS):
            rows = connection.execute(
                select(cells).where(
                    cells.c.grain == grain,
                    cells.c.start_hour.in_(ordered[first : first + SELECTED_HOURS]),
                    cells.c.model == model,
                    cells.c.version == version,
                    cells.c.digest8 == digest_text(digest8),
                )
            )
            for row in rows.mappings():
                key = _stored_key(row)
                if key in wanted:
                    found[key] = row["columns"]
    return found


def read_cells(
    connection: Connection,
    since_hour: int,
    until_hour: int,
    *,
    model: str | None = None,
    version: str | None = None,
    role: int | None = None,
    segment: str | None = "",
) -> list[StoredCell]:
    """Return the cells of all grains that begin in [since_hour, until_hour), oldest first.

    A rolled-up cell replaces those of its hours, so the sum counts each row once.

    segment  "": the cells of all rows; None: those of every segment, whose rows overlap.
    """
    chosen = {"model": model, "version": version, "role": role, "segment": segment}
    where: list[ColumnElement[bool]] = [
        cells.c[name] == value for name, value in chosen.items() if value is not None
    ]
    where += [cells.c.start_hour >= since_hour, cells.c.start_hour < until_hour]
    rows = connection.execute(select(cells).where(*where).order_by(cells.c.start_hour))
    return [_stored_cell(row._mapping) for row in rows]


def sum_of_cells(stored: Iterable[StoredCell]) -> CellCounts:
    """Return the sum of the counts of cells."""
    total = CellCounts()
    for cell in stored:
        total.add_cell(cell.counts)
    return total


def next_roll_up(
    connection: Connection, now_hour: int, retention: Retention
) -> tuple[str, str, int, str] | None:
    """Return (grain, coarser grain, start of the coarser, model) that is due; None: nothing is.

    A day or week is due when all of it is older than its grain is kept.
    """
    for grain, coarser, days in ((HOUR, DAY, retention.hour_days), (DAY, WEEK, retention.day_days)):
        before = start_of(coarser, now_hour - days * DAY_HOURS)
        found = connection.execute(
            select(cells.c.start_hour, cells.c.model)
            .where(cells.c.grain == grain, cells.c.start_hour < before)
            .order_by(cells.c.start_hour)
            .limit(1)
        ).first()
        if found is not None:
            return grain, coarser, start_of(coarser, found.start_hour), found.model
    return None


def roll_up(connection: Connection, grain: str, coarser: str, start_hour: int, model: str) -> int:
    """Add one model's cells of a day or week up to cells of the coarser grain; return how many.

    The cells that were added are deleted in the same transaction, so a kill changes nothing. Cells
    that come later are added the same way.
    """
    due = and_(
        cells.c.grain == grain,
        cells.c.model == model,
        cells.c.start_hour >= start_hour,
        cells.c.start_hour < start_hour + GRAIN_HOURS[coarser],
    )
    sums: dict[CellKey, CellCounts] = {}
    number = 0
    for row in connection.execute(select(cells).where(due)):
        cell = _stored_cell(row._mapping)
        key = cell.key._replace(hour=start_hour)
        sums.setdefault(key, CellCounts()).add_cell(cell.counts)
        number += 1
    add_to_cells(connection, coarser, sums.items())
    connection.execute(delete(cells).where(due))
    return number


def delete_expired(connection: Connection, now_hour: int, retention: Retention) -> None:
    """Delete weeks, outcomes and windows that are older than they are kept."""
    weeks_before = now_hour - retention.week_days * DAY_HOURS
    connection.execute(
        delete(cells).where(cells.c.grain == WEEK, cells.c.start_hour < weeks_before - WEEK_HOURS)
    )
    outcomes_before_ms = (now_hour - retention.outcome_days * DAY_HOURS) * 3_600_000
    connection.execute(delete(outcomes).where(outcomes.c.predicted_unix_ms < outcomes_before_ms))
    windows_before = now_hour - retention.day_days * DAY_HOURS
    connection.execute(delete(window_rows).where(window_rows.c.hour < windows_before))


def _key_values(grain: str, key: CellKey) -> dict[str, Any]:
    return {
        "grain": grain,
        "start_hour": key.hour,
        "model": key.model,
        "version": key.version,
        "digest8": digest_text(key.digest8),
        "role": key.role,
        "holdout": key.holdout,
        "segment": key.segment,
    }


def _stored_key(row: Any) -> CellKey:  # noqa: ANN401  a row's mapping, which is untyped
    return CellKey(
        row["model"],
        row["version"],
        int(row["digest8"], 16),
        row["role"],
        row["holdout"],
        row["segment"],
        row["start_hour"],
    )


def _stored_cell(row: Any) -> StoredCell:  # noqa: ANN401  a row's mapping, which is untyped
    return StoredCell(row["grain"], _stored_key(row), CellCounts.from_bytes(row["columns"]))
