"""When the outcomes of a day's predictions are complete, and what is known before.

A cohort is the predictions of one day (UTC). Its outcomes come during a horizon, and their reports
may be late by a grace. Then the cohort is final. Before, the delays of final cohorts say which part
of the outcomes has been seen: rate = seen / G(age), where G is the share of outcomes reported by an
age. The age of a cohort is counted in days from the end of its day.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from host.clock import DAY_MS
from stats.accuracy.labelled_bins import LabelledBins
from stats.figure import Figure, no_figure, not_enough, wilson_figure

Floats = NDArray[np.float64]

OUTCOMES_NEEDED = 100
"""Outcomes of final cohorts from which on their delays say what is still missing."""
PART_MIN = 0.1
"""Below this part of the outcomes, what was seen says little about what is to come."""


class Maturity(StrEnum):
    """How complete the outcomes of a cohort are."""

    PROVISIONAL = "provisional"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class MaturityPolicy:
    """How an outcome of predictions becomes known.

    horizon_days  days after a prediction in which its outcome may happen.
    grace_days    further days in which it may still be reported.
    absent_is_negative  a prediction without a report has not had the outcome, once it is final.

    Raises ValueError for a horizon below 1 or a negative grace.
    """

    horizon_days: int
    grace_days: int = 0
    absent_is_negative: bool = True

    def __post_init__(self) -> None:
        if self.horizon_days < 1 or self.grace_days < 0:
            raise ValueError(
                f"horizon {self.horizon_days} and grace {self.grace_days} days: a horizon is at "
                "least one day, and a grace is not negative"
            )

    @property
    def days(self) -> int:
        """Days after which a cohort is final."""
        return self.horizon_days + self.grace_days

    def maturity(self, age_days: int) -> Maturity:
        """Return how complete a cohort is, *age_days* after the end of its day."""
        return Maturity.FINAL if age_days >= self.days else Maturity.PROVISIONAL


@dataclass(frozen=True, eq=False, slots=True)
class Delays:
    """How late outcomes of final cohorts were reported.

    counts  (D,) float64 outcomes by `delay_days`.

    Raises ValueError for negative counts.
    """

    counts: Floats

    def __post_init__(self) -> None:
        if self.counts.ndim != 1 or not (self.counts >= 0).all():
            raise ValueError("delays are counts by whole days, and none is negative")

    @property
    def n(self) -> int:
        """All outcomes whose delay is known."""
        return int(self.counts.sum())

    def part_seen(self, age_days: int) -> Figure:
        """Return the share of outcomes that is reported when a cohort has this age."""
        if lacking := not_enough(self.n, OUTCOMES_NEEDED, "outcomes of final cohorts"):
            return no_figure(self.n, lacking)
        return wilson_figure(float(self.counts[: max(age_days + 1, 0)].sum()), self.counts.sum())


def delays_of_elapsed(counts: NDArray[np.int64]) -> Delays:
    """Return the delays of outcomes that are counted by whole days after their own prediction.

    counts  (D,) int64 outcomes that came d to d + 1 days after their prediction.

    Predictions and delays are spread over the day, so half of such outcomes are in their cohort at
    an age of d days, and half at d + 1.
    """
    half = counts / 2.0
    return Delays(np.concatenate([half, [0.0]]) + np.concatenate([[0.0], half]))


def delay_days(predicted_ms: NDArray[np.int64], arrived_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the age, in days, at which a cohort first has each outcome, (N,) from 0 on.

    Both are in milliseconds since 1970. 0: the report came on the day of the prediction.
    """
    return np.asarray(np.maximum(arrived_ms // DAY_MS - predicted_ms // DAY_MS, 0))


def provisional_rate(seen: int, rows: int, delays: Delays, age_days: int) -> Figure:
    """Return the rate of outcomes that a cohort will have when it is final.

    seen  outcomes that are reported so far, of *rows* predictions.

    The interval holds for a delay that is as it was: a longer delay looks like a lower rate. Its
    ends combine those of the share seen and of the part of outcomes that is reported by then.
    """
    part = delays.part_seen(age_days)
    if not part.known:
        return no_figure(rows, part.lacking)
    reported, low, high = part.bounds()
    if reported < PART_MIN:
        return no_figure(
            rows, f"not enough data: {reported:.0%} of the outcomes are due, {PART_MIN:.0%} needed"
        )
    share, share_low, share_high = wilson_figure(seen, rows).bounds() if rows else (0.0, 0.0, 0.0)
    if not rows:
        return no_figure(0, not_enough(0, 1))
    return Figure(
        min(share / reported, 1.0), share_low / high, min(share_high / max(low, 1e-9), 1.0), rows
    )


def provisional_bins(bins: LabelledBins, part_seen: float) -> LabelledBins:
    """Return expected labels of a cohort of which a part of the positive outcomes is reported.

    bins       rows that have and that have not been reported positive so far.
    part_seen  the share of outcomes that is reported by then, above 0.

    Positives are scaled up by 1 / *part_seen* and taken from the negatives. A bin that would have
    more of them than rows by chance hands the rest to the next bin with room. It assumes that
    outcomes are equally late at every score. Raises ValueError for another share.
    """
    if not 0.0 < part_seen <= 1.0:
        raise ValueError(f"a part of {part_seen}: above 0, and at most 1, of the outcomes is seen")
    rows = bins.rows
    positives = bins.positives / part_seen
    # From the highest scores down, and what is left at the lowest ones up again.
    for order in (range(len(rows) - 1, -1, -1), range(len(rows))):
        handed = 0.0
        for position in order:
            wanted = float(positives[position]) + handed
            positives[position] = min(wanted, float(rows[position]))
            handed = wanted - positives[position]
    return LabelledBins(bins.scores, positives, np.maximum(rows - positives, 0.0))


OUTCOME_KINDS = (
    "counted",
    "corrected",
    "duplicate",
    "late",
    "beyond the horizon",
    "orphan",
    "before prediction",
    "in the future",
    "not a number",
)
"""What a reported outcome can be. The first two change a figure."""


@dataclass(frozen=True, eq=False, slots=True)
class OutcomeReports:
    """Reported outcomes of one name in the order of their arrival, N of them.

    predictions  (N,) int64, the number of the prediction; -1 if no prediction is known.
    keys         (N,) int64, the number of the idempotency key; -1 if the report has none.
    values       (N,) float64.
    predicted_ms, happened_ms, arrived_ms  (N,) int64, milliseconds since 1970.
    """

    predictions: NDArray[np.int64]
    keys: NDArray[np.int64]
    values: Floats
    predicted_ms: NDArray[np.int64]
    happened_ms: NDArray[np.int64]
    arrived_ms: NDArray[np.int64]


def outcome_kinds(
    reports: OutcomeReports, policy: MaturityPolicy, *, clock_error_ms: int = 60_000
) -> NDArray[np.int64]:
    """Return what each report is, (N,) positions in OUTCOME_KINDS.

    clock_error_ms  how far the clocks of reporters and gateways may differ.

    A report whose idempotency key came before, or which repeats the value that stands, is a
    duplicate. Another value for the same prediction corrects it. A report that arrives when its
    cohort is final is late: it is kept, and changes no figure. Each report has the first kind of
    these that fits: not a number, orphan, before prediction, in the future, beyond the horizon,
    duplicate, late, corrected, counted.
    """
    kinds = np.full(len(reports.values), OUTCOME_KINDS.index("counted"), dtype=np.int64)
    age = reports.happened_ms - reports.predicted_ms
    # Later lines win over earlier ones, so the order is that of the docstring from its end.
    late = delay_days(reports.predicted_ms, reports.arrived_ms) > policy.days
    kinds[late] = OUTCOME_KINDS.index("late")
    kinds[age > policy.horizon_days * DAY_MS] = OUTCOME_KINDS.index("beyond the horizon")
    ahead = reports.happened_ms > reports.arrived_ms + clock_error_ms
    kinds[ahead] = OUTCOME_KINDS.index("in the future")
    kinds[age < -clock_error_ms] = OUTCOME_KINDS.index("before prediction")
    kinds[reports.predictions < 0] = OUTCOME_KINDS.index("orphan")
    kinds[~np.isfinite(reports.values)] = OUTCOME_KINDS.index("not a number")
    # What a report repeats or corrects depends on the reports before it.
    standing: dict[int, float] = {}
    seen_keys: set[int] = set()
    for row in np.flatnonzero(kinds <= OUTCOME_KINDS.index("late")).tolist():
        prediction, value = int(reports.predictions[row]), float(reports.values[row])
        key = int(reports.keys[row])
        repeated = key in seen_keys or standing.get(prediction) == value
        if key >= 0:
            seen_keys.add(key)
        if repeated:
            kinds[row] = OUTCOME_KINDS.index("duplicate")
        elif kinds[row] == OUTCOME_KINDS.index("counted"):
            if prediction in standing:
                kinds[row] = OUTCOME_KINDS.index("corrected")
            standing[prediction] = value
    return kinds


def count_kinds(kinds: NDArray[np.int64]) -> dict[str, int]:
    """Return how many reports are of each kind; the counts add up to all reports."""
    counts = np.bincount(kinds, minlength=len(OUTCOME_KINDS))
    return dict(zip(OUTCOME_KINDS, counts.tolist(), strict=True))
