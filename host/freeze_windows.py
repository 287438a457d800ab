"""Freeze windows: times in which no rollout starts or grows, and no schedule trains.

Rollbacks never wait for their end.

A window is weekly, or a span of dates that includes both days. Times are in UTC:

    fri 16:00 - mon 07:00
    2026-12-18 - 2027-01-07
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTE_S, DAY_S, WEEK_S = 60, 86_400, 7 * 86_400
FIRST_MONDAY_S = 4 * DAY_S
"""Unix second of the first Monday."""

_WEEKLY = re.compile(r"(\w{3}) (\d\d):(\d\d) - (\w{3}) (\d\d):(\d\d)", re.IGNORECASE)
_DATES = re.compile(r"(\d{4}-\d\d-\d\d) - (\d{4}-\d\d-\d\d)")


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """A window [first_s, last_s) in Unix seconds; if *weekly*, in seconds from Monday 00:00 UTC."""

    text: str
    first_s: int
    last_s: int
    weekly: bool

    def covers(self, unix_s: float) -> bool:
        """Whether *unix_s* is in the window."""
        if not self.weekly:
            return self.first_s <= unix_s < self.last_s
        at = (unix_s - FIRST_MONDAY_S) % WEEK_S
        if self.first_s < self.last_s:
            return self.first_s <= at < self.last_s
        return at >= self.first_s or at < self.last_s


def parse_freeze_window(text: str) -> FreezeWindow:
    """Return the window that *text* describes. Raises ValueError, which says how to write one."""
    weekly, dates = _WEEKLY.fullmatch(text.strip()), _DATES.fullmatch(text.strip())
    try:
        if weekly is not None:
            begin, h1, m1, end, h2, m2 = weekly.groups()
            return FreezeWindow(text, _offset(begin, h1, m1), _offset(end, h2, m2), weekly=True)
        if dates is not None:
            first, last = (date.fromisoformat(day) for day in dates.groups())
            if last >= first:
                return FreezeWindow(
                    text, _unix(first), _unix(last + timedelta(days=1)), weekly=False
                )
    except ValueError:
        pass
    raise ValueError(
        f"freeze window {text!r} is neither like 'fri 16:00 - mon 07:00' nor like "
        "'2026-12-18 - 2027-01-07' (UTC)"
    )


def active_freeze(windows: tuple[str, ...], unix_s: float) -> str:
    """Return the first of *windows* that covers *unix_s*; empty if none does."""
    return next((text for text in windows if parse_freeze_window(text).covers(unix_s)), "")


def _offset(day: str, hour: str, minute: str) -> int:
    seconds = int(hour) * 3_600 + int(minute) * MINUTE_S
    if int(hour) > 23 or int(minute) > 59:
        raise ValueError("no such time of day")
    return WEEKDAYS.index(day.lower()) * DAY_S + seconds


def _unix(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
