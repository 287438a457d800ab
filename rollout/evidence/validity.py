"""Checks whether the comparison of two arms is fair. A failed check holds and never rolls back."""

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
"""Threshold of the alarm on production's failures: one false alarm in a million seconds."""
BASELINE_ALARM_S = 30
"""How long after its newest alarm nothing is compared with the baseline."""
ORDINARY_KEYS_MIN = 1_000
SKEW_ROWS_MIN = 200
SKEW_RATIO = 3.0
SKEW_RATE = 0.05
"""Missing features of a canary hold when they are SKEW_RATIO times as frequent as those of
production and this much more frequent."""
SKEW_LOG_E = math.log(1e4)


@dataclass(slots=True)
class SplitCount:
    """New keys of this stage by arm, and the share with which the split assigns them."""

    canary: int = 0
    baseline: int = 0
    share: float = 0.0

    @property
    def log_e(self) -> float:
        """Ln of the evidence that the split does not assign keys by the configured share."""
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
    """Rows of one arm in this stage, and how many had missing or degraded features."""

    rows: int = 0
    missing: int = 0
    degraded: int = 0

    def add_windows(self, windows: Sequence[window_pb2.Window]) -> None:
        """Add the windows of one second."""
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
    """Counts for the checks: the split, production's own failures, and missing features."""

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
    """Unix second of the newest alarm on production's failures; 0: none."""
    newest_second: int = 0

    def __post_init__(self) -> None:
        self.counted_keys = KeySample(self.keys_max)

    def enter_stage(self) -> None:
        """Count both arms anew, because the share changes."""
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
        """Count one second.

        current  whether it belongs to the rollout's revision. Keys of older revisions are
                 remembered, so that they do not count as new ones later.
        """
        self.newest_second = second
        canary_keys, baseline_keys = self.counted_keys.count_new(
            candidate.seen_keys_listed, baseline.seen_keys_listed
        )
        if current:
            self.split_count.share = share
            self.split_count.canary += canary_keys
            self.split_count.baseline += baseline_keys
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
        # Failures during an outage must not become the ordinary rate.
        if not self._baseline_alarmed:
            self.ordinary_keys += total
            self.ordinary_failed += failed

    @property
    def failure_rate_max(self) -> float:
        """The highest ordinary rate of production's failing keys in a second."""
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
        """Return what is wrong with the comparison, as texts for people."""
        reasons = []
        # The split.
        if self.split_count.log_e >= self.mismatch_log_threshold:
            total = self.split_count.canary + self.split_count.baseline
            e_value = math.exp(min(self.split_count.log_e, 700.0))
            reasons.append(
                f"the split draws {self.split_count.canary / total:.2%} of {total:,} new keys "
                f"for the candidate, and {self.split_count.share:.2%} is configured "
                f"(e = {e_value:.3g}): keys are lost or routed wrongly"
            )
        # Production's own failures.
        if self._baseline_alarmed:
            reasons.append(
                f"production itself fails on more than {self.failure_rate_max:.2%} of its keys "
                f"({self.newest_second - self.baseline_alarm_second} s ago): nothing can be "
                "compared with it"
            )
        # Features that one arm gets and the other does not.
        reasons += self._feature_skew_reason(
            "missing", self.canary_features.missing, self.baseline_features.missing
        )
        reasons += self._feature_skew_reason(
            "degraded", self.canary_features.degraded, self.baseline_features.degraded
        )
        return tuple(reasons)

    def _feature_skew_reason(self, what: str, canary: int, baseline: int) -> list[str]:
        rows, baseline_rows = self.canary_features.rows, self.baseline_features.rows
        if rows < SKEW_ROWS_MIN or baseline_rows < SKEW_ROWS_MIN:
            return []
        ordinary = baseline / baseline_rows
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
