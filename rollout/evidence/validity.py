"""Reasons not to trust what the arms show: none of them accuses, each of them holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from protos import rollout_pb2, window_pb2
from rollout.evidence.key_sample import KeySample
from rollout.evidence.records import ArmRecords
from stats.betting import log_e_above
from stats.detector import Detector, update_detector
from stats.ratio import log_e_mismatch

BASELINE_ALARM_LOG_M = math.log(1e6)
"""Production's own failures: a false alarm in a million seconds."""
BASELINE_ALARM_S = 30
"""How long after its newest alarm a baseline counts as degraded."""
ORDINARY_KEYS_MIN = 1_000
SKEW_ROWS_MIN = 200
SKEW_RATIO = 3.0
SKEW_RATE = 0.05
"""A canary's missing features: this much more of its rows, and this many times as often."""
SKEW_LOG_E = math.log(1e4)


@dataclass(slots=True)
class SplitCount:
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

    def to_proto(self) -> rollout_pb2.SplitCountState:
        """Return the counts for a checkpoint."""
        return rollout_pb2.SplitCountState(
            canary=self.canary, baseline=self.baseline, share=self.share
        )

    @staticmethod
    def from_proto(message: rollout_pb2.SplitCountState) -> "SplitCount":
        """Restore the counts."""
        return SplitCount(message.canary, message.baseline, message.share)


@dataclass(slots=True)
class MissingFeatures:
    """Rows whose features were not what the model asks for, of one arm in this stage."""

    rows: int = 0
    missing: int = 0
    degraded: int = 0

    def add_windows(self, windows: Sequence[window_pb2.Window]) -> None:
        """Add a second's windows."""
        for window in windows:
            self.rows += window.rows
            self.missing += window.features.missing
            self.degraded += window.features.degraded

    def to_proto(self) -> rollout_pb2.MissingFeaturesState:
        """Return the counts for a checkpoint."""
        return rollout_pb2.MissingFeaturesState(
            rows=self.rows, missing=self.missing, degraded=self.degraded
        )

    @staticmethod
    def from_proto(message: rollout_pb2.MissingFeaturesState) -> "MissingFeatures":
        """Restore the counts."""
        return MissingFeatures(message.rows, message.missing, message.degraded)


@dataclass(slots=True)
class ValidityChecks:
    """What is counted to see whether the comparison is a fair one."""

    keys_max: int
    failure_bar: float
    mismatch_log_threshold: float
    counted_keys: KeySample = field(init=False)
    split_count: SplitCount = field(default_factory=SplitCount)
    canary_features: MissingFeatures = field(default_factory=MissingFeatures)
    baseline_features: MissingFeatures = field(default_factory=MissingFeatures)
    detector: Detector = field(default_factory=Detector)
    ordinary_keys: int = 0
    ordinary_failed: int = 0
    baseline_alarm_second: int = 0
    """When production's failures last raised the alarm; 0: never."""
    newest_second: int = 0

    def __post_init__(self) -> None:
        self.counted_keys = KeySample(self.keys_max)

    def enter_stage(self) -> None:
        """Count the arms anew: the share changes."""
        self.split_count, self.canary_features, self.baseline_features = (
            SplitCount(),
            MissingFeatures(),
            MissingFeatures(),
        )

    def check_second(
        self,
        second: int,
        candidate: ArmRecords,
        baseline: ArmRecords,
        share: float,
        *,
        current: bool,
    ) -> None:
        """Count one second; keys of older revisions are only remembered."""
        self.newest_second = second
        mine, others = self.counted_keys.count_new(
            candidate.seen_keys_listed, baseline.seen_keys_listed
        )
        if current:
            self.split_count.share = share
            self.split_count.canary += mine
            self.split_count.baseline += others
            self.canary_features.add_windows(candidate.windows)
            self.baseline_features.add_windows(baseline.windows)
        self._check_baseline(baseline)

    def _check_baseline(self, baseline: ArmRecords) -> None:
        total = len(baseline.seen_keys)
        if not total:
            return
        failed = len(baseline.in_key_sample(baseline.failed_keys))
        self.detector = update_detector(self.detector, self.failure_rate_max, failed, total)
        if self.detector.log_m >= BASELINE_ALARM_LOG_M:
            self.detector, self.baseline_alarm_second = Detector(), self.newest_second
        if not self._baseline_alarmed:  # an outage must not become the measure of what is ordinary
            self.ordinary_keys += total
            self.ordinary_failed += failed

    @property
    def failure_rate_max(self) -> float:
        """Production's failing keys a second, as a rate, that are still ordinary."""
        if self.ordinary_keys < ORDINARY_KEYS_MIN:
            return self.failure_bar
        return min(max(self.failure_bar, 2.0 * self.ordinary_failed / self.ordinary_keys), 0.9)

    @property
    def _baseline_alarmed(self) -> bool:
        return (
            bool(self.baseline_alarm_second)
            and self.newest_second - self.baseline_alarm_second <= BASELINE_ALARM_S
        )

    def hold_reasons(self) -> tuple[str, ...]:
        """Return what is wrong with the comparison, in words."""
        found = []
        if self.split_count.log_e >= self.mismatch_log_threshold:
            total = self.split_count.canary + self.split_count.baseline
            found.append(
                f"the split draws {self.split_count.canary / total:.2%} of {total:,} new keys "
                "for the "
                f"candidate, and {self.split_count.share:.2%} is configured (e = "
                f"{math.exp(min(self.split_count.log_e, 700.0)):.3g}): keys are lost or routed "
                "wrongly"
            )
        if self._baseline_alarmed:
            found.append(
                f"production itself fails on more than {self.failure_rate_max:.2%} of its keys "
                f"({self.newest_second - self.baseline_alarm_second} s ago): nothing can be "
                "compared with it"
            )
        found += self._feature_skew_reason(
            "missing", self.canary_features.missing, self.baseline_features.missing
        )
        found += self._feature_skew_reason(
            "degraded", self.canary_features.degraded, self.baseline_features.degraded
        )
        return tuple(found)

    def _feature_skew_reason(self, what: str, canary: int, baseline: int) -> list[str]:
        rows, others = self.canary_features.rows, self.baseline_features.rows
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

    def to_proto(self) -> rollout_pb2.ValidityState:
        """Return counts and detector for a checkpoint."""
        return rollout_pb2.ValidityState(
            counted_keys=self.counted_keys.to_proto(),
            split_count=self.split_count.to_proto(),
            canary_features=self.canary_features.to_proto(),
            baseline_features=self.baseline_features.to_proto(),
            ordinary_keys=self.ordinary_keys,
            ordinary_failed=self.ordinary_failed,
            baseline_alarm_second=self.baseline_alarm_second,
            newest_second=self.newest_second,
            detector_log_m=self.detector.log_m,
        )

    @staticmethod
    def from_proto(
        message: rollout_pb2.ValidityState,
        keys_max: int,
        failure_bar: float,
        mismatch_log_threshold: float,
    ) -> "ValidityChecks":
        """Restore the checks; the other arguments come from the policy."""
        checks = ValidityChecks(
            keys_max,
            failure_bar,
            mismatch_log_threshold,
            split_count=SplitCount.from_proto(message.split_count),
            canary_features=MissingFeatures.from_proto(message.canary_features),
            baseline_features=MissingFeatures.from_proto(message.baseline_features),
            detector=Detector(message.detector_log_m),
            ordinary_keys=message.ordinary_keys,
            ordinary_failed=message.ordinary_failed,
            baseline_alarm_second=message.baseline_alarm_second,
            newest_second=message.newest_second,
        )
        checks.counted_keys = KeySample.from_proto(message.counted_keys, keys_max)
        return checks
