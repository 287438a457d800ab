"""Counts by segment of a day of predictions that is final now, and of its week on a Sunday."""

from collections.abc import Mapping
from typing import NamedTuple

from monitoring.cohorts.labelled_rows import DayRowSource, read_labelled
from monitoring.cohorts.outcome_cells import DAYS_A_WEEK, maturity_of
from monitoring.cohorts.row_figures import segment_cohorts
from monitoring.cohorts.segment_weeks import SUNDAY, SavedWeek, add_to_week, week_cohorts
from monitoring.jobs.quality import OutcomeCohort
from monitoring.looks.day_looks import DayOfVersion
from monitoring.store.cohort_store import CohortStore


class SegmentCounts(NamedTuple):
    """What the rows of decisions say about the segments of the policy."""

    of_day: Mapping[str, OutcomeCohort] | None
    """Segment -> its counts; None: no rows of the day are kept."""
    of_week: Mapping[str, OutcomeCohort]
    """Segment -> its counts of the week that ends on the day; empty on other days than Sundays."""
    week_days: int
    """From the first day of the week with rows to the last one."""
    saved: SavedWeek
    """For the next day."""


def count_segments(
    store: CohortStore,
    decisions: DayRowSource | None,
    day: DayOfVersion,
    name: str,
    saved: SavedWeek,
) -> SegmentCounts:
    """Count the predictions of the day of which the outcome *name* is final on *day*.

    saved  of the day before; empty at first.
    """
    facts, outcome = day.facts, day.policy.outcomes[name]
    age = maturity_of(outcome).days
    final = day.day - age
    # The rows of the day.
    cohorts = None
    rows = read_labelled(decisions, store, facts.model, facts.version, (final, final), name)
    if rows is not None:
        cohorts = segment_cohorts(
            rows, outcome, facts.bins, facts.dictionaries, day.policy.segments, age
        )
    # All days of the week so far.
    saved = add_to_week(saved, final, cohorts or {})
    week_days = final - saved["first"] + 1 if saved else 0
    if final % DAYS_A_WEEK != SUNDAY or week_days == 1:
        return SegmentCounts(cohorts, {}, 0, saved)
    return SegmentCounts(cohorts, week_cohorts(saved, age), week_days, saved)
