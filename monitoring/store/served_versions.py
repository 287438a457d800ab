"""Which versions were in service in a period, by what was counted of them."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from monitoring.store.tables import cells
from protos.journal_pb2 import UNSEEN_SHADOW

DAY_HOURS = 24


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A version that scored rows in a period."""

    model: str
    version: str
    digest8: int
    rows: int
    last_day: int
    """Unix day of its newest rows in the period."""
    shadow: bool
    """Whether all of its rows were copies, so that no caller got a score of it."""


def served_versions(connection: Connection, first_day: int, last_day: int) -> list[ServedVersion]:
    """Return the versions with rows in [first_day, last_day], Unix days, by model and version."""
    answered = func.sum(cells.c.rows).filter(cells.c.role != UNSEEN_SHADOW)
    found = connection.execute(
        select(
            cells.c.model,
            cells.c.version,
            cells.c.digest8,
            func.sum(cells.c.rows).label("rows"),
            func.max(cells.c.start_hour).label("hour"),
            answered.label("answered"),
        )
        .where(cells.c.start_hour >= first_day * DAY_HOURS)
        .where(cells.c.start_hour < (last_day + 1) * DAY_HOURS)
        .where(cells.c.version != "", cells.c.segment == "", cells.c.rows > 0)
        .group_by(cells.c.model, cells.c.version, cells.c.digest8)
        .order_by(cells.c.model, cells.c.version)
    )
    return [
        ServedVersion(
            row.model,
            row.version,
            int(row.digest8, 16),
            int(row.rows),
            int(row.hour) // DAY_HOURS,
            not row.answered,
        )
        for row in found
    ]


def first_day(connection: Connection) -> int | None:
    """Return the Unix day of the oldest count; None: nothing was counted."""
    hour = connection.execute(
        select(func.min(cells.c.start_hour)).where(cells.c.version != "")
    ).scalar_one()
    return None if hour is None else int(hour) // DAY_HOURS
