"""What closed windows say about a candidate: each key's first event, once, by arm.

The unit is the sticky key, which is what the split draws. Counting every call of a key that
always fails would accuse 12.6 % of healthy rollouts at a nominal 1 %.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from protos import window_pb2
from rollout.inbox import Second
from rollout.plan import Place, Stage, share_bp
from rollout.policy import JUDGED, Policy
from stats import tilt
from stats.rate import log_e_below

METRIC_OF = {
    "errors": window_pb2.METRIC_ERROR,
    "schema": window_pb2.METRIC_SCHEMA,
    "timeouts": window_pb2.METRIC_TIMEOUT,
}
RELATIVE = "relative"
"""The name under which the non-inferiority test of this stage is kept."""
WHOLE_KEEP = 65_536


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
class Compared:
    """One metric over the whole rollout: the tilt's state, the events, the keys counted."""

    state: tilt.TiltState
    canary_events: int = 0
    baseline_events: int = 0
    seen: set[int] = field(default_factory=set)


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
    pairs: int = 0
    flips: int = 0
    pairs_faulty: int = 0


@dataclass(slots=True)
class Totals:
    """Calls, for people to read."""

    canary: int = 0
    production: int = 0
    shadow_pairs: int = 0
    fallen_back: int = 0
    failed: int = 0


class Evidence:
    """Everything counted for one rollout. Pure; sums only, so any order inside a second is one."""

    def __init__(self, version: str, baseline: str, policy: Policy) -> None:
        self._version = version
        self._baseline = baseline
        self.policy = policy
        self.metrics = {name: Compared(tilt.start(tilt.WORSE)) for name in JUDGED}
        self._non_inferior = tilt.non_inferior(policy.worse_ratio_max)
        self.stage = StageCounts(tilt.start(self._non_inferior))
        self.totals = Totals()
        self.canary_keys = 0
        """Candidate keys with a good answer, a key once a stage."""
        self.baseline_keys = 0

    def enter_stage(self) -> None:
        """Begin a new stage: rollback evidence stays, promotion evidence starts again."""
        self.stage = StageCounts(tilt.start(self._non_inferior))

    def take(self, second: Second, place: Place, *, current: bool) -> None:
        """Count one closed second of the revision that stood at *place*.

        current  whether the rollout still stands there: only then does it count for promotion.
        """
        self.add_totals(second)
        for window in second.windows:
            if current and window.arm == window_pb2.ARM_SHADOW and window.version == self._version:
                self.stage.pairs += window.pairs.pairs
                self.stage.flips += window.pairs.flips
                self.stage.pairs_faulty += window.pairs.faulty
        arms = arms_at(place, self.policy)
        if arms is None:
            return
        candidate = [
            one
            for one in second.windows
            if one.arm == arms.candidate and one.version == self._version
        ]
        baseline = [
            one
            for one in second.windows
            if one.arm == arms.baseline and one.version == self._baseline
        ]
        if candidate or baseline:
            self._compare(candidate, baseline, arms.share)
            if current:
                self._count_stage(candidate, baseline, arms.share)

    def _compare(
        self,
        candidate: list[window_pb2.Window],
        baseline: list[window_pb2.Window],
        share: float,
    ) -> None:
        for name, compared in self.metrics.items():
            metric = METRIC_OF[name]
            accused = _keys(candidate, metric) - compared.seen
            others = _keys(baseline, metric) - compared.seen - accused
            compared.seen |= accused
            compared.seen |= others
            compared.canary_events += len(accused)
            compared.baseline_events += len(others)
            compared.state = tilt.step(
                tilt.WORSE,
                compared.state,
                len(accused),
                len(others),
                share,
                self.policy.looks_max,
            )

    def _count_stage(
        self,
        candidate: list[window_pb2.Window],
        baseline: list[window_pb2.Window],
        share: float,
    ) -> None:
        stage = self.stage
        accused = _failed(candidate) - stage.failed
        others = _failed(baseline) - stage.failed - accused
        stage.failed |= accused
        stage.failed |= others
        stage.failed_kept += len(_kept(accused, candidate))
        stage.relative = tilt.step(
            self._non_inferior, stage.relative, len(accused), len(others), share
        )
        self.canary_keys += self._add_clean(stage.clean, candidate)
        self.baseline_keys += self._add_clean(stage.baseline_clean, baseline)

    def _add_clean(self, clean: set[int], windows: list[window_pb2.Window]) -> int:
        fresh = _keys(windows, window_pb2.METRIC_SCORE) - clean - self.stage.failed
        room = self.policy.keys_max - len(clean)
        if len(fresh) > room:  # the smallest, so that the order of arrival does not matter
            fresh = set(sorted(fresh)[:room])
        clean |= fresh
        return len(fresh)

    def add_totals(self, second: Second) -> None:
        """Count calls, for people to read."""
        for window in second.windows:
            self._add_calls(window)

    def _add_calls(self, window: window_pb2.Window) -> None:
        calls, totals = window.calls, self.totals
        failed = calls.faulty + calls.nan + calls.late
        if window.arm == window_pb2.ARM_CANARY:
            totals.canary += calls.answered
            totals.fallen_back += calls.fallen_back
            totals.failed += max(0, failed - calls.fallen_back)
        elif window.arm in (window_pb2.ARM_PRODUCTION, window_pb2.ARM_STANDBY):
            totals.production += calls.answered
            totals.failed += failed
        elif window.arm == window_pb2.ARM_SHADOW:
            totals.shadow_pairs += window.pairs.pairs

    @property
    def absolute_log_e(self) -> float:
        """Ln of the evidence, from this stage, that fewer keys fail than the policy's bar."""
        return log_e_below(self.policy.failure_bar, len(self.stage.clean), self.stage.failed_kept)

    @property
    def promote_log_e(self) -> float:
        """The better of the two ways to be promoted."""
        return max(self.absolute_log_e, self.stage.relative.log_e)


def _keys(windows: Iterable[window_pb2.Window], metric: int) -> set[int]:
    keys: set[int] = set()
    for window in windows:
        for records in window.records:
            if records.metric == metric:
                keys.update(records.key_hash)
    return keys


def _failed(windows: Iterable[window_pb2.Window]) -> set[int]:
    keys: set[int] = set()
    for metric in METRIC_OF.values():
        keys |= _keys(windows, metric)
    return keys


def _kept(keys: set[int], windows: list[window_pb2.Window]) -> set[int]:
    """Those that the gateways' thinning keeps; the widest of the windows decides."""
    keep = max((window.keep_of_65536 or WHOLE_KEEP for window in windows), default=WHOLE_KEEP)
    return {key for key in keys if key % WHOLE_KEEP < keep}
