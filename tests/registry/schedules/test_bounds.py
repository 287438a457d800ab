"""Tests of the bounds of a schedule: cool-down, budget, freeze windows, and one run at a time."""

from datetime import UTC, datetime
from typing import Any

import pytest

from host.clock import DAY_MS
from registry.schedules.bounds import PastRun, skip_reason
from registry.schedules.schedule import parse_schedule

NOW_MS = int(datetime(2026, 6, 10, 4, tzinfo=UTC).timestamp() * 1_000)
HOUR_MS = 3_600_000


def past(hours: float, *, seconds: float = 60.0, queued: bool = False, own: bool = True) -> PastRun:
    """Return a run that was due so many hours before now."""
    return PastRun("4f2a91c0" * 4, NOW_MS - int(hours * HOUR_MS), seconds, queued=queued, own=own)


def reason(runs: list[PastRun], **bounds: Any) -> str:  # noqa: ANN401  values of a table
    """Return why a schedule with these bounds may have no run now."""
    schedule = parse_schedule("daily", {"model": "churn", "cron": "0 4 * * *", **bounds})
    return skip_reason(schedule, NOW_MS, NOW_MS, runs)


def test_schedule_without_bounds_runs() -> None:
    """Also minutes after another run."""
    assert reason([past(0.1)]) == ""


def test_run_that_waits_makes_another_one_needless() -> None:
    """So a queue without a runner holds one run of a recipe, however many were due."""
    assert reason([past(24, queued=True)]) == (
        "run 4f2a91c0 of the same recipe waits for a trainer already"
    )


def test_cool_down_counts_from_any_run_of_the_recipe() -> None:
    """By hand and by other schedules too. At its end a run is due again."""
    words = "the cool-down is 12h, and the last run was 660 min before"
    assert reason([past(11, own=False), past(30)], cool_down="12h") == words
    assert reason([past(12)], cool_down="12h") == ""


@pytest.mark.parametrize(
    ("budget", "runs", "words"),
    [
        ({"runs": 2}, [past(24), past(48)], "the budget is 2 runs in 30 days, and they are used"),
        ({"runs": 2}, [past(24), past(48, own=False)], ""),
        ({"runs": 2, "per": "week"}, [past(24), past(7 * 24)], ""),
        (
            {"seconds": 100},
            [past(24), past(48)],
            "the budget is 100 s of training in 30 days, and 120",
        ),
        ({"seconds": 121}, [past(24), past(48)], ""),
    ],
)
def test_budget_counts_the_runs_of_the_schedule(
    budget: dict[str, Any], runs: list[PastRun], words: str
) -> None:
    """Within the days before, and no run of anybody else."""
    found = reason(runs, budget=budget)
    assert found.startswith(words) if words else found == ""


def test_no_run_in_a_freeze_window() -> None:
    """The windows are those of rollout policies."""
    assert reason([], freeze=["2026-06-01 - 2026-06-30"]) == (
        "the freeze window '2026-06-01 - 2026-06-30' is open"
    )
    assert reason([], freeze=["fri 16:00 - mon 07:00"]) == ""
    assert DAY_MS == 24 * HOUR_MS
