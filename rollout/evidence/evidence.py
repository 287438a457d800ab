"""What closed windows say about a candidate: each key's first event, once, by arm.

The unit is the sticky key, which is what the split draws. Counting every call of a key that
always fails would accuse 12.6 % of healthy rollouts at a nominal 1 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from protos import window_pb2
from rollout.evidence.approved_shift import Shift
from rollout.evidence.inbox import Second
from rollout.evidence.key_sample import KeySample
from rollout.evidence.latency import LatencyEvidence, Margin
from rollout.evidence.metric_test import Compared
from rollout.evidence.outcomes import good_keys
from rollout.evidence.prediction import PredictionEvidence
from rollout.evidence.records import METRIC_OF, ArmRecords
from rollout.evidence.shadow_pairs import ShadowPairs, joint_of
from rollout.evidence.validity import Doubts
from rollout.policy.policy import Policy
from rollout.policy.stages import Place, Stage, share_bp
from stats import tilt
from stats.rate import log_e_below

RELATIVE = "relative"
"""The name under which the non-inferiority test of this stage is kept."""
PREDICTION, OUTCOME = "prediction", "outcome"


@dataclass(frozen=True, slots=True)
class Arms:
    """Which arms are compared at a place, and the candidate's configured share of the two."""

    candidate: int
    baseline: int
    share: float


def arms_at(place: Place, policy: Policy) -> Arms | None:
    """Return the arms compared at *place*; None where the split draws no candidate."""
    share = share_bp(place, policy) / 10_000
    if place.stage == Stage.CANARY:
        return Arms(window_pb2.ARM_CANARY, window_pb2.ARM_PRODUCTION, share)
    if place.stage == Stage.WATCH:
        return Arms(window_pb2.ARM_PRODUCTION, window_pb2.ARM_STANDBY, share)
    return None


@dataclass(slots=True)
class StageCounts:
    """What this stage alone has shown; promotion rests on nothing older."""

    relative: tilt.TiltState
    clean: set[int] = field(default_factory=set)
    """Candidate keys with a good answer, of those the gateways keep."""
    baseline_clean: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    """Keys with an error-like event, of either arm."""
    failed_kept: int = 0
    """Candidate keys among *failed* that the gateways keep: comparable with *clean*."""
    shadow: ShadowPairs = field(default_factory=ShadowPairs)


@dataclass(slots=True)
class Totals:
    """Calls, for people to read."""

    canary: int = 0
    production: int = 0
    shadow_pairs: int = 0
    fallen_back: int = 0
    failed: int = 0


class Evidence:
    """Everything counted for one rollout. Pure; sums only, so any order inside a second is one.

    shift  how the candidate's scores were approved to differ; None: not at all.
    """

    def __init__(
        self, version: str, baseline: str, policy: Policy, shift: Shift | None = None
    ) -> None:
        self._version = version
        self._baseline = baseline
        self.policy = policy
        self.latency = LatencyEvidence(
            policy.keys_max,
            policy.looks_max,
            Margin(policy.latency_margin, policy.latency_floor_us * 1e3),
        )
        self.prediction = PredictionEvidence(
            shift, policy.psi_min, policy.keys_max, policy.looks_max
        )
        self.doubts = Doubts(policy.keys_max, policy.failure_bar, policy.mismatch_log_threshold)
        self.metrics = {name: Compared(tilt.start(tilt.WORSE)) for name in METRIC_OF}
        self.metrics |= self.latency.metrics
        self.metrics[OUTCOME] = Compared(
            tilt.start(tilt.LESS), grid=tilt.LESS, sample=KeySample(policy.keys_max)
        )
        """Two arms, one event a key; prediction stands beside them."""
        self._non_inferior = tilt.non_inferior(policy.worse_ratio_max)
        self.stage = StageCounts(tilt.start(self._non_inferior))
        self.totals = Totals()
        self.canary_keys = 0
        """Candidate keys with a good answer, a key once a stage."""
        self.baseline_keys = 0

    def enter_stage(self) -> None:
        """Begin a new stage: rollback evidence stays, promotion evidence starts again."""
        self.stage = StageCounts(tilt.start(self._non_inferior))
        self.latency.enter_stage()
        self.prediction.enter_stage()
        self.doubts.enter_stage()

    def take(self, second: Second, place: Place, *, current: bool) -> None:
        """Count one closed second of the revision that stood at *place*.

        current  whether the rollout still stands there: only then does it count for promotion.
        """
        self.add_totals(second)
        arms = arms_at(place, self.policy)
        shadow, candidate, baseline, told = self._sorted(second, arms)
        if current and shadow:
            self.stage.shadow.take(shadow, self.policy.shadow)
            self.prediction.take_shadow(joint_of(shadow))
        if arms is None:
            return
        if told:
            self._take_outcomes(told, arms.share)
        if candidate or baseline:
            records = ArmRecords(candidate), ArmRecords(baseline)
            self._compare(second.second, place, *records, arms.share, current=current)
            if current:
                self._count_stage(*records, arms.share)

    def _sorted(self, second: Second, arms: Arms | None) -> tuple[list[window_pb2.Window], ...]:
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
        place: Place,
        candidate: ArmRecords,
        baseline: ArmRecords,
        share: float,
        *,
        current: bool,
    ) -> None:
        looks_max, failed = self.policy.looks_max, candidate.failed or baseline.failed
        for name, metric in METRIC_OF.items():
            compared = self.metrics[name]
            if not failed:
                compared.idle()
            elif metric == window_pb2.METRIC_TIMEOUT:
                compared.take_shared(
                    candidate.shared(metric), baseline.shared(metric), share, looks_max
                )
            else:
                accused, others = candidate.events.get(metric, ()), baseline.events.get(metric, ())
                compared.take(accused, others, share, looks_max)
        self.latency.take(candidate, baseline, share, current=current)
        if place.stage == Stage.CANARY:
            self.prediction.take(candidate)
        else:
            self.prediction.take_watched(candidate, baseline, share)
        self.doubts.take(second, candidate, baseline, share, current=current)

    def _take_outcomes(self, windows: Sequence[window_pb2.Window], share: float) -> None:
        """Count the good ones as they arrive, at the share their keys were drawn with.

        Under "the version changes neither outcome nor delay" each is the candidate's with that
        probability, however late it comes. A key counts once; outcomes only ever stop a rollout.
        """
        good = self.policy.outcome
        if good is None:
            return
        candidate, baseline = good_keys(windows, good, self._version, self._baseline)
        if candidate or baseline:
            metric = self.metrics[OUTCOME]
            metric.take(candidate, baseline, share, self.policy.looks_max)

    def _count_stage(self, candidate: ArmRecords, baseline: ArmRecords, share: float) -> None:
        stage = self.stage
        if candidate.failed or baseline.failed:
            accused = candidate.failed - stage.failed
            others = baseline.failed - stage.failed - accused
            stage.failed |= accused
            stage.failed |= others
            stage.failed_kept += len(candidate.kept(accused))
            stage.relative = tilt.step(
                self._non_inferior, stage.relative, len(accused), len(others), share
            )
        else:
            stage.relative = tilt.idle(stage.relative)
        self.canary_keys += self._add_clean(stage.clean, candidate)
        self.baseline_keys += self._add_clean(stage.baseline_clean, baseline)

    def _add_clean(self, clean: set[int], arm: ArmRecords) -> int:
        room = self.policy.keys_max - len(clean)
        if room <= 0 or not arm.scored:
            return 0
        good, failed = arm.scored, self.stage.failed
        if not good.isdisjoint(failed):
            good = good - failed
        if len(good) > room:  # the smallest, so that the order of arrival does not matter
            good = set(sorted(good - clean)[:room])
        before = len(clean)
        clean |= good
        return len(clean) - before

    def add_totals(self, second: Second) -> None:
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
            totals.fallen_back += calls.fallen_back
            totals.failed += max(0, failed - calls.fallen_back)
        elif arm in (window_pb2.ARM_PRODUCTION, window_pb2.ARM_STANDBY):
            totals.production += calls.answered
            totals.failed += failed
        elif arm == window_pb2.ARM_SHADOW:
            totals.shadow_pairs += window.pairs.pairs

    @property
    def absolute_log_e(self) -> float:
        """Ln of the evidence, from this stage, that fewer keys fail than the policy's bar."""
        return log_e_below(self.policy.failure_bar, len(self.stage.clean), self.stage.failed_kept)

    @property
    def promote_log_e(self) -> float:
        """The better of the two ways to be promoted."""
        return max(self.absolute_log_e, self.stage.relative.log_e)
