"""Tests of schedules: what a table may say, and when cron is due across daylight saving."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from registry.schedules.schedule import TRAINING_FAILED, ScheduleError, parse_schedule

COMPLETE: dict[str, Any] = {
    "model": "churn",
    "setting": "candidate",
    "cron": "0 4 * * 1",
    "zone": "Europe/Berlin",
    "after_view": "usage",
    "new_labels": 5_000,
    "on_finding": ["drift"],
    "cool_down": "12h",
    "budget": {"runs": 8, "seconds": 7_200, "per": "month"},
    "freeze": ["2026-12-18 - 2027-01-07"],
}


def test_definition_is_what_was_written() -> None:
    """The registry reads what the project wrote, and what is not said is in no digest."""
    assert parse_schedule("weekly", COMPLETE).definition() == COMPLETE
    small = {"model": "churn", "new_labels": 100}
    assert parse_schedule("often", small).definition() == small
    assert parse_schedule("often", {**small, "on_finding": True}).definition()["on_finding"] is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": ""}, "model = ''; it must name a model"),
        ({"model": "Churn"}, "model = 'Churn'; it must name a model"),
        ({"model": 7}, "model = 7; it must be a text"),
        ({"chron": "0 4 * * 1"}, "'chron' is not known|chron is not known"),
        ({"cron": "0 4 * *"}, "five fields: minute, hour, day, month, weekday"),
        ({"cron": "* 0 4 * * 1"}, "five fields"),
        ({"cron": "61 4 * * 1"}, "cron = '61 4 \\* \\* 1' cannot be read: Bad minute"),
        ({"cron": "0 4 30 2 *"}, "cannot be read: Bad day-of-month|never due"),
        ({"zone": "Europe/Atlantis"}, "zone = 'Europe/Atlantis' is no time zone"),
        ({"zone": "../etc/passwd"}, "is no time zone"),
        ({"cron": "", "zone": "UTC"}, "zone is of cron, and there is no cron"),
        ({"new_labels": -1}, "new_labels = -1; it must be a whole number"),
        ({"new_labels": True}, "new_labels = True"),
        ({"on_finding": ["Drift"]}, r"on_finding = \['Drift'\]; it is true or a list"),
        ({"on_finding": [TRAINING_FAILED]}, "would repeat itself"),
        ({"cool_down": "12 hours"}, "cool_down = '12 hours'; write a time such as '90m'"),
        ({"budget": {"run": 8}}, "budget = {'run': 8}; it is a table of runs, seconds, per"),
        ({"budget": {"runs": -8}}, "budget.runs = -8"),
        ({"budget": {"per": "year"}}, "budget.per = 'year'; it must be one of week, month"),
        ({"freeze": "fri 16:00 - mon 07:00"}, "it is a list of windows"),
        ({"freeze": ["friday"]}, "freeze window 'friday' is neither like"),
    ],
)
def test_bad_value_is_refused_with_its_key(change: dict[str, Any], words: str) -> None:
    """The sentence names schedule and key, and says what may stand there."""
    with pytest.raises(ScheduleError, match=words) as caught:
        parse_schedule("weekly", {**COMPLETE, **change})
    assert str(caught.value).startswith("schedule 'weekly': ")


def test_schedule_without_a_trigger_or_a_table_is_refused() -> None:
    """Nothing would ever make it due."""
    with pytest.raises(ScheduleError, match="nothing makes it due; give it one of cron, after_vi"):
        parse_schedule("never", {"model": "churn", "cool_down": "1d"})
    with pytest.raises(ScheduleError, match="must be a table"):
        parse_schedule("never", "0 4 * * 1")
    with pytest.raises(ScheduleError, match="its name must match"):
        parse_schedule("a/b", COMPLETE)


def due_times(cron: str, first: datetime, last: datetime) -> list[datetime]:
    """Return the due times in Berlin after *first* up to *last*, in UTC."""
    schedule = parse_schedule("daily", {"model": "m", "cron": cron, "zone": "Europe/Berlin"})
    found: list[datetime] = []
    due = schedule.due_after(first)
    while due is not None and due <= last:
        found.append(due)
        due = schedule.due_after(due)
    return found


def test_daylight_saving_neither_loses_nor_repeats_a_daily_run() -> None:
    """02:30 does not exist on 2026-03-29 and happens twice on 2026-10-25; each day has one run."""
    spring = due_times(
        "30 2 * * *", datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)
    )
    assert [f"{due:%d %H:%M}" for due in spring] == ["27 01:30", "28 01:30", "29 01:00", "30 00:30"]
    autumn = due_times(
        "30 2 * * *", datetime(2026, 10, 23, 12, tzinfo=UTC), datetime(2026, 10, 27, tzinfo=UTC)
    )
    assert [f"{due:%d %H:%M}" for due in autumn] == ["24 00:30", "25 00:30", "26 01:30"]


def test_newest_due_time_is_the_last_of_those_before() -> None:
    """The search backwards finds what the search forwards found, through a whole year."""
    for cron in ("30 2 * * *", "0 4 * * 1", "*/20 1-3 * * 0"):
        schedule = parse_schedule("daily", {"model": "m", "cron": cron, "zone": "Europe/Berlin"})
        times = due_times(cron, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
        for earlier, later in pairwise(times):
            assert schedule.due_before(earlier) == earlier
            assert schedule.due_before(later - timedelta(seconds=1)) == earlier


def test_finding_that_tells_of_no_decay_is_not_wanted() -> None:
    """A failed training must not ask for the next one."""
    every = parse_schedule("any", {"model": "m", "on_finding": True})
    assert every.wants("drift")
    assert not every.wants(TRAINING_FAILED)
    assert not every.wants("replay")
    assert not every.wants("forgotten")  # a person's rows were removed
    some = parse_schedule("some", {"model": "m", "on_finding": ["drift", "hold"]})
    assert (some.wants("hold"), some.wants("outage")) == (True, False)
    assert not parse_schedule("cron", {"model": "m", "cron": "0 4 * * *"}).wants("drift")
