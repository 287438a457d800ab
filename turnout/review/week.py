"""The days that a review is about."""

import datetime as dt
import re
from dataclasses import dataclass

from host.clock import DAY_MS
from turnout.errors import UsageError

WEEK_DAYS = 7
EPOCH = dt.date(1970, 1, 1)
WEEK = re.compile(r"(\d{4})-W(\d{2})")


@dataclass(frozen=True, slots=True)
class ReviewPeriod:
    """Seven days in UTC, which may not be over yet."""

    first_day: int
    """The first Unix day."""
    name: str
    """Such as "2026-W48", or "7 days to 2026-11-30"."""

    @property
    def last_day(self) -> int:
        """The last Unix day of the period."""
        return self.first_day + WEEK_DAYS - 1

    @property
    def begin_ms(self) -> int:
        """Its first instant."""
        return self.first_day * DAY_MS

    @property
    def end_ms(self) -> int:
        """The first instant after it."""
        return (self.first_day + WEEK_DAYS) * DAY_MS

    def has(self, unix_ms: int) -> bool:
        """Whether an instant is within the period."""
        return self.begin_ms <= unix_ms < self.end_ms


def review_period(week: str, today: int) -> ReviewPeriod:
    """Return the ISO week *week*, such as 2026-W48; if it is empty, the seven days up to today.

    today  Unix day.

    Raises UsageError for what is no week, and for a week that has not begun.
    """
    if not week:
        return ReviewPeriod(today - WEEK_DAYS + 1, f"7 days to {EPOCH + dt.timedelta(today)}")
    found = WEEK.fullmatch(week)
    if found is None:
        raise UsageError(f"--week {week!r} is no week; write it as 2026-W48")
    year, number = int(found[1]), int(found[2])
    try:
        monday = dt.date.fromisocalendar(year, number, 1)
    except ValueError as error:
        raise UsageError(f"--week {week}: {error}; a year has 52 or 53 weeks") from error
    first_day = (monday - EPOCH).days
    if first_day > today:
        raise UsageError(f"--week {week} begins on {monday}, and today is not that far")
    return ReviewPeriod(first_day, week)
