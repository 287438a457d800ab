"""The monitoring policy of a model: what counts as an outcome, what is harm, and what follows.

It is the section [monitoring] of `models/churn.toml`:

    [monitoring]
    owner = "churn-watch"          # who gets its incidents; left out: the model's owner
    decisions = "all"              # or a number of keys a day
    budget = 0.25                  # expected false alarms of one version in a quarter
    sensitive = ["protected"]      # views that only fairness jobs read

    [monitoring.outcomes.churned]
    positive_when = ">= 1"         # of the reported value, or "any"
    horizon = "30d"                # until the outcome is decided
    grace = "3d"                   # until a decided outcome has arrived
    absent = "negative"            # or "unknown": what no report within both means
    attribution = "last"           # or "first": the prediction of an outcome reported by entity
    value = -120.0                 # money of one outcome that happens; below 0: a loss
    cost = 4.0                     # money of one act on a score

    [monitoring.segments.tenure]
    feature = "tenure_months"
    ranges = { new = [0, 12], settled = [12, 60] }      # from, up to and without

    [monitoring.segments.contract]
    feature = "contract"
    categories = { monthly = ["month-to-month"], fixed = ["one year", "two year"] }

    [monitoring.harm]
    auc_drop = 0.02

    [monitoring.acts]
    quality = "hold"               # note, hold, rollback or retrain

An outcome named "acted" needs no policy: by it callers report that somebody acted on a score.

policy_reader.py reads it. The sheet of defaults is §5 of the design of monitoring, as in
docs/incidents.md.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Act = Literal["note", "hold", "rollback", "retrain"]
Absent = Literal["negative", "unknown"]
Attribution = Literal["last", "first"]

ACTS: tuple[Act, ...] = ("note", "hold", "rollback", "retrain")
"""What may follow when monitoring opens an incident."""

KINDS: Mapping[str, str] = {
    "quality": "data of the calls or features is broken: missing, stale, unknown, out of range",
    "silence": "the model is asked far less than usual",
    "coverage": "monitoring did not see a part of the traffic",
    "score": "scores are distributed otherwise than in the reference",
    "features": "features are distributed otherwise than in the reference",
    "calibration": "outcomes come more or less often than the scores say",
    "risk": "the loss, or the expected cost, of decisions grew",
    "auc": "the scores order customers worse than was approved",
    "fairness": "a declared group is treated otherwise than the margin allows",
    "uplift": "acting on the scores brings less than it did",
    "holdout": "the control group is not what was drawn, or was acted on",
    "outcomes": "outcomes are late, doubled, or belong to no prediction",
}
"""Kind of an incident that monitoring opens -> what it means."""

DEFAULT_ACTS: Mapping[str, Act] = {
    **dict.fromkeys(KINDS, "note"),
    **dict.fromkeys(("quality", "calibration", "risk", "auc", "fairness"), "hold"),
}
"""Harm holds rollouts of the version; drift alone is noted. Nothing rolls back unless asked to."""

COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
ANY = "any"
"""`positive_when` of an outcome of which every report is positive."""
SECONDS_OF_UNIT = {"m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomePolicy:
    """One outcome of a model, as callers report it. Durations are texts such as "30d"."""

    positive_when: str
    horizon: str
    grace: str = "0d"
    absent: Absent = "unknown"
    attribution: Attribution = "last"
    """Which prediction in the horizon an outcome by entity belongs to: the newest or the oldest."""
    value: float = 0.0
    cost: float = 0.0

    @property
    def horizon_s(self) -> int:
        """Seconds from the prediction until the outcome is decided."""
        return seconds_of(self.horizon)

    @property
    def final_s(self) -> int:
        """Seconds from the prediction until the cohort is final: horizon and grace."""
        return self.horizon_s + seconds_of(self.grace)

    def is_positive(self, value: float) -> bool:
        """Whether a reported value is the outcome. NaN never is."""
        if self.positive_when == ANY:
            return not math.isnan(value)
        sign, _, bound = self.positive_when.partition(" ")
        return COMPARISONS[sign](value, float(bound))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Disjoint parts of the customers, by one feature. A row in no part is in "other"."""

    feature: str
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Part -> [from, up to), where an end may be infinite."""
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Part -> the categories in it, as the view's dictionary names them."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts."""
        return tuple(self.ranges or self.categories)

    def part_of(self, value: float | str) -> str:
        """Return the part of one value; "other" for a value in none, such as NaN."""
        for name, (low, high) in self.ranges.items():
            if not isinstance(value, str) and low <= value < high:
                return name
        for name, members in self.categories.items():
            if value in members:
                return name
        return "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmThresholds:
    """Changes up to which a version is as it was approved. All are differences or ratios."""

    calibration_logit: float = 0.2
    """Shift of the log odds of the outcome."""
    risk_share: float = 0.10
    """Growth of the loss as a share of the reference's ..."""
    risk_floor: float = 0.005
    """... and at least this much."""
    auc_drop: float = 0.02
    fairness_ratio: float = 0.8
    """Lowest ratio of a group's selection rate to that of the others."""
    group_people_min: int = 10
    """Groups of fewer people are never shown."""
    missing_growth: float = 2.0
    """Factor by which a share of missing, stale or unknown values may grow."""
    silence_share: float = 0.5
    """Lowest share of the usual calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringPolicy:
    """The policy of one model."""

    owner: str = ""
    """The owner of its incidents; empty: the model's owner."""
    decisions: int = 200_000
    """Keys a day whose decisions are kept; 0: all decisions."""
    budget: float = 0.25
    """Expected false alarms of one version in a quarter."""
    sensitive: tuple[str, ...] = ()
    """Views with attributes that are joined inside of a job only."""
    outcomes: Mapping[str, OutcomePolicy] = field(default_factory=dict)
    segments: Mapping[str, Segmentation] = field(default_factory=dict)
    harm: HarmThresholds = field(default_factory=HarmThresholds)
    acts: Mapping[str, Act] = field(default_factory=lambda: dict(DEFAULT_ACTS))
    """Kind of an incident -> what follows when monitoring opens it."""

    @property
    def keeps_all_decisions(self) -> bool:
        """Whether every decision is kept."""
        return self.decisions == 0

    def act_on(self, kind: str) -> Act:
        """Return what follows an incident of a kind; "note" for a kind without a rule."""
        return self.acts.get(kind, "note")

    def definition(self) -> dict[str, Any]:
        """Return the policy as JSON values, from which `read_monitoring_policy` makes it again."""
        segments = {}
        for name, part in self.segments.items():
            ranges = {item: list(map(_json_bound, ends)) for item, ends in part.ranges.items()}
            members = {item: list(texts) for item, texts in part.categories.items()}
            tables = {"ranges": ranges} if ranges else {"categories": members}
            segments[name] = {"feature": part.feature, **tables}
        return {
            "owner": self.owner,
            "decisions": self.decisions or "all",
            "budget": self.budget,
            "sensitive": list(self.sensitive),
            "outcomes": {name: asdict(outcome) for name, outcome in self.outcomes.items()},
            "segments": segments,
            "harm": asdict(self.harm),
            "acts": dict(self.acts),
        }


def seconds_of(duration: str) -> int:
    """Return the seconds of a checked duration such as "30d"."""
    return int(duration[:-1]) * SECONDS_OF_UNIT[duration[-1]]


def _json_bound(value: float) -> float | str:
    """Return an end of a range for JSON, which has no infinite numbers."""
    return str(value) if value in (float("inf"), float("-inf")) else value
