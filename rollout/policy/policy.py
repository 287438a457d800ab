"""Policies: the shares, minimum stays and thresholds under which a rollout runs.

An approval names a version and the digest of a policy. So a change of any number here needs new
approvals.
"""

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from features.canonical import canonical_json, sha256_hex
from host.freeze_windows import parse_freeze_window

WEIGHTS: tuple[tuple[str, float], ...] = (
    ("errors", 0.20),
    ("schema", 0.15),
    ("timeouts", 0.10),
    ("p99", 0.15),
    ("p90", 0.10),
    ("p50", 0.10),
    ("prediction", 0.10),
    ("outcome", 0.10),
)
"""The part of alpha that each metric gets."""

JUDGED_METRICS = tuple(metric for metric, _ in WEIGHTS)
"""Each of these metrics can roll back. schema: NaN, infinity or a wrong shape; p50 to p99: slow
answers."""


@dataclass(frozen=True, kw_only=True)
class ShadowStage:
    """The candidate scores copies of answered rows. No caller sees its answers."""

    sample_bp: int
    """Share of the keys whose rows are copied, in basis points."""
    pairs_min: int
    """Rows that both versions must have scored before the stage can end."""
    bake_s: float
    faulty_max: int
    """Rows on which the candidate alone may fail. One more is FAULTY."""
    flips_bp_max: int
    """Decisions that may differ from production's, in basis points. More of them hold. Of values,
    those that moved by over a quarter of their spread count."""
    difference_max: float = 0.25
    """Mean difference of scores from production's, in spreads. Evidence of a larger one holds. The
    spread of a probability is 1. That of a value is q95 - q05 of its reference."""


@dataclass(frozen=True, kw_only=True)
class CanaryStep:
    """One share of the canary stage."""

    share_bp: int
    bake_s: float
    """Minimum stay in seconds, however good the evidence."""


ANONYMOUS = "anonymous"
"""All callers without an identity: together they are one caller."""


@dataclass(frozen=True, kw_only=True)
class GoodOutcome:
    """The outcome that a good prediction has. Exactly one of the two bounds is given."""

    name: str
    """The name under which callers report it, for example "accepted"."""
    at_least: float | None = None
    """A value is good if it is at least this ..."""
    at_most: float | None = None
    """... or at most this: "churned", at most 0, is a customer who stayed."""
    trusted_callers: tuple[str, ...] = ()
    """Callers whose reports alone may roll back. Those of any other caller need the others'."""
    trust_anonymous: bool = False
    """Whether reports of callers without an identity, together one caller, may roll back alone."""

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.at_least, self.at_most) if bound is not None]
        if not self.name or len(bounds) != 1 or not math.isfinite(bounds[0]):
            raise ValueError(
                f"the good outcome {self.name!r} has the bounds at_least={self.at_least} and "
                f"at_most={self.at_most}; it has a name, and one of them as a number"
            )

    def is_good(self, value: float) -> bool:
        """Whether *value*, reported under this name, is good."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most

    @property
    def trusted(self) -> frozenset[str]:
        """The names of the callers whose reports alone may roll back."""
        return frozenset(self.trusted_callers) | ({ANONYMOUS} if self.trust_anonymous else set())

    @property
    def description(self) -> str:
        """The outcome as a text, for example `accepted >= 1`."""
        if self.at_least is not None:
            return f"{self.name} >= {self.at_least:g}"
        return f"{self.name} <= {self.at_most:g}"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Everything by which a rollout is judged. Times are in seconds, shares in basis points."""

    name: str
    shadow: ShadowStage | None
    canary: tuple[CanaryStep, ...]
    watch_s: float
    """Minimum stay as production with the old version loaded beside it."""
    standby_bp: int
    """Share that the old version keeps in the watch, as the baseline."""
    failure_bar: float
    """Promotion needs evidence that a smaller part of the keys than this fails, or ..."""
    worse_ratio_max: float = 2.0
    """... that they fail less than this many times as often as production's keys."""
    promote_e: float = 20.0
    """E-value that either evidence needs. Of candidates at the bar, 1 of this many is promoted."""
    alpha: float = 0.01
    """Part of healthy rollouts that are rolled back, at most, over all metrics and looks."""
    weights: tuple[tuple[str, float], ...] = WEIGHTS
    guards: tuple[str, ...] = ("BREAKER_OPEN", "PROCESS_DIED", "LOAD_REFUSED")
    """Hard guards that roll back at once. They are not part of alpha."""
    preload_s_max: float = 120.0
    stage_s_max: float = 3600.0
    """Longest stay at a position. After it the rollout is held, and a person decides."""
    silence_s_max: float = 3.0
    """A live worker that sends no batch of windows for longer than this holds."""
    latency_margin: float = 0.10
    """The candidate may be slower by this part of production's quantile ..."""
    latency_floor_us: float = 500.0
    """... or by this many microseconds, whichever is larger."""
    psi_min: float = 0.005
    """Smallest departure from the approved shift that can roll back (.07 standard deviations)."""
    mismatch_e: float = 1000.0
    """E-value of a split that does not assign keys by its share, from which it holds."""
    looks_max: int = 3600
    """Seconds over which the rollback tests spread their prior for a late onset."""
    outcome: GoodOutcome | None = None
    """The good outcome of a prediction; None: outcomes are not judged."""
    freeze: tuple[str, ...] = ()
    """Freeze windows, as host.freeze_windows reads them."""
    exclusive_views: tuple[str, ...] = ()
    """Views over which only one model may roll out at a time; "*": every view of the candidate."""
    replay_days: float = 0.0
    """A rollout, and an approval, needs a replay of production's features without a difference
    whose last row is at most so many days old. 0: none is needed."""
    keys_max: int = 20_000
    """Keys remembered of each kind. More keys would need memory and not change the verdict."""

    def __post_init__(self) -> None:
        shares = [step.share_bp for step in self.canary]
        if not shares or shares != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] < 10_000:
            raise ValueError(
                f"policy {self.name!r} has canary shares {shares}; they must grow, between 1 and "
                "9999 basis points"
            )
        if not 0 < self.standby_bp < 10_000:
            raise ValueError(
                f"policy {self.name!r} leaves {self.standby_bp} basis points to the old version; "
                "the watch needs a baseline, so 1 to 9999"
            )
        for window in self.freeze:
            parse_freeze_window(window)
        if not (math.isfinite(self.replay_days) and self.replay_days >= 0):
            raise ValueError(
                f"policy {self.name!r} has replay_days {self.replay_days}; a number of days, or 0 "
                "for none"
            )
        if not math.isclose(math.fsum(weight for _, weight in self.weights), 1.0):
            raise ValueError(f"the weights of policy {self.name!r} do not add up to 1")
        self._check_bounds()

    def _check_bounds(self) -> None:
        parts = {"alpha": self.alpha, "failure_bar": self.failure_bar}
        parts |= {f"weight of {metric}": weight for metric, weight in self.weights}
        for what, part in parts.items():
            if not 0.0 < part < 1.0:
                raise ValueError(f"policy {self.name!r} has {what} {part}; between 0 and 1, please")
        for what, ratio in (
            ("worse_ratio_max", self.worse_ratio_max),
            ("promote_e", self.promote_e),
            ("mismatch_e", self.mismatch_e),
        ):
            if not ratio > 1.0:
                raise ValueError(f"policy {self.name!r} has {what} {ratio}; it must exceed 1")
        if self.looks_max < 1 or self.keys_max < 1 or min(self._durations_s) < 0:
            raise ValueError(
                f"policy {self.name!r} has a negative time, or looks_max or keys_max below 1"
            )
        if self.shadow is not None and not 0.0 < self.shadow.difference_max < 1.0:
            raise ValueError(
                f"policy {self.name!r} has shadow.difference_max {self.shadow.difference_max}; "
                "it is a part of the reference's spread, so it lies between 0 and 1"
            )

    @property
    def _durations_s(self) -> tuple[float, ...]:
        bakes = tuple(step.bake_s for step in self.canary)
        return (*bakes, self.watch_s, self.preload_s_max, self.stage_s_max, self.silence_s_max)

    @cached_property
    def json(self) -> bytes:
        """The canonical JSON, of which the digest is taken.

        A policy that needs no replay has no field for it, as before there were replays. So the
        approvals and checkpoints of that time go on.
        """
        values = asdict(self)
        if not self.replay_days:
            del values["replay_days"]
        return canonical_json(values)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex. Approvals name it."""
        return sha256_hex(self.json)

    def log_threshold(self, metric: str) -> float:
        """Return ln(1 / (alpha * weight)), from which the evidence of *metric* rolls back."""
        return -math.log(self.alpha * dict(self.weights)[metric])

    @property
    def mismatch_log_threshold(self) -> float:
        """Ln of `mismatch_e`, from which a split mismatch holds."""
        return math.log(self.mismatch_e)

    @property
    def promote_log_threshold(self) -> float:
        """Ln of `promote_e`, from which evidence promotes."""
        return math.log(self.promote_e)


DEMO = Policy(
    name="demo",
    shadow=ShadowStage(
        sample_bp=10_000, pairs_min=300, bake_s=2.0, faulty_max=2, flips_bp_max=3_000
    ),
    canary=(CanaryStep(share_bp=1_000, bake_s=5.0), CanaryStep(share_bp=5_000, bake_s=5.0)),
    watch_s=10.0,
    standby_bp=500,
    failure_bar=0.01,
    preload_s_max=60.0,
    stage_s_max=600.0,
)
DEMO_DIRECT = Policy(
    name="demo-direct",
    shadow=None,
    canary=DEMO.canary,
    watch_s=DEMO.watch_s,
    standby_bp=DEMO.standby_bp,
    failure_bar=DEMO.failure_bar,
    preload_s_max=DEMO.preload_s_max,
    stage_s_max=DEMO.stage_s_max,
)
DEMO_GENTLE = replace(
    DEMO_DIRECT, name="demo-gentle", canary=(CanaryStep(share_bp=200, bake_s=5.0), *DEMO.canary)
)
STANDARD = Policy(
    name="standard",
    shadow=ShadowStage(
        sample_bp=2_000, pairs_min=5_000, bake_s=300.0, faulty_max=2, flips_bp_max=1_000
    ),
    canary=(
        CanaryStep(share_bp=500, bake_s=600.0),
        CanaryStep(share_bp=2_500, bake_s=600.0),
        CanaryStep(share_bp=5_000, bake_s=900.0),
    ),
    watch_s=3600.0,
    standby_bp=300,
    failure_bar=0.005,
    stage_s_max=8 * 3600.0,
    looks_max=36_000,
)
DRILL = Policy(
    name="drill",
    shadow=None,
    # The stay is longer than any drill: a bad version that is not found must not be promoted.
    canary=(CanaryStep(share_bp=1_000, bake_s=86_400.0),),
    watch_s=86_400.0,
    standby_bp=500,
    failure_bar=0.005,
    preload_s_max=60.0,
    stage_s_max=3_600.0,
)

POLICIES: dict[str, Policy] = {
    policy.name: policy for policy in (DEMO, DEMO_DIRECT, DEMO_GENTLE, STANDARD, DRILL)
}
