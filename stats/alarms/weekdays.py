"""The reference of a version in production: its first days, by weekday where weekdays differ.

A reference is counted in the same unit as the looks that are compared with it. A day counts each
customer once, a week counts each customer once a week, and customers who call daily weigh more in
seven days than in one week.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.drift.bins import check_bins
from stats.drift.figures import DriftFigures, compare_counts

Counts = NDArray[np.int64]

WEEKDAYS = 7
SETTLING_DAYS = 14
"""Days of production that make a reference: two of each weekday."""
DIFFERENT_PSI = 0.005
"""A weekday differs from the other days above this PSI, which is a shift of .07 standard
deviations, a third of the daily tolerance; two standard errors more, so that chance is not it."""


class UnsettledError(ValueError):
    """Production has not yet had the days that make a reference: not enough data."""


@dataclass(frozen=True, eq=False, slots=True)
class SettledReference:
    """The counts of the days that a person accepted."""

    counts: Counts
    """(7, J) by weekday, Monday first, or (1, J) where weekdays do not differ."""

    @property
    def by_weekday(self) -> bool:
        """True if each weekday has a reference of its own."""
        return len(self.counts) == WEEKDAYS

    def of(self, weekday: int) -> Counts:
        """Return the (J,) reference of a *weekday*, 0 is Monday."""
        return np.asarray(self.counts[weekday if self.by_weekday else 0])


def settle_reference(daily: Counts, weekdays: Sequence[int]) -> SettledReference:
    """Return the reference that (D, J) *daily* person-looks make.

    weekdays  the D weekdays, 0 is Monday.

    Raises UnsettledError unless SETTLING_DAYS or more have rows, and each weekday is among them.
    Raises ValueError for bad counts.
    """
    check_bins(*daily)
    present = [day for day, rows in enumerate(daily.sum(axis=1).tolist()) if rows]
    missing = set(range(WEEKDAYS)) - {weekdays[day] for day in present}
    if len(present) < SETTLING_DAYS or missing:
        raise UnsettledError(
            f"not enough data: {len(present)} of {SETTLING_DAYS} days with rows, and "
            f"{len(missing)} weekdays without; wait until each weekday was seen"
        )
    by_weekday = np.zeros((WEEKDAYS, daily.shape[1]), dtype=np.int64)
    for day in present:
        by_weekday[weekdays[day]] += daily[day]
    total = by_weekday.sum(axis=0)
    if any(_differs(counts, total - counts) for counts in by_weekday):
        return SettledReference(by_weekday)
    return SettledReference(total[None])


def _differs(weekday: Counts, others: Counts) -> bool:
    """Tell whether a weekday differs from the others by more than chance and by what matters."""
    figures = compare_counts(others, weekday)
    if not isinstance(figures, DriftFigures):
        return False
    return figures.psi.value - 2 * figures.psi.standard_error > DIFFERENT_PSI
