"""How many false alarms are allowed, and the thresholds that follow.

A detector with the threshold A has at most T / A false alarms in T looks on average (see
stats.alarms.shiryaev_roberts). Expected numbers add up, whatever the detectors have in common. So
with the budget B of a version in a quarter, and weights w_i that add up to 1 at most,

    A_i = T_i / (B w_i)        and        E[false alarms a quarter] <= sum T_i / A_i <= B

An always-valid procedure crosses the threshold A with probability 1 / A at most in each run of its
evidence. For such a procedure T is the number of runs that a quarter touches, and the same holds.

A group's weight is spread over its cadences in equal parts, and there by importance. The weight of
a group without detectors is not spent.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

DAYS_A_QUARTER = 91
ALARMS_A_QUARTER = 0.25
"""B: false alarms of one version in a quarter."""

QUALITY, SCORE, FEATURES = "quality", "score", "features"
RISK, FAIRNESS, UPLIFT = "calibration and risk", "fairness", "uplift and holdout"
GROUP_WEIGHTS: Mapping[str, float] = {
    QUALITY: 0.15,
    SCORE: 0.15,
    FEATURES: 0.25,
    RISK: 0.20,
    FAIRNESS: 0.15,
    UPLIFT: 0.10,
}
"""Group of detectors -> its part of the budget."""


class BudgetError(ValueError):
    """A budget cannot be kept as it was asked for."""


class Cadence(Enum):
    """How often a detector looks; the value is T, the most looks that a quarter has.

    The last two are for evidence that holds at every look: a run of it begins anew after four weeks
    or a year of looks, and T is the most runs that a quarter touches.
    """

    FIVE_MINUTES = DAYS_A_QUARTER * 24 * 12
    DAILY = DAYS_A_QUARTER
    WEEKLY = DAYS_A_QUARTER // 7
    FOUR_WEEKS = 4
    YEARLY = 2


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """One detector: a stream of counts that is looked at by a cadence."""

    name: str
    group: str
    """One of the groups of the budget."""
    cadence: Cadence
    importance: float = 1.0
    """Its part of the group's weight, relative to the others; for a feature, the mean size of its
    contribution to the score on the reference."""


@dataclass(frozen=True, slots=True)
class DetectorBudget:
    """The threshold of one detector, and what it may spend."""

    settings: DetectorSettings
    alarms_max: float
    """Expected false alarms in a quarter, B w_i."""

    @property
    def log_threshold(self) -> float:
        """The logarithm of the threshold, ln A_i = ln(T_i / (B w_i))."""
        return -math.log(self.alarms_a_look)

    @property
    def alarms_a_look(self) -> float:
        """Expected false alarms in one look or run of evidence, B w_i / T_i = 1 / A_i."""
        return self.alarms_max / self.settings.cadence.value


@dataclass(frozen=True, slots=True)
class AlarmBudget:
    """The budget of one version."""

    alarms_a_quarter: float
    detectors: dict[tuple[str, Cadence], DetectorBudget]
    """(name, cadence) -> its budget."""

    @property
    def bound(self) -> float:
        """Expected false alarms in a quarter of all detectors together, at most."""
        return math.fsum(item.alarms_max for item in self.detectors.values())


def plan_budget(
    detectors: Sequence[DetectorSettings],
    alarms_a_quarter: float = ALARMS_A_QUARTER,
    weights: Mapping[str, float] = GROUP_WEIGHTS,
) -> AlarmBudget:
    """Return the budget of each of *detectors*.

    A detector of importance 0 gets 1 % of an equal part, so that it can raise an alarm too.

    Raises BudgetError for a budget or weight that is not above 0, weights that add up to more than
    1, an unknown group, a negative importance, or a detector that is there twice.
    """
    _check_budget(detectors, alarms_a_quarter, weights)
    # The detectors of each group by cadence.
    parts: dict[str, dict[Cadence, list[DetectorSettings]]] = defaultdict(lambda: defaultdict(list))
    for item in detectors:
        parts[item.group][item.cadence].append(item)
    # Spread the weight of each group.
    planned = {}
    for group, by_cadence in parts.items():
        for cadence, members in by_cadence.items():
            spent = alarms_a_quarter * weights[group] / len(by_cadence)
            total = math.fsum(member.importance for member in members)
            floor = 0.01 * (total / len(members) if total > 0.0 else 1.0)
            shares = [max(member.importance, floor) for member in members]
            for member, share in zip(members, shares, strict=True):
                alarms = spent * share / math.fsum(shares)
                planned[member.name, cadence] = DetectorBudget(member, alarms)
    return AlarmBudget(alarms_a_quarter, planned)


def _check_budget(
    detectors: Sequence[DetectorSettings], alarms_a_quarter: float, weights: Mapping[str, float]
) -> None:
    if not 0.0 < alarms_a_quarter < math.inf:
        raise BudgetError(f"a budget of {alarms_a_quarter} alarms a quarter: give a number above 0")
    total = math.fsum(weights.values())
    if any(not weight > 0.0 for weight in weights.values()) or not total <= 1.0 + 1e-9:
        raise BudgetError(
            f"the weights {dict(weights)} add up to {total:g}; each is above 0, and all add up to "
            "1 at most, since they are parts of one budget"
        )
    seen = set()
    for item in detectors:
        if item.group not in weights:
            raise BudgetError(
                f"detector {item.name!r} is of group {item.group!r}, which has no weight; the "
                f"groups are {', '.join(weights)}"
            )
        if not 0.0 <= item.importance < math.inf:
            raise BudgetError(f"detector {item.name!r} has the importance {item.importance}")
        if (item.name, item.cadence) in seen:
            raise BudgetError(f"detector {item.name!r} is there twice at {item.cadence.name}")
        seen.add((item.name, item.cadence))
