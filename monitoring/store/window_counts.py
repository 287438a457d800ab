"""What gateways say they scored, by their windows, and which share of it was counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Select, and_, delete, func, insert, select, update

from host.clock import DAY_MS, HOUR_MS
from monitoring.store.tables import cells, outcomes, window_rows, window_sources

WINDOW_SOURCE_DAYS = 30
"""How long a worker's sequence number is kept after its last batch."""


class WindowBatchRows(NamedTuple):
    """What one batch of a gateway worker's windows says."""

    source: str
    sequence: int
    rows: Counter[tuple[str, str, int]]
    """(model, version, Unix hour) -> rows that the version scored."""
    calls: Counter[tuple[str, str, int]]
    hour: int
    """Unix hour in which the batch was sent."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a version's traffic was counted, in some hours."""

    model: str
    version: str
    rows: int
    window_rows: int
    outcomes: int
    newest_hour: int

    @property
    def share(self) -> float | None:
        """Return counted rows / rows in windows; None: gateways have said nothing."""
        return self.rows / self.window_rows if self.window_rows else None


def add_windows(connection: Connection, batches: Sequence[WindowBatchRows], now_ms: int) -> None:
    """Add the rows of batches of windows. A batch that was added before changes nothing."""
    rows: Counter[tuple[str, str, int]] = Counter()
    calls: Counter[tuple[str, str, int]] = Counter()
    lost: Counter[tuple[str, str, int]] = Counter()
    for source in {batch.source for batch in batches}:
        # Batches of a worker have the numbers 1, 2, 3; what is missing was lost.
        where = window_sources.c.source == source
        known = connection.execute(
            select(window_sources.c.sequence).where(where)
        ).scalar_one_or_none()
        sequence = known or 0
        of_source = [batch for batch in batches if batch.source == source]
        for batch in sorted(of_source, key=lambda item: item.sequence):
            if batch.sequence <= sequence:
                continue
            if sequence:
                lost["", "", batch.hour] += batch.sequence - sequence - 1
            sequence = batch.sequence
            rows += batch.rows
            calls += batch.calls
        values = {"sequence": sequence, "seen_unix_ms": now_ms}
        if known is None:
            connection.execute(insert(window_sources).values(source=source, **values))
        else:
            connection.execute(update(window_sources).where(where).values(**values))
    for key in {*rows, *calls, *(+lost)}:
        _add_window_rows(connection, key, rows[key], calls[key], lost[key])


def read_coverage(connection: Connection, since_hour: int, until_hour: int) -> list[Coverage]:
    """Return the coverage of every version that was scored in [since_hour, until_hour)."""
    # Rows that were counted from journals.
    by_version = cells.c.model, cells.c.version
    counted = {
        (row.model, row.version): row
        for row in connection.execute(
            select(
                *by_version,
                func.sum(cells.c.rows).label("rows"),
                func.max(cells.c.start_hour).label("newest_hour"),
            )
            .where(cells.c.start_hour >= since_hour, cells.c.start_hour < until_hour)
            .where(cells.c.version != "", cells.c.segment == "", cells.c.rows > 0)
            .group_by(*by_version)
        )
    }
    # Rows that gateways say they scored.
    of_windows = select(
        window_rows.c.model, window_rows.c.version, func.sum(window_rows.c.rows).label("number")
    ).where(
        window_rows.c.hour >= since_hour,
        window_rows.c.hour < until_hour,
        window_rows.c.model != "",
    )
    seen = _numbers(connection, of_windows.group_by(window_rows.c.model, window_rows.c.version))
    # Outcomes of predictions of these hours.
    of_outcomes = select(outcomes.c.model, outcomes.c.version, func.count().label("number")).where(
        outcomes.c.predicted_unix_ms >= since_hour * HOUR_MS,
        outcomes.c.predicted_unix_ms < until_hour * HOUR_MS,
    )
    reported = _numbers(connection, of_outcomes.group_by(outcomes.c.model, outcomes.c.version))
    return [
        Coverage(
            *version,
            int(counted[version].rows) if version in counted else 0,
            seen[version],
            reported[version],
            counted[version].newest_hour if version in counted else 0,
        )
        for version in sorted({*counted, *seen, *reported})
    ]


def lost_batches(connection: Connection, since_hour: int, until_hour: int) -> int:
    """Return how many batches of windows were lost in [since_hour, until_hour)."""
    lost = connection.execute(
        select(func.sum(window_rows.c.lost_batches)).where(
            window_rows.c.hour >= since_hour, window_rows.c.hour < until_hour
        )
    ).scalar_one()
    return int(lost or 0)


def delete_old_sources(connection: Connection, now_ms: int) -> None:
    """Delete the sequence numbers of workers that ended long ago."""
    before_ms = now_ms - WINDOW_SOURCE_DAYS * DAY_MS
    connection.execute(delete(window_sources).where(window_sources.c.seen_unix_ms < before_ms))


def _numbers(
    connection: Connection, query: Select[tuple[str, str, int]]
) -> Counter[tuple[str, str]]:
    return Counter({(row.model, row.version): int(row.number) for row in connection.execute(query)})


def _add_window_rows(
    connection: Connection, key: tuple[str, str, int], rows: int, calls: int, lost: int
) -> None:
    model, version, hour = key
    values = {"model": model, "version": version, "hour": hour}
    where = and_(*(window_rows.c[name] == value for name, value in values.items()))
    counts = {"rows": rows, "calls": calls, "lost_batches": lost}
    changed = connection.execute(
        update(window_rows)
        .where(where)
        .values(
            {window_rows.c[name]: window_rows.c[name] + count for name, count in counts.items()}
        )
    )
    if not changed.rowcount:
        connection.execute(insert(window_rows).values(**values, **counts))
