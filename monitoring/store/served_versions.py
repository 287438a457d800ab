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
    shadow: bool
    """Whether all of its rows were copies, so that no caller got a score of it."""


def served_versions(connection: Connection, day: int) -> list[ServedVersion]:
    """Return the versions with rows on a Unix day, by model and version."""
    answered = func.sum(cells.c.rows).filter(cells.c.role != UNSEEN_SHADOW)
    found = connection.execute(
        select(
            cells.c.model,
            cells.c.version,
            cells.c.digest8,
            func.sum(cells.c.rows).label("rows"),
            answered.label("answered"),
        )
        .where(cells.c.start_hour >= day * DAY_HOURS)
        .where(cells.c.start_hour < (day + 1) * DAY_HOURS)
        .where(cells.c.version != "", cells.c.segment == "", cells.c.rows > 0)
        .group_by(cells.c.model, cells.c.version, cells.c.digest8)
        .order_by(cells.c.model, cells.c.version)
    )
    return [
        ServedVersion(row.model, row.version, int(row.digest8, 16), int(row.rows), not row.answered)
        for row in found
    ]


def first_day(connection: Connection) -> int | None:
    """Return the Unix day of the oldest count; None: nothing was counted."""
    hour = connection.execute(
        select(func.min(cells.c.start_hour)).where(cells.c.version != "")
    ).scalar_one()
    return None if hour is None else int(hour) // DAY_HOURS
