"""Counts what closed windows show about a candidate, compared with its baseline.

The unit of evidence is the sticky key, because the split assigns keys and not calls: each key
counts once for each metric, at its first event. Counting every call of a key that always fails
would roll back 12.6 % of healthy rollouts at a nominal 1 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from protos import rollout_pb2, window_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.inbox import ClosedSecond
from rollout.evidence.key_sample import KeySample, pack_keys, unpack_keys
from rollout.evidence.latency import LatencyEvidence, LatencyMargin
from rollout.evidence.metric_test import MetricTest, tilt_from_proto, tilt_to_proto
from rollout.evidence.outcome_callers import OutcomeCallers
from rollout.evidence.prediction import PredictionEvidence
from rollout.evidence.records import METRIC_BY_NAME, ArmRecords, good_outcome_keys
from rollout.evidence.shadow_pairs import ShadowPairs, joint_counts
from rollout.evidence.validity import ValidityChecks
from rollout.policy.policy import Policy
from rollout.policy.stages import Stage, StagePosition, share_bp_at
from stats import tilt
from stats.rate import log_e_below

PREDICTION, OUTCOME = "prediction", "outcome"


@dataclass(frozen=True, slots=True)
class ArmPair:
    """The two arms that are compared, and the candidate's configured share of both, 0 to 1."""

    candidate: int
    baseline: int
    share: float


def arm_pair_at(position: StagePosition, policy: Policy) -> ArmPair | None:
    """Return the arms compared at *position*; None where the split gives the candidate no keys."""
    share = share_bp_at(position, policy) / 10_000
    if position.stage == Stage.CANARY:
        return ArmPair(window_pb2.ARM_CANARY, window_pb2.ARM_PRODUCTION, share)
    if position.stage == Stage.WATCH:
        return ArmPair(window_pb2.ARM_PRODUCTION, window_pb2.ARM_STANDBY, share)
    return None


@dataclass(slots=True)
class StageCounts:
    """The evidence of the current stage alone. Promotion uses nothing older."""

    non_inferiority: tilt.TiltState
    clean_keys: set[int] = field(default_factory=set)
    """Candidate keys with a good answer, of the keys in the gateways' sample."""
    baseline_clean_keys: set[int] = field(default_factory=set)
    failed_keys: set[int] = field(default_factory=set)
    """Keys of either arm with an error, a bad output or a timeout."""
    failed_in_sample: int = 0
    """Candidate keys in `failed_keys` that are in the gateways' sample, as `clean_keys` are."""
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
    """Calls of the whole rollout, for people to read. No verdict depends on them."""

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
    """All evidence of one rollout.

    Pure. Everything in it is a sum or a set, so the order of windows within a second does not
    matter.

    shift  how the candidate's scores were approved to differ; None: no difference was approved.
    """

    def __init__(
        self, version: str, baseline: str, policy: Policy, shift: ApprovedShift | None = None
    ) -> None:
        self._version = version
        self._baseline = baseline
        self.policy = policy
        self.latency = LatencyEvidence(policy.keys_max, policy.looks_max, _latency_margin(policy))
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
        """Every metric that compares events of two arms. `prediction` is not one of them."""
        self.outcome_callers = OutcomeCallers()
        self._non_inferiority_grid = tilt.non_inferior(policy.worse_ratio_max)
        self.stage = StageCounts(tilt.start_tilt(self._non_inferiority_grid))
        self.totals = CallTotals()
        self.canary_keys = 0
        """Candidate keys with a good answer, each counted once a stage."""
        self.baseline_keys = 0

    def enter_stage(self) -> None:
        """Begin a new stage. Evidence for a rollback stays; evidence for promotion begins anew."""
        self.stage = StageCounts(tilt.start_tilt(self._non_inferiority_grid))
        self.latency.enter_stage()
        self.prediction.enter_stage()
        self.validity.enter_stage()

    def count_second(self, second: ClosedSecond, position: StagePosition, *, current: bool) -> None:
        """Count one closed second.

        position  the rollout's position at the second's revision.
        current   whether that is still the rollout's revision. Only then the second counts for
                  promotion.
        """
        self.add_totals(second)
        arms = arm_pair_at(position, self.policy)
        shadow, candidate, baseline, outcomes = self._windows_by_arm(second, arms)
        if current and shadow:
            self.stage.shadow.add_pairs(shadow, self.policy.shadow)
            self.prediction.learn_outputs(shadow)
            self.prediction.add_shadow_pairs(joint_counts(shadow))
        if arms is None:
            return
        if outcomes:
            self._count_outcomes(outcomes, arms.share)
        if candidate or baseline:
            records = ArmRecords(candidate), ArmRecords(baseline)
            self._compare(second.second, position, *records, arms.share, current=current)
            if current:
                self._count_stage(*records, arms.share)

    def _windows_by_arm(
        self, second: ClosedSecond, arms: ArmPair | None
    ) -> tuple[list[window_pb2.Window], ...]:
        """Return the windows of the shadow, the candidate, the baseline, and outcomes."""
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
        """Count one second in every test that may roll back or hold."""
        looks_max, any_failed = self.policy.looks_max, candidate.failed_keys or baseline.failed_keys
        # Errors, bad outputs and timeouts.
        for name, metric in METRIC_BY_NAME.items():
            metric_test = self.metrics[name]
            if not any_failed:
                metric_test.idle()
            elif metric == window_pb2.METRIC_TIMEOUT:
                metric_test.count_batch_events(
                    candidate.batch_events_of(metric),
                    baseline.batch_events_of(metric),
                    share,
                    looks_max,
                )
            else:
                candidate_keys = candidate.event_keys.get(metric, ())
                baseline_keys = baseline.event_keys.get(metric, ())
                metric_test.count_keys(candidate_keys, baseline_keys, share, looks_max)
        # Latencies, and scores. Production scores the rows of a canary too; in the watch the two
        # arms have different rows.
        self.latency.count_latencies(candidate, baseline, share, current=current)
        if position.stage == Stage.CANARY:
            self.prediction.count_scores(candidate)
        else:
            self.prediction.count_watch_scores(candidate, baseline, share)
        # Whether the comparison itself is fair.
        self.validity.check_second(second, candidate, baseline, share, current=current)

    def _count_outcomes(self, windows: Sequence[window_pb2.Window], share: float) -> None:
        """Count keys with a good outcome, at the share with which the split assigned them.

        If the version changes neither the outcome nor its delay, each good outcome belongs to the
        candidate with probability *share*, however late it is reported. Outcomes can roll back and
        never promote, and no caller's reports alone roll back.
        """
        good = self.policy.outcome
        if good is None:
            return
        reports = good_outcome_keys(windows, good, self._version, self._baseline)
        if reports:
            self.outcome_callers.count(self.metrics[OUTCOME], reports, share, self.policy.looks_max)

    def _count_stage(self, candidate: ArmRecords, baseline: ArmRecords, share: float) -> None:
        """Count one second for promotion: failed keys first, then clean keys."""
        stage = self.stage
        if candidate.failed_keys or baseline.failed_keys:
            # A key that failed in both arms counts for the candidate.
            candidate_failed = candidate.failed_keys - stage.failed_keys
            baseline_failed = baseline.failed_keys - stage.failed_keys - candidate_failed
            stage.failed_keys |= candidate_failed
            stage.failed_keys |= baseline_failed
            stage.failed_in_sample += len(candidate.in_key_sample(candidate_failed))
            stage.non_inferiority = tilt.step_tilt(
                self._non_inferiority_grid,
                stage.non_inferiority,
                len(candidate_failed),
                len(baseline_failed),
                share,
            )
        else:
            stage.non_inferiority = tilt.idle_tilt(stage.non_inferiority)
        self.canary_keys += self._add_clean_keys(stage.clean_keys, candidate)
        self.baseline_keys += self._add_clean_keys(stage.baseline_clean_keys, baseline)

    def _add_clean_keys(self, clean_keys: set[int], arm: ArmRecords) -> int:
        """Add the arm's scored keys that have not failed. Return how many are new."""
        space = self.policy.keys_max - len(clean_keys)
        if space <= 0 or not arm.scored_keys:
            return 0
        good_keys, failed_keys = arm.scored_keys, self.stage.failed_keys
        if not good_keys.isdisjoint(failed_keys):
            good_keys = good_keys - failed_keys
        # With too many keys the smallest are taken, so that the order of arrival does not matter.
        if len(good_keys) > space:
            good_keys = set(sorted(good_keys - clean_keys)[:space])
        before = len(clean_keys)
        clean_keys |= good_keys
        return len(clean_keys) - before

    def add_totals(self, second: ClosedSecond) -> None:
        """Add the calls of a closed second to `totals`."""
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
        """Ln of this stage's evidence that fewer keys fail than the policy's failure bar."""
        return log_e_below(
            self.policy.failure_bar, len(self.stage.clean_keys), self.stage.failed_in_sample
        )

    @property
    def promote_log_e(self) -> float:
        """Ln of the evidence for promotion: the failure bar or non-inferiority, the larger one."""
        return max(self.failure_bar_log_e, self.stage.non_inferiority.log_e)

    def to_proto(self) -> rollout_pb2.EvidenceState:
        """Return everything for a checkpoint, except `totals`, which are in the status."""
        return rollout_pb2.EvidenceState(
            metrics=[
                metric_test.to_proto(name)
                for name, metric_test in self.metrics.items()
                if name not in self.latency.metrics
            ],
            latency=self.latency.to_proto(),
            prediction=self.prediction.to_proto(),
            validity=self.validity.to_proto(),
            stage=self.stage.to_proto(),
            canary_keys=self.canary_keys,
            baseline_keys=self.baseline_keys,
            outcome_callers=self.outcome_callers.to_proto(),
        )

    @staticmethod
    def from_proto(
        message: rollout_pb2.EvidenceState,
        version: str,
        baseline: str,
        policy: Policy,
        shift: ApprovedShift | None,
    ) -> "Evidence":
        """Restore the evidence of a rollout with these versions, policy and shift."""
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
        # The latency tests are shared: `latency` counts in them, `metrics` shows them.
        evidence.metrics |= evidence.latency.metrics
        evidence.outcome_callers = OutcomeCallers.from_proto(message.outcome_callers)
        evidence.stage = StageCounts.from_proto(message.stage)
        evidence.canary_keys = message.canary_keys
        evidence.baseline_keys = message.baseline_keys
        return evidence


def _latency_margin(policy: Policy) -> LatencyMargin:
    return LatencyMargin(policy.latency_margin, policy.latency_floor_us * 1e3)
