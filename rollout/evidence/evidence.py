"""What closed windows say about a candidate: each key's first event, once, by arm.

The unit is the sticky key, which is what the split draws. Counting every call of a key that
always fails would accuse 12.6 % of healthy rollouts at a nominal 1 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from protos import rollout_pb2, window_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.inbox import ClosedSecond
from rollout.evidence.key_sample import KeySample, pack_keys, unpack_keys
from rollout.evidence.latency import LatencyEvidence, LatencyMargin
from rollout.evidence.metric_test import MetricTest, tilt_from_proto, tilt_to_proto
from rollout.evidence.outcomes import good_outcome_keys
from rollout.evidence.prediction import PredictionEvidence
from rollout.evidence.records import METRIC_BY_NAME, ArmRecords
from rollout.evidence.shadow_pairs import ShadowPairs, joint_counts
from rollout.evidence.validity import ValidityChecks
from rollout.policy.policy import Policy
from rollout.policy.stages import Stage, StagePosition, share_bp_at
from stats import tilt
from stats.rate import log_e_below

PREDICTION, OUTCOME = "prediction", "outcome"


@dataclass(frozen=True, slots=True)
class ArmPair:
    """Which arms are compared at a place, and the candidate's configured share of the two."""

    candidate: int
    baseline: int
    share: float


def arm_pair_at(position: StagePosition, policy: Policy) -> ArmPair | None:
    """Return the arms compared at *place*; None where the split draws no candidate."""
    share = share_bp_at(position, policy) / 10_000
    if position.stage == Stage.CANARY:
        return ArmPair(window_pb2.ARM_CANARY, window_pb2.ARM_PRODUCTION, share)
    if position.stage == Stage.WATCH:
        return ArmPair(window_pb2.ARM_PRODUCTION, window_pb2.ARM_STANDBY, share)
    return None


@dataclass(slots=True)
class StageCounts:
    """What this stage alone has shown; promotion rests on nothing older."""

    non_inferiority: tilt.TiltState
    clean_keys: set[int] = field(default_factory=set)
    """Candidate keys with a good answer, of those the gateways keep."""
    baseline_clean_keys: set[int] = field(default_factory=set)
    failed_keys: set[int] = field(default_factory=set)
    """Keys with an error-like event, of either arm."""
    failed_in_sample: int = 0
    """Candidate keys among *failed* that the gateways keep: comparable with *clean*."""
    shadow: ShadowPairs = field(default_factory=ShadowPairs)

    def to_proto(self) -> rollout_pb2.StageEvidenceState:
        """Return the counts of this stage for a checkpoint."""
        return rollout_pb2.StageEvidenceState(
            non_inferiority=tilt_to_proto(self.non_inferiority),
            clean_keys=pack_keys(self.clean_keys),
            baseline_clean_keys=pack_keys(self.baseline_clean_keys),
            failed_keys=pack_keys(self.failed_keys),
            failed_in_sample=self.failed_in_sample,
            shadow=self.shadow.to_proto(),
        )

    @staticmethod
    def from_proto(message: rollout_pb2.StageEvidenceState) -> "StageCounts":
        """Restore the counts of a stage."""
        return StageCounts(
            tilt_from_proto(message.non_inferiority),
            clean_keys=unpack_keys(message.clean_keys),
            baseline_clean_keys=unpack_keys(message.baseline_clean_keys),
            failed_keys=unpack_keys(message.failed_keys),
            failed_in_sample=message.failed_in_sample,
            shadow=ShadowPairs.from_proto(message.shadow),
        )


@dataclass(slots=True)
class CallTotals:
    """Calls, for people to read."""

    canary: int = 0
    production: int = 0
    shadow_pairs: int = 0
    fallbacks: int = 0
    failed: int = 0

    def to_proto(self) -> rollout_pb2.CallTotals:
        """Return the totals as a status shows them."""
        return rollout_pb2.CallTotals(
            canary=self.canary,
            production=self.production,
            shadow_pairs=self.shadow_pairs,
            fallbacks=self.fallbacks,
            failed=self.failed,
        )

    @staticmethod
    def from_proto(message: rollout_pb2.CallTotals) -> "CallTotals":
        """Restore the totals from a status."""
        return CallTotals(
            canary=message.canary,
            production=message.production,
            shadow_pairs=message.shadow_pairs,
            fallbacks=message.fallbacks,
            failed=message.failed,
        )


class Evidence:
    """Everything counted for one rollout. Pure; sums only, so any order inside a second is one.

    shift  how the candidate's scores were approved to differ; None: not at all.
    """

    def __init__(
        self, version: str, baseline: str, policy: Policy, shift: ApprovedShift | None = None
    ) -> None:
        self._version = version
        self._baseline = baseline
        self.policy = policy
        self.latency = LatencyEvidence(
            policy.keys_max,
            policy.looks_max,
            _latency_margin(policy),
        )
        self.prediction = PredictionEvidence(
            shift, policy.psi_min, policy.keys_max, policy.looks_max
        )
        self.validity = ValidityChecks(
            policy.keys_max, policy.failure_bar, policy.mismatch_log_threshold
        )
        self.metrics = {
            name: MetricTest(tilt.start_tilt(tilt.MORE_EVENTS)) for name in METRIC_BY_NAME
        }
        self.metrics |= self.latency.metrics
        self.metrics[OUTCOME] = MetricTest(
            tilt.start_tilt(tilt.FEWER_EVENTS),
            grid=tilt.FEWER_EVENTS,
            counted_keys=KeySample(policy.keys_max),
        )
        """Two arms, one event a key; prediction stands beside them."""
        self._non_inferiority_grid = tilt.non_inferior(policy.worse_ratio_max)
        self.stage = StageCounts(tilt.start_tilt(self._non_inferiority_grid))
        self.totals = CallTotals()
        self.canary_keys = 0
        """Candidate keys with a good answer, a key once a stage."""
        self.baseline_keys = 0

    def enter_stage(self) -> None:
        """Begin a new stage: rollback evidence stays, promotion evidence starts again."""
        self.stage = StageCounts(tilt.start_tilt(self._non_inferiority_grid))
        self.latency.enter_stage()
        self.prediction.enter_stage()
        self.validity.enter_stage()

    def count_second(self, second: ClosedSecond, position: StagePosition, *, current: bool) -> None:
        """Count one closed second of the revision that stood at *place*.

        current  whether the rollout still stands there: only then does it count for promotion.
        """
        self.add_totals(second)
        arms = arm_pair_at(position, self.policy)
        shadow, candidate, baseline, told = self._windows_by_arm(second, arms)
        if current and shadow:
            self.stage.shadow.add_pairs(shadow, self.policy.shadow)
            self.prediction.add_shadow_pairs(joint_counts(shadow))
        if arms is None:
            return
        if told:
            self._count_outcomes(told, arms.share)
        if candidate or baseline:
            records = ArmRecords(candidate), ArmRecords(baseline)
            self._compare(second.second, position, *records, arms.share, current=current)
            if current:
                self._count_stage(*records, arms.share)

    def _windows_by_arm(
        self, second: ClosedSecond, arms: ArmPair | None
    ) -> tuple[list[window_pb2.Window], ...]:
        """Return the windows of the shadow, of the candidate, of the baseline, and of outcomes."""
        shadow, candidate, baseline, outcomes = [], [], [], []
        for window in second.windows:
            arm = window.arm
            if arm == window_pb2.ARM_UNSPECIFIED:
                outcomes.append(window)
            elif arm == window_pb2.ARM_SHADOW:
                if window.version == self._version:
                    shadow.append(window)
            elif arms is None:
                continue
            elif arm == arms.candidate and window.version == self._version:
                candidate.append(window)
            elif arm == arms.baseline and window.version == self._baseline:
                baseline.append(window)
        return shadow, candidate, baseline, outcomes

    def _compare(
        self,
        second: int,
        position: StagePosition,
        candidate: ArmRecords,
        baseline: ArmRecords,
        share: float,
        *,
        current: bool,
    ) -> None:
        looks_max, failed = self.policy.looks_max, candidate.failed_keys or baseline.failed_keys
        for name, metric in METRIC_BY_NAME.items():
            compared = self.metrics[name]
            if not failed:
                compared.idle()
            elif metric == window_pb2.METRIC_TIMEOUT:
                compared.count_batch_events(
                    candidate.batch_events_of(metric),
                    baseline.batch_events_of(metric),
                    share,
                    looks_max,
                )
            else:
                accused, others = (
                    candidate.event_keys.get(metric, ()),
                    baseline.event_keys.get(metric, ()),
                )
                compared.count_keys(accused, others, share, looks_max)
        self.latency.count_latencies(candidate, baseline, share, current=current)
        if position.stage == Stage.CANARY:
            self.prediction.count_scores(candidate)
        else:
            self.prediction.count_watch_scores(candidate, baseline, share)
        self.validity.check_second(second, candidate, baseline, share, current=current)

    def _count_outcomes(self, windows: Sequence[window_pb2.Window], share: float) -> None:
        """Count the good ones as they arrive, at the share their keys were drawn with.

        Under "the version changes neither outcome nor delay" each is the candidate's with that
        probability, however late it comes. A key counts once; outcomes only ever stop a rollout.
        """
        good = self.policy.outcome
        if good is None:
            return
        candidate, baseline = good_outcome_keys(windows, good, self._version, self._baseline)
        if candidate or baseline:
            metric = self.metrics[OUTCOME]
            metric.count_keys(candidate, baseline, share, self.policy.looks_max)

    def _count_stage(self, candidate: ArmRecords, baseline: ArmRecords, share: float) -> None:
        stage = self.stage
        if candidate.failed_keys or baseline.failed_keys:
            accused = candidate.failed_keys - stage.failed_keys
            others = baseline.failed_keys - stage.failed_keys - accused
            stage.failed_keys |= accused
            stage.failed_keys |= others
            stage.failed_in_sample += len(candidate.in_key_sample(accused))
            stage.non_inferiority = tilt.step_tilt(
                self._non_inferiority_grid, stage.non_inferiority, len(accused), len(others), share
            )
        else:
            stage.non_inferiority = tilt.idle_tilt(stage.non_inferiority)
        self.canary_keys += self._add_clean(stage.clean_keys, candidate)
        self.baseline_keys += self._add_clean(stage.baseline_clean_keys, baseline)

    def _add_clean(self, clean: set[int], arm: ArmRecords) -> int:
        room = self.policy.keys_max - len(clean)
        if room <= 0 or not arm.scored_keys:
            return 0
        good, failed = arm.scored_keys, self.stage.failed_keys
        if not good.isdisjoint(failed):
            good = good - failed
        if len(good) > room:  # the smallest, so that the order of arrival does not matter
            good = set(sorted(good - clean)[:room])
        before = len(clean)
        clean |= good
        return len(clean) - before

    def add_totals(self, second: ClosedSecond) -> None:
        """Count calls, for people to read."""
        for window in second.windows:
            self._add_calls(window)

    def _add_calls(self, window: window_pb2.Window) -> None:
        arm, calls, totals = window.arm, window.calls, self.totals
        if arm == window_pb2.ARM_UNSPECIFIED:
            return
        failed = calls.faulty + calls.nan + calls.late
        if arm == window_pb2.ARM_CANARY:
            totals.canary += calls.answered
            totals.fallbacks += calls.fallbacks
            totals.failed += max(0, failed - calls.fallbacks)
        elif arm in (window_pb2.ARM_PRODUCTION, window_pb2.ARM_STANDBY):
            totals.production += calls.answered
            totals.failed += failed
        elif arm == window_pb2.ARM_SHADOW:
            totals.shadow_pairs += window.pairs.pairs

    @property
    def failure_bar_log_e(self) -> float:
        """Ln of the evidence, from this stage, that fewer keys fail than the policy's bar."""
        return log_e_below(
            self.policy.failure_bar, len(self.stage.clean_keys), self.stage.failed_in_sample
        )

    @property
    def promote_log_e(self) -> float:
        """The better of the two ways to be promoted."""
        return max(self.failure_bar_log_e, self.stage.non_inferiority.log_e)

    def to_proto(self) -> rollout_pb2.EvidenceState:
        """Return everything but `totals`, which a status carries, for a checkpoint."""
        return rollout_pb2.EvidenceState(
            metrics=[
                metric.to_proto(name)
                for name, metric in self.metrics.items()
                if name not in self.latency.metrics
            ],
            latency=self.latency.to_proto(),
            prediction=self.prediction.to_proto(),
            validity=self.validity.to_proto(),
            stage=self.stage.to_proto(),
            canary_keys=self.canary_keys,
            baseline_keys=self.baseline_keys,
        )

    @staticmethod
    def from_proto(
        message: rollout_pb2.EvidenceState,
        version: str,
        baseline: str,
        policy: Policy,
        shift: ApprovedShift | None,
    ) -> "Evidence":
        """Restore the evidence of the rollout that has these versions, policy and shift."""
        evidence = Evidence(version, baseline, policy, shift)
        evidence.latency = LatencyEvidence.from_proto(
            message.latency, policy.keys_max, policy.looks_max, _latency_margin(policy)
        )
        evidence.prediction = PredictionEvidence.from_proto(
            message.prediction, shift, policy.psi_min, policy.keys_max, policy.looks_max
        )
        evidence.validity = ValidityChecks.from_proto(
            message.validity, policy.keys_max, policy.failure_bar, policy.mismatch_log_threshold
        )
        for metric in message.metrics:
            fresh = evidence.metrics[metric.metric]
            evidence.metrics[metric.metric] = MetricTest.from_proto(
                metric, fresh.grid, fresh.counted_keys.keys_max
            )
        evidence.metrics |= evidence.latency.metrics
        evidence.stage = StageCounts.from_proto(message.stage)
        evidence.canary_keys = message.canary_keys
        evidence.baseline_keys = message.baseline_keys
        return evidence


def _latency_margin(policy: Policy) -> LatencyMargin:
    return LatencyMargin(policy.latency_margin, policy.latency_floor_us * 1e3)
