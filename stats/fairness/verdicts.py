"""Verdicts on each group: outside, within, or not enough data. They hold at every look.

    outside          the ratio to the others is below 4/5 or above 5/4, beyond doubt, or outside of
                     other bounds that were asked for
    within           it is between, beyond doubt
    not enough data  neither is clear yet; the sentence says how many people are needed

Of healthy versions at most `ALPHA` are ever called outside, over all groups, metrics and looks:
each of the C comparisons has the threshold 2 C / ALPHA on either side (Ville, and a union bound).
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from stats.accuracy.harm import calibration_evidence, calibration_holds
from stats.accuracy.labelled_bins import LabelledBins
from stats.fairness.ratio_evidence import (
    NULLS,
    OUTSIDE,
    RATIO_MIN,
    RateCounts,
    RatioEvidence,
)
from stats.figure import Figure, Z, figure_difference, no_figure, not_enough, wilson_figure
from stats.tilt import log_add

ALPHA = 0.01
"""Probability that a healthy version is ever called outside."""
WITHIN_E = 20.0
PEOPLE_FACTOR = 157.5
"""People needed to tell a ratio of 1 from .8 at a rate p: PEOPLE_FACTOR (1 - p) / p."""
RATE_NEEDED_MIN = 0.001
LOG_BOUND_MIN = 0.01
"""No number of people tells a ratio of 1 from a bound that is closer to it."""
METRICS = ("selection_rate", "tpr", "fpr", "calibration")


class GroupVerdict(StrEnum):
    """What is known of a group in one metric."""

    OUTSIDE = "outside"
    WITHIN = "within"
    NOT_ENOUGH_DATA = "not enough data"


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """The verdict on one group in one metric.

    rate, rest_rate  of the group and of the others. ratio, gap  of both, with intervals for people;
                     the verdict does not rest on them.
    log_e_outside    the largest ln E against "within" so far, on either side.
    log_change       ln M of the more suspicious side, for a detector of change; None: M is 0.
    text             the verdict as a sentence, with n of N where there is not enough data.
    """

    metric: str
    verdict: GroupVerdict
    rate: Figure
    rest_rate: Figure
    ratio: Figure
    gap: Figure
    log_e_outside: float
    log_change: float | None
    text: str

    def definition(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {
            "metric": self.metric,
            "verdict": str(self.verdict),
            "rate": self.rate.definition(),
            "rest_rate": self.rest_rate.definition(),
            "ratio": self.ratio.definition(),
            "gap": self.gap.definition(),
            "log_e_outside": self.log_e_outside,
            "log_change": self.log_change,
            "text": self.text,
        }


def outside_log_e(comparisons: int, alpha: float = ALPHA) -> float:
    """Return the ln E from which on a group is outside in one of the comparisons.

    If all groups of a version are within, the expected number of comparisons that ever reach it is
    *alpha* at most: each side of each comparison has the probability alpha / (2 comparisons).
    """
    return math.log(2 * comparisons / alpha)


def people_needed(rate: float, ratio_min: float = RATIO_MIN) -> int:
    """Return how many people of a group tell a ratio of 1 from a bound, by the others' *rate*."""
    p = min(max(rate, RATE_NEEDED_MIN), 1.0)
    closer = math.log(RATIO_MIN) / min(math.log(ratio_min), -LOG_BOUND_MIN)
    return max(math.ceil(PEOPLE_FACTOR * closer**2 * (1.0 - p) / p), 30)


def ratio_verdict_of(metric: str, evidence: RatioEvidence, comparisons: int) -> MetricVerdict:
    """Return the verdict on a rate: of selection, or of true or false positives.

    comparisons  groups x metrics that are looked at (`declared_comparisons`).
    """
    counts = evidence.counts
    rate = wilson_figure(counts.events, counts.people, of="people")
    rest = wilson_figure(counts.rest_events, counts.rest_people, of="people")
    outside = {name: evidence.log_e_max[name] for name in OUTSIDE}
    side = max(outside, key=lambda name: outside[name])
    ratio, gap = ratio_figure(counts), figure_difference(rate, rest)
    # "Outside" needs the error rate shared among all comparisons, "within" both sides rejected.
    verdict = GroupVerdict.NOT_ENOUGH_DATA
    rest_rate = counts.rest_events / counts.rest_people if counts.rest_people else 0.0
    low, high = evidence.ratio_min, 1.0 / evidence.ratio_min
    text = _n_of_needed(min(counts.people, counts.rest_people), rest_rate, "people", low)
    if outside[side] >= outside_log_e(comparisons):
        verdict = GroupVerdict.OUTSIDE
        beyond = f"below {low:.3g}" if side.endswith("low") else f"above {high:.3g}"
        text = f"outside: the ratio is {beyond}"
    elif min(evidence.log_e(name) for name in NULLS if name.startswith("inside")) >= math.log(
        WITHIN_E
    ):
        verdict = GroupVerdict.WITHIN
        text = f"within: the ratio is between {low:.3g} and {high:.3g}"
    largest = max(evidence.log_change(name) for name in OUTSIDE)
    change = None if largest == -math.inf else largest
    return MetricVerdict(metric, verdict, rate, rest, ratio, gap, outside[side], change, text)


def ratio_figure(counts: RateCounts) -> Figure:
    """Return the ratio of the rates with the interval of its logarithm (Katz et al., 1978).

    Half an event is added on both sides, so that no event in a group still has an interval.
    """
    n = counts.people
    if lacking := not_enough(min(n, counts.rest_people), 10, "people"):
        return no_figure(n, lacking)
    if not counts.events and not counts.rest_events:
        return no_figure(n, "nobody on either side has the event, so there is no ratio")
    events, rest = counts.events + 0.5, counts.rest_events + 0.5
    people, others = n + 0.5, counts.rest_people + 0.5
    log_ratio = math.log(events / people) - math.log(rest / others)
    error = math.sqrt(max(1 / events - 1 / people + 1 / rest - 1 / others, 0.0))
    ends = (math.exp(log_ratio + sign * Z * error) for sign in (0.0, -1.0, 1.0))
    value, low, high = ends
    return Figure(value, low, high, n)


@dataclass(frozen=True, slots=True)
class CalibrationTally:
    """ln E of a group's calibration so far; each cohort enters once, when it is final.

    people, positives             people with outcomes, and those who had it.
    outside_above, outside_below  against "scores are calibrated up to the tolerance".
    inside_above, inside_below    against "they are off by more".
    largest                       of `outside_above` and `outside_below`, over all looks.
    change_above, change_below    ln M of a change on either side (see ratio_evidence); None: 0.
    """

    people: int = 0
    positives: int = 0
    outside_above: float = 0.0
    outside_below: float = 0.0
    inside_above: float = 0.0
    inside_below: float = 0.0
    largest: float = 0.0
    change_above: float | None = None
    change_below: float | None = None

    def after(self, cohort: LabelledBins) -> "CalibrationTally":
        """Return the tally after the labelled rows of one more cohort."""
        off, holds = calibration_evidence(cohort), calibration_holds(cohort)
        above = self.outside_above + off.log_e_above
        below = self.outside_below + off.log_e_below
        return CalibrationTally(
            self.people + cohort.n,
            self.positives + int(cohort.positive_rows),
            above,
            below,
            self.inside_above + holds.log_e_above,
            self.inside_below + holds.log_e_below,
            max(self.largest, above, below),
            _log_m_after(self.change_above, off.log_e_above),
            _log_m_after(self.change_below, off.log_e_below),
        )


def _log_m_after(log_m: float | None, log_e: float) -> float:
    """Return ln((1 + M) e)."""
    return log_e if log_m is None else log_add(log_m, 0.0) + log_e


def calibration_verdict(
    tally: CalibrationTally, own: Figure, rest: Figure, comparisons: int
) -> MetricVerdict:
    """Return the verdict on the calibration of a group's scores.

    own, rest  intercepts of calibration of the group and of the others, in log-odds, for people.
    """
    if tally.largest >= outside_log_e(comparisons):
        many = "more" if tally.outside_above >= tally.outside_below else "fewer"
        verdict = GroupVerdict.OUTSIDE
        text = f"outside: {many} people of the group have the outcome than scores say"
    elif min(tally.inside_above, tally.inside_below) >= math.log(WITHIN_E):
        verdict = GroupVerdict.WITHIN
        text = "within: scores say how many of the group have the outcome"
    else:
        verdict = GroupVerdict.NOT_ENOUGH_DATA
        rate = tally.positives / tally.people if tally.people else 0.0
        text = _n_of_needed(tally.people, rate, "people with outcomes")
    gap = figure_difference(own, rest)
    ratio = no_figure(tally.people, "calibration is compared by its gap in log-odds")
    change = None
    if tally.change_above is not None and tally.change_below is not None:
        change = max(tally.change_above, tally.change_below)
    return MetricVerdict("calibration", verdict, own, rest, ratio, gap, tally.largest, change, text)


def _n_of_needed(people: int, rate: float, of: str, ratio_min: float = RATIO_MIN) -> str:
    """Return how many people are there of those needed.

    A ratio near a bound needs more people than a ratio of 1, so the number doubles until it is
    above those who are there.
    """
    needed = people_needed(rate, ratio_min)
    while needed <= people:
        needed *= 2
    return not_enough(people, needed, of)
