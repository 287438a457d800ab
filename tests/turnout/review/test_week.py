"""The days of a review."""

import pytest

from turnout.errors import UsageError
from turnout.review.week import review_period

TODAY = 20_787  # Monday, 2026-11-30


def test_week_begins_on_monday_in_utc() -> None:
    """Also where the ISO year is not that of its Monday."""
    period = review_period("2026-W48", TODAY)
    assert (period.first_day, period.last_day, period.name) == (20_780, 20_786, "2026-W48")
    assert period.has(20_780 * 86_400_000)
    assert not period.has(20_787 * 86_400_000)
    assert review_period("2020-W53", TODAY).first_day == 18_624
    assert review_period("2026-W49", TODAY).first_day == TODAY


def test_without_a_week_it_is_the_last_seven_days() -> None:
    """With today, so that what happened now is on the page."""
    period = review_period("", TODAY)
    assert (period.first_day, period.last_day) == (TODAY - 6, TODAY)
    assert period.name == "7 days to 2026-11-30"


@pytest.mark.parametrize(
    ("week", "message"),
    [
        ("2026-W54", "a year has 52 or 53 weeks"),
        ("2025-W53", "a year has 52 or 53 weeks"),
        ("2026-W00", "a year has 52 or 53 weeks"),
        ("2026-48", "is no week; write it as 2026-W48"),
        ("last", "is no week"),
        ("2026-W50", "today is not that far"),
        ("0000-W01", "a year has"),
    ],
)
def test_other_weeks_are_refused(week: str, message: str) -> None:
    """With the way out."""
    with pytest.raises(UsageError, match=message):
        review_period(week, TODAY)
