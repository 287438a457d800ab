"""Verdicts on each group: outside, within, or not enough data. They hold at every look.

    outside          the ratio to the others is below 4/5 or above 5/4, beyond doubt
    within           it is between, beyond doubt
    not enough data  neither is clear yet; the sentence says how many people are needed

Of healthy versions at most `ALPHA` are ever called outside, over all groups, metrics and looks:
each of the C comparisons has the threshold 2 C / ALPHA on either side (Ville, and a union bound).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from stats.accuracy.harm import calibration_evidence, calibration_holds
from stats.accuracy.labelled_bins import LabelledBins
from stats.accuracy.probabilities import calibration_line
from stats.fairness.ratio_evidence import NULLS, RateCounts, RatioEvidence
from stats.figure import Figure, Z, figure_difference, no_figure, not_enough, wilson_figure

ALPHA = 0.01
"""Probability that a healthy version is ever called outside."""
WITHIN_E = 20.0
FALSE_DISCOVERIES = 0.05
PEOPLE_FACTOR = 157.5
"""People needed to tell a ratio of 1 from .8 at a rate p: PEOPLE_FACTOR (1 - p) / p."""
RATE_NEEDED_MIN = 0.001
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
    log_e_outside    the largest ln E against "the ratio is within", on either side.
    text             the verdict as a sentence, with n of N where there is not enough data.
    """

    metric: str
    verdict: GroupVerdict
    rate: Figure
    rest_rate: Figure
    ratio: Figure
    gap: Figure
    log_e_outside: float
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
            "text": self.text,
        }


def people_needed(rate: float) -> int:
    """Return how many people of a group tell a ratio of 1 from .8, by the others' *rate*."""
    p = min(max(rate, RATE_NEEDED_MIN), 1.0)
    return max(math.ceil(PEOPLE_FACTOR * (1.0 - p) / p), 30)


def ratio_verdict_of(metric: str, evidence: RatioEvidence, comparisons: int) -> MetricVerdict:
    """Return the verdict on a rate: of selection, or of true or false positives.

    comparisons  groups x metrics that are looked at (`declared_comparisons`).
    """
    counts = evidence.counts
    rate = wilson_figure(counts.events, counts.people, of="people")
    rest = wilson_figure(counts.rest_events, counts.rest_people, of="people")
    outside = {name: evidence.log_e_max[name] for name in NULLS if name.startswith("outside")}
    side = max(outside, key=lambda name: outside[name])
    ratio, gap = ratio_figure(counts), figure_difference(rate, rest)
    # "Outside" needs the error rate shared among all comparisons, "within" both sides rejected.
    verdict, text = GroupVerdict.NOT_ENOUGH_DATA, _people_text(counts)
    if outside[side] >= math.log(2 * comparisons / ALPHA):
        verdict = GroupVerdict.OUTSIDE
        text = f"outside: the ratio is {'below 0.8' if side.endswith('low') else 'above 1.25'}"
    elif min(evidence.log_e(name) for name in NULLS if name.startswith("inside")) >= math.log(
        WITHIN_E
    ):
        verdict, text = GroupVerdict.WITHIN, "within: the ratio is between 0.8 and 1.25"
    return MetricVerdict(metric, verdict, rate, rest, ratio, gap, outside[side], text)


def _people_text(counts: RateCounts) -> str:
    """Return how many people are there of those needed; more, where they turn out not to do."""
    rest_rate = counts.rest_events / counts.rest_people if counts.rest_people else 0.0
    needed = people_needed(rest_rate)
    fewer = min(counts.people, counts.rest_people)
    # A ratio near a bound needs more people than one of 1, and there is no end to how many.
    while needed <= fewer:
        needed *= 2
    return not_enough(fewer, needed, "people")


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

    outside_above, outside_below  against "scores are calibrated up to the tolerance".
    inside_above, inside_below    against "they are off by more".
    largest                       of the first two, over all looks.
    """

    outside_above: float = 0.0
    outside_below: float = 0.0
    inside_above: float = 0.0
    inside_below: float = 0.0
    largest: float = 0.0

    def after(self, cohort: LabelledBins) -> "CalibrationTally":
        """Return the tally after the labelled rows of one more cohort."""
        off, kept = calibration_evidence(cohort), calibration_holds(cohort)
        above = self.outside_above + off.log_e_above
        below = self.outside_below + off.log_e_below
        return CalibrationTally(
            above,
            below,
            self.inside_above + kept.log_e_above,
            self.inside_below + kept.log_e_below,
            max(self.largest, above, below),
        )


def calibration_verdict(
    tally: CalibrationTally, group: LabelledBins, rest: LabelledBins, comparisons: int
) -> MetricVerdict:
    """Return the verdict on the calibration of a group's scores.

    group, rest  all labelled rows so far. The rates are intercepts of calibration, in log-odds.
    """
    own, other = calibration_line(group).intercept, calibration_line(rest).intercept
    verdict, text = GroupVerdict.NOT_ENOUGH_DATA, ""
    if tally.largest >= math.log(2 * comparisons / ALPHA):
        verdict = GroupVerdict.OUTSIDE
        many = "more" if tally.outside_above >= tally.outside_below else "fewer"
        text = f"outside: {many} people of the group have the outcome than scores say"
    elif min(tally.inside_above, tally.inside_below) >= math.log(WITHIN_E):
        verdict, text = GroupVerdict.WITHIN, "within: scores say how many have the outcome"
    else:
        rate = group.positive_rows / group.n if group.n else 0.0
        needed = people_needed(rate)
        while needed <= group.n:
            needed *= 2
        text = not_enough(group.n, needed, "people with outcomes")
    gap = figure_difference(own, other)
    ratio = no_figure(group.n, "calibration is compared by its gap in log-odds")
    return MetricVerdict("calibration", verdict, own, other, ratio, gap, tally.largest, text)


def false_discovery_choice(log_es: Sequence[float], level: float = FALSE_DISCOVERIES) -> list[int]:
    """Return the positions of the e-values that e-BH rejects (Wang and Ramdas, JRSS B 84, 2022).

    Of what it rejects, a part of *level* at most is false on average, whatever the e-values have in
    common. It opens one incident for all of them; a verdict "outside" needs more.
    """
    if not 0.0 < level < 1.0 or any(math.isnan(log_e) for log_e in log_es):
        raise ValueError(f"a level of {level} and e-values that are numbers are needed")
    order = np.argsort(-np.array(log_es, dtype=np.float64), kind="stable")
    count = len(log_es)
    chosen = 0
    for rank, position in enumerate(order.tolist(), start=1):
        if log_es[position] >= math.log(count / (level * rank)):
            chosen = rank
    return sorted(order.tolist()[:chosen])
