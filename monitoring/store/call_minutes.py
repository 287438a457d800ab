"""In which minutes a model was called, as bits by hour. Setting a bit twice changes nothing."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, and_, delete, insert, select, update

from monitoring.store.tables import call_minutes

HOUR_MINUTES = 60
ANY_MODEL = ""
"""The name under which minutes are noted in which any worker sent a window."""
RETAINED_HOURS = 60 * 24


def minute_bits(minutes: Iterable[int]) -> dict[int, int]:
    """Return Unix hour -> its bits, of Unix *minutes*."""
    bits: dict[int, int] = {}
    for minute in minutes:
        hour, place = divmod(minute, HOUR_MINUTES)
        bits[hour] = bits.get(hour, 0) | 1 << place
    return bits


def add_minutes(connection: Connection, minutes: Mapping[str, Iterable[int]]) -> None:
    """Note Unix minutes with a call by model."""
    for model, called in minutes.items():
        for hour, bits in minute_bits(called).items():
            where = and_(call_minutes.c.model == model, call_minutes.c.hour == hour)
            known = connection.execute(
                select(call_minutes.c.minutes).where(where)
            ).scalar_one_or_none()
            if known is None:
                values = {"model": model, "hour": hour, "minutes": bits}
                connection.execute(insert(call_minutes).values(**values))
            elif known | bits != known:
                connection.execute(update(call_minutes).where(where).values(minutes=known | bits))


def read_minutes(connection: Connection, model: str, hours: Iterable[int]) -> dict[int, int]:
    """Return Unix hour -> bits of the minutes with a call; hours without a call are left out."""
    found = connection.execute(
        select(call_minutes.c.hour, call_minutes.c.minutes).where(
            call_minutes.c.model == model, call_minutes.c.hour.in_(list(hours))
        )
    )
    return {row.hour: row.minutes for row in found}


def delete_old_minutes(connection: Connection, now_hour: int) -> None:
    """Delete what is older than any look compares with."""
    connection.execute(delete(call_minutes).where(call_minutes.c.hour < now_hour - RETAINED_HOURS))
