"""Days that may be a reference, and those that may not."""

import pytest

from turnout.errors import OperatorError, UsageError
from turnout.monitoring.accept import accepted_days, check_enough

TODAY = 20_787  # 2026-11-30


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("2026-11-01..2026-11-14", (20_758, 20_771)),
        ("2026-11-16..2026-11-29", (20_773, 20_786)),
        ("2026-09-01..2026-11-29", (20_697, 20_786)),
    ],
)
def test_two_weeks_to_ninety_days_are_accepted(text: str, days: tuple[int, int]) -> None:
    """Up to yesterday."""
    assert accepted_days(text, TODAY) == days


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-11-17..2026-11-30", "2026-11-30 is not over; the last day may be 2026-11-29"),
        ("2026-12-01..2026-12-20", "is not over"),
        ("2026-11-01..2026-11-13", "these are 13 days"),
        ("2026-08-31..2026-11-29", "these are 91 days"),
        ("2026-11-29..2026-11-01", "these are -27 days"),
        ("2026-11-01", "is no range of days"),
        ("2026-11-31..2026-12-20", "is no range of days"),
        ("", "is no range of days"),
    ],
)
def test_other_ranges_are_refused_with_the_way_out(text: str, message: str) -> None:
    """The future, too few days, too many, and what is no range."""
    with pytest.raises(UsageError, match=message):
        accepted_days(text, TODAY)


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (range(0), "on 0 of the 14 days that a reference needs, on 0 of 7 weekdays"),
        (range(TODAY - 13, TODAY), "on 13 of the 14 days that a reference needs. Name days"),
        ([TODAY - 7 * n for n in range(14)], "on 14 of the 14 days .*, on 1 of 7 weekdays"),
    ],
)
def test_days_without_rows_are_no_reference(days: list[int], message: str) -> None:
    """None, too few, and one weekday only: the look could not settle them."""
    with pytest.raises(OperatorError, match=message):
        check_enough("churn 1", days)


def test_two_weeks_with_rows_are_enough() -> None:
    """The fewest days that a reference can have."""
    check_enough("churn 1", range(TODAY - 14, TODAY))
