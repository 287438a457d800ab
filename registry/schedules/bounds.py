"""Whether a schedule may have a run that is due: cool-down, budget, freeze windows. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass

from host.clock import DAY_MS
from host.freeze_windows import active_freeze
from registry.schedules.schedule import Schedule


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run of the schedule's model and setting that was neither skipped nor cancelled.

    at_unix_ms  when it was due; without a schedule, when it was begun or queued.
    seconds     how long it trained so far.
    """

    run_id: str
    at_unix_ms: int
    seconds: float
    queued: bool
    """It waits for a trainer."""
    own: bool
    """It was asked for by the schedule that asks now."""


def skip_reason(
    schedule: Schedule, due_unix_ms: int, now_unix_ms: int, runs: Iterable[PastRun]
) -> str:
    """Return why the schedule may have no run now; empty: it may.

    runs  in any order. Those of the last 30 days and those that wait are enough.
    """
    known = list(runs)
    # One run is enough, however many were due while no trainer worked.
    waiting = [run for run in known if run.queued]
    if waiting:
        return f"run {waiting[0].run_id[:8]} of the same recipe waits for a trainer already"
    if window := active_freeze(schedule.freeze, now_unix_ms / 1_000):
        return f"the freeze window {window!r} is open"
    # Instants at which runs were due are compared, so that a late start changes nothing.
    newest_ms = max((run.at_unix_ms for run in known), default=None)
    if newest_ms is not None and due_unix_ms - newest_ms < schedule.cool_down_s * 1_000:
        minutes = max(due_unix_ms - newest_ms, 0) // 60_000
        return f"the cool-down is {schedule.cool_down}, and the last run was {minutes} min before"
    # The budget is of the schedule's own runs.
    days = schedule.budget_days
    counted = [run for run in known if run.own and due_unix_ms - run.at_unix_ms < days * DAY_MS]
    if 0 < schedule.budget_runs <= len(counted):
        return f"the budget is {schedule.budget_runs} runs in {days} days, and they are used"
    seconds = sum(run.seconds for run in counted)
    if 0 < schedule.budget_seconds <= seconds:
        return (
            f"the budget is {schedule.budget_seconds} s of training in {days} days, and "
            f"{seconds:.0f} s are used"
        )
    return ""
