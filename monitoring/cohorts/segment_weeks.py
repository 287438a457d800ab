"""Counts by segment of a week whose days become final one after another.

Rows of decisions are read once, on the day on which they are final. Counts add, so the week needs
no rows again: they are in the state of the look.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from monitoring.cohorts.outcome_cells import DAYS_A_WEEK
from monitoring.jobs.quality import OutcomeCohort
from stats.score_grid import score_grid_values

SUNDAY = 3
"""Unix day modulo 7 of each Sunday: day 0 was a Thursday."""

SavedWeek = Mapping[str, Any]
"""first: the first Unix day with rows. segments: name -> bins that have rows, and for each of them
the number of rows, of positive and of negative reports. Empty: nothing is counted yet."""


def add_to_week(saved: SavedWeek, day: int, cohorts: Mapping[str, OutcomeCohort]) -> SavedWeek:
    """Return the counts of the week of *day* up to it.

    saved    as this function returned it for a day before.
    cohorts  segment -> counts of the day; none, if it has no rows.
    """
    monday = day - (day - SUNDAY - 1) % DAYS_A_WEEK
    if saved and saved["first"] < monday:
        saved = {}
    if not cohorts:
        return saved
    # Add the day to what was there.
    total = {name: np.array(_columns(cohort)) for name, cohort in cohorts.items()}
    for name, (bins, *columns) in saved.get("segments", {}).items():
        counts = total.setdefault(name, np.zeros((3, len(score_grid_values())), np.int64))
        counts[:, bins] += np.array(columns, dtype=np.int64).reshape(3, len(bins))
    # Most bins are empty.
    segments = {}
    for name, counts in total.items():
        filled = np.flatnonzero(counts.any(axis=0))
        segments[name] = [filled.tolist(), *counts[:, filled].tolist()]
    return {"first": saved.get("first", day), "segments": segments}


def week_cohorts(saved: SavedWeek, age_days: int) -> dict[str, OutcomeCohort]:
    """Return segment -> the counts of the week."""
    values = score_grid_values()
    found = {}
    for name, (bins, *columns) in saved.get("segments", {}).items():
        counts = np.zeros((3, len(values)), np.int64)
        counts[:, bins] = np.array(columns, dtype=np.int64).reshape(3, len(bins))
        found[name] = OutcomeCohort(values, counts[0], counts[1], counts[2], age_days)
    return found


def _columns(cohort: OutcomeCohort) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return cohort.scored, cohort.positives, cohort.negatives
