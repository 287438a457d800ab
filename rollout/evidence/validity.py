"""Reasons not to trust what the arms show: none of them accuses, each of them holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from protos import window_pb2
from rollout.evidence.key_sample import KeySample
from rollout.evidence.records import ArmRecords
from stats.betting import log_e_above
from stats.detector import Detector, look
from stats.ratio import log_e_mismatch

DEGRADED_LOG_M = math.log(1e6)
"""Production's own failures: a false alarm in a million seconds."""
DEGRADED_S = 30
"""How long after its newest alarm a baseline counts as degraded."""
PAST_KEYS_MIN = 1_000
SKEW_ROWS_MIN = 200
SKEW_RATIO = 3.0
SKEW_RATE = 0.05
"""A canary's missing features: this much more of its rows, and this many times as often."""
SKEW_LOG_E = math.log(1e4)


@dataclass(slots=True)
class Met:
    """New keys of this stage by arm, and the share that was to draw them."""

    canary: int = 0
    baseline: int = 0
    share: float = 0.0

    @property
    def log_e(self) -> float:
        """Ln E against the configured share."""
        if not 0.0 < self.share < 1.0:
            return 0.0
        return log_e_mismatch(self.canary, self.baseline, self.share)


@dataclass(slots=True)
class Lacking:
    """Rows whose features were not what the model asks for, of one arm in this stage."""

    rows: int = 0
    missing: int = 0
    degraded: int = 0

    def take(self, windows: Sequence[window_pb2.Window]) -> None:
        """Add a second's windows."""
        for window in windows:
            self.rows += window.rows
            self.missing += window.features.missing
            self.degraded += window.features.degraded


@dataclass(slots=True)
class Doubts:
    """What is counted to see whether the comparison is a fair one."""

    keys_max: int
    failure_bar: float
    log_mismatch: float
    sample: KeySample = field(init=False)
    met: Met = field(default_factory=Met)
    canary: Lacking = field(default_factory=Lacking)
    baseline: Lacking = field(default_factory=Lacking)
    detector: Detector = field(default_factory=Detector)
    past_keys: int = 0
    past_failed: int = 0
    degraded_second: int = 0
    """When production's failures last raised the alarm; 0: never."""
    second: int = 0

    def __post_init__(self) -> None:
        self.sample = KeySample(self.keys_max)

    def enter_stage(self) -> None:
        """Count the arms anew: the share changes."""
        self.met, self.canary, self.baseline = Met(), Lacking(), Lacking()

    def take(
        self,
        second: int,
        candidate: ArmRecords,
        baseline: ArmRecords,
        share: float,
        *,
        current: bool,
    ) -> None:
        """Count one second; keys of older revisions are only remembered."""
        self.second = second
        mine, others = self.sample.count(candidate.met_listed, baseline.met_listed)
        if current:
            self.met.share = share
            self.met.canary += mine
            self.met.baseline += others
            self.canary.take(candidate.windows)
            self.baseline.take(baseline.windows)
        self._look_at_baseline(baseline)

    def _look_at_baseline(self, baseline: ArmRecords) -> None:
        total = len(baseline.met)
        if not total:
            return
        failed = len(baseline.kept(baseline.failed))
        self.detector = look(self.detector, self.failure_rate_max, failed, total)
        if self.detector.log_m >= DEGRADED_LOG_M:
            self.detector, self.degraded_second = Detector(), self.second
        if not self._degraded:  # an outage must not become the measure of what is ordinary
            self.past_keys += total
            self.past_failed += failed

    @property
    def failure_rate_max(self) -> float:
        """Production's failing keys a second, as a rate, that are still ordinary."""
        if self.past_keys < PAST_KEYS_MIN:
            return self.failure_bar
        return min(max(self.failure_bar, 2.0 * self.past_failed / self.past_keys), 0.9)

    @property
    def _degraded(self) -> bool:
        return bool(self.degraded_second) and self.second - self.degraded_second <= DEGRADED_S

    def reasons(self) -> tuple[str, ...]:
        """Return what is wrong with the comparison, in words."""
        found = []
        if self.met.log_e >= self.log_mismatch:
            total = self.met.canary + self.met.baseline
            found.append(
                f"the split draws {self.met.canary / total:.2%} of {total:,} new keys for the "
                f"candidate, and {self.met.share:.2%} is configured (e = "
                f"{math.exp(min(self.met.log_e, 700.0)):.3g}): keys are lost or routed wrongly"
            )
        if self._degraded:
            found.append(
                f"production itself fails on more than {self.failure_rate_max:.2%} of its keys "
                f"({self.second - self.degraded_second} s ago): nothing can be compared with it"
            )
        found += self._skewed("missing", self.canary.missing, self.baseline.missing)
        found += self._skewed("degraded", self.canary.degraded, self.baseline.degraded)
        return tuple(found)

    def _skewed(self, what: str, canary: int, baseline: int) -> list[str]:
        rows, others = self.canary.rows, self.baseline.rows
        if rows < SKEW_ROWS_MIN or others < SKEW_ROWS_MIN:
            return []
        ordinary = baseline / others
        bound = max(SKEW_RATIO * ordinary, ordinary + SKEW_RATE)
        if bound >= 1.0 or canary <= bound * rows:
            return []
        if log_e_above(ordinary + SKEW_RATE, canary, max(rows - canary, 0)) < SKEW_LOG_E:
            return []
        return [
            f"features are {what} on {canary / rows:.1%} of the candidate's rows and on "
            f"{ordinary:.1%} of production's: the arms are not given the same"
        ]
