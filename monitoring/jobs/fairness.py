"""Looks at groups of people, month by month or week by week. No input or output.

Each look is of people who were not in an earlier look of the same version: a person counts once.
Sensitive attributes come in as arrays, are used here alone, and leave as counts of groups with ten
people or more. A group with fewer people in a look is not counted in that look, so no state, text
or JSON ever has it; a caller makes looks longer where groups are small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.area import area_figure
from stats.accuracy.labelled_bins import LabelledBins, check_probabilities, logits, sigmoid, sum_by
from stats.accuracy.probabilities import calibration_line
from stats.fairness.groups import (
    PEOPLE_SHOWN_MIN,
    DeclaredAttribute,
    Group,
    declared_comparisons,
    shown_groups,
)
from stats.fairness.ratio_evidence import (
    RATIO_MIN,
    RateCounts,
    RatioEvidence,
    add_look,
    ratio_evidence_from,
    start_ratio_evidence,
)
from stats.fairness.verdicts import (
    ALPHA,
    METRICS,
    CalibrationTally,
    MetricVerdict,
    calibration_verdict,
    outside_log_e,
    ratio_verdict_of,
)
from stats.figure import Figure, no_figure

RATES = METRICS[:3]
"""Selection rate, and rates of true and of false positives."""
BIN_WIDTH = 0.01


@dataclass(frozen=True, eq=False, slots=True)
class PeopleLook:
    """The people of one look, N of them, each once.

    selected  (N,) bool, the decision. scores  (N,) float64, P(positive), 0 to 1.
    labelled  (N,) bool, whose outcome is final. positive  (N,) bool, that outcome.

    Raises ValueError for columns of different lengths and for scores that are no probabilities.
    """

    selected: NDArray[np.bool_]
    scores: NDArray[np.float64]
    labelled: NDArray[np.bool_]
    positive: NDArray[np.bool_]

    def __post_init__(self) -> None:
        lengths = {len(self.selected), len(self.scores), len(self.labelled), len(self.positive)}
        if len(lengths) > 1 or not np.isfinite(self.scores).all():
            raise ValueError(f"columns of {sorted(lengths)} people: one length, and finite scores")
        check_probabilities(self.scores)


@dataclass(frozen=True, slots=True)
class GroupState:
    """The evidence on one group so far."""

    rates: Mapping[str, RatioEvidence]
    calibration: CalibrationTally = field(default_factory=CalibrationTally)

    def definition(self) -> dict[str, Any]:
        """Return the state as JSON values; `group_state_from` reads them back exactly."""
        return {
            "rates": {name: evidence.definition() for name, evidence in self.rates.items()},
            "calibration": asdict(self.calibration),
        }


def group_state_from(definition: dict[str, Any]) -> GroupState:
    """Return the state of `GroupState.definition`."""
    return GroupState(
        {name: ratio_evidence_from(state) for name, state in definition["rates"].items()},
        CalibrationTally(**definition["calibration"]),
    )


@dataclass(frozen=True, slots=True)
class GroupFairness:
    """What is known of one group. area  how well scores order its people of this look."""

    name: str
    people: int
    metrics: tuple[MetricVerdict, ...]
    area: Figure

    def definition(self) -> dict[str, Any]:
        """Return the verdicts as JSON values."""
        return {
            "name": self.name,
            "people": self.people,
            "metrics": [metric.definition() for metric in self.metrics],
            "area": self.area.definition(),
        }


@dataclass(frozen=True, slots=True)
class FairnessReport:
    """The verdicts on all groups that are shown, and what opens an incident.

    groups     those with ten people in a look so far.
    incidents  (group, metric) of the comparisons with the evidence that an incident needs.
    """

    groups: tuple[GroupFairness, ...]
    incidents: tuple[tuple[str, str], ...]

    def definition(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "groups": [group.definition() for group in self.groups],
            "incidents": [list(incident) for incident in self.incidents],
        }


FairnessState = Mapping[str, GroupState]
"""Name of a group -> its evidence."""


def look_at_groups(
    state: FairnessState,
    people: PeopleLook,
    attributes: Sequence[DeclaredAttribute],
    ratio_min: float = RATIO_MIN,
    incidents_max: float = ALPHA,
) -> tuple[FairnessState, FairnessReport]:
    """Return the state after a look, and the verdicts.

    state       after the look before; {} before the first.
    attributes  the declared attributes of the N people, the same ones at every look.
    ratio_min   lowest ratio of a rate to that of the others; the highest one is its inverse. The
                evidence on rates begins anew where it was another.
    incidents_max  expected incidents of a version at all looks, if all its groups are within.
    """
    declared = {item.name: len(item.values) for item in attributes}
    comparisons = declared_comparisons(declared, len(METRICS))
    if any(len(item.codes) != len(people.scores) for item in attributes):
        raise ValueError(
            f"attributes are of other people than the {len(people.scores)} of the look"
        )
    groups = {group.name: group for group in shown_groups(attributes)}
    # Count this look.
    after = dict(state)
    binned = _BinnedPeople(people)
    for name, group in groups.items():
        after[name] = _state_after(after.get(name), binned, group, ratio_min)
    # Judge all groups that were ever counted.
    judged = tuple(
        _group_fairness(name, after[name], binned, groups.get(name), comparisons) for name in after
    )
    needed = outside_log_e(comparisons, incidents_max)
    incidents = tuple(
        (group.name, metric.metric)
        for group in judged
        for metric in group.metrics
        if metric.log_e_outside >= needed
    )
    return after, FairnessReport(judged, incidents)


class _BinnedPeople:
    """The people of a look with the bin of each score, so that a group is a sum by bin.

    Bins are BIN_WIDTH wide in log-odds, far less than a shift of calibration that would matter.
    """

    def __init__(self, people: PeopleLook) -> None:
        self.people = people
        steps = np.rint(logits(people.scores) / BIN_WIDTH)
        levels, self._bin_of = np.unique(steps, return_inverse=True)
        self._values = sigmoid(levels * BIN_WIDTH)

    def labelled(self, rows: NDArray[np.bool_]) -> LabelledBins:
        """Return the people of *rows* (N,) whose outcome is final, by bin of the score."""
        chosen = rows & self.people.labelled
        counts = [
            sum_by(self._bin_of[part], np.ones(int(part.sum())), len(self._values))
            for part in (chosen & self.people.positive, chosen & ~self.people.positive)
        ]
        return LabelledBins(self._values, counts[0], counts[1]).filled()


def _state_after(
    before: GroupState | None, binned: _BinnedPeople, group: Group, ratio_min: float
) -> GroupState:
    """Return the evidence on a group after a look."""
    people = binned.people
    start = start_ratio_evidence(ratio_min)
    rates = before.rates if before else dict.fromkeys(RATES, start)
    if any(rate.ratio_min != ratio_min for rate in rates.values()):
        rates = dict.fromkeys(RATES, start)
    tally = before.calibration if before else CalibrationTally()
    labelled, positive = people.labelled, people.positive
    # People who can have each event: all of them, those with the outcome, those without it.
    possible = {
        "selection_rate": np.ones(len(labelled), dtype=np.bool_),
        "tpr": labelled & positive,
        "fpr": labelled & ~positive,
    }
    counted = {
        name: add_look(rates[name], _rate_counts(group, possible[name], people.selected))
        for name in RATES
    }
    if (group.members & labelled).sum() >= PEOPLE_SHOWN_MIN:
        tally = tally.after(binned.labelled(group.members))
    return GroupState(counted, tally)


def _rate_counts(
    group: Group, possible: NDArray[np.bool_], selected: NDArray[np.bool_]
) -> RateCounts:
    """Return the counts of a rate; all 0 where fewer than ten people of a side can have it."""
    own, rest = group.members & possible, group.rest & possible
    if min(int(own.sum()), int(rest.sum())) < PEOPLE_SHOWN_MIN:
        return RateCounts(0, 0, 0, 0)
    return RateCounts(
        int(own.sum()),
        int((own & selected).sum()),
        int(rest.sum()),
        int((rest & selected).sum()),
    )


def _group_fairness(
    name: str,
    state: GroupState,
    binned: _BinnedPeople,
    group: Group | None,
    comparisons: int,
) -> GroupFairness:
    """Return the verdicts on a group. Its intercepts and its area are those of this look."""
    metrics = [ratio_verdict_of(rate, state.rates[rate], comparisons) for rate in RATES]
    missing = no_figure(0, "not enough data: fewer than 10 people of the group in this look")
    own, rest, area = missing, missing, missing
    if group is not None and (group.members & binned.people.labelled).sum() >= PEOPLE_SHOWN_MIN:
        bins = binned.labelled(group.members)
        own, area = calibration_line(bins).intercept, area_figure(bins)
        rest = calibration_line(binned.labelled(group.rest)).intercept
    metrics.append(calibration_verdict(state.calibration, own, rest, comparisons))
    counted = state.rates["selection_rate"].counts.people
    return GroupFairness(name, counted, tuple(metrics), area)
