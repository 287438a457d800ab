"""One rollout under way: what it was told, where it stands, what it decided.

Pure: no I/O, every instant an argument. The controller (controller.py) carries its decisions out.
"""

from dataclasses import dataclass, field

from protos import rollout_pb2, window_pb2
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import NS, Inbox
from rollout.judge.forecast import stage_forecast
from rollout.judge.judge import FleetView, JudgeInputs, Judgement, judge
from rollout.judge.reasons import evidence_rows, log_e_maxima
from rollout.lifecycle.clock import ClockReading
from rollout.lifecycle.deploy import RolloutSpec
from rollout.policy.freeze import active_freeze
from rollout.policy.stages import (
    FINAL_STAGES,
    Stage,
    StagePosition,
    Verdict,
    next_position,
    share_bp_at,
)

EVIDENCE_POINTS_MAX = 600
LATE_WINDOW_HOLD_NS = 3 * NS
"""How long windows that came too late keep a rollout on HOLD."""
LOST_BATCH_HOLD_NS = 30 * NS
"""How long one that never came does: gateways send again, so a loss is no accident, and between
the losses of a sender that drops half there are often three good seconds."""


@dataclass(slots=True)
class RollbackTimes:
    """The four times of a rollback, Unix ns; 0: not yet."""

    first_bad_answer_ns: int = 0
    verdict_ns: int = 0
    traffic_moved_ns: int = 0
    last_bad_answer_ns: int = 0

    def to_proto(self) -> rollout_pb2.RollbackTimes:
        """Return the times as a status shows them."""
        return rollout_pb2.RollbackTimes(
            first_bad_unix_ns=self.first_bad_answer_ns,
            verdict_unix_ns=self.verdict_ns,
            moved_unix_ns=self.traffic_moved_ns,
            last_bad_unix_ns=self.last_bad_answer_ns,
        )

    @staticmethod
    def from_proto(message: rollout_pb2.RollbackTimes) -> "RollbackTimes":
        """Restore the times from a status."""
        return RollbackTimes(
            first_bad_answer_ns=message.first_bad_unix_ns,
            verdict_ns=message.verdict_unix_ns,
            traffic_moved_ns=message.moved_unix_ns,
            last_bad_answer_ns=message.last_bad_unix_ns,
        )


@dataclass(slots=True)
class PastStage:
    """A place that was left, for the record."""

    position: StagePosition
    since_unix_ms: int
    promote_log_e: float = 0.0
    clean_keys: int = 0
    failed_keys: int = 0
    pairs: int = 0
    flips: int = 0
    pairs_faulty: int = 0

    def to_proto(self) -> rollout_pb2.StageState:
        """Return the stage for a checkpoint."""
        return rollout_pb2.StageState(
            stage=_stage_name(self.position),
            step=self.position.step,
            since_unix_ms=self.since_unix_ms,
            promote_log_e=self.promote_log_e,
            clean_keys=self.clean_keys,
            failed_keys=self.failed_keys,
            pairs=self.pairs,
            flips=self.flips,
            pairs_faulty=self.pairs_faulty,
        )

    @staticmethod
    def from_proto(message: rollout_pb2.StageState) -> "PastStage":
        """Restore a stage."""
        return PastStage(
            position=StagePosition(Stage(int(message.stage)), message.step),
            since_unix_ms=message.since_unix_ms,
            promote_log_e=message.promote_log_e,
            clean_keys=message.clean_keys,
            failed_keys=message.failed_keys,
            pairs=message.pairs,
            flips=message.flips,
            pairs_faulty=message.pairs_faulty,
        )


@dataclass(slots=True)
class Rollout:
    """A rollout: its terms, its inbox, its evidence, its place, its decisions."""

    spec: RolloutSpec
    started_unix_ms: int
    policy_note: str = ""
    """How the policy of this name differs now from the one it runs under; empty: it does not."""
    position: StagePosition = field(default_factory=lambda: StagePosition(Stage.PRELOAD))
    revision: int = 0
    since_unix_ms: int = 0
    paused: bool = False
    judging_error: str = ""
    """Why it cannot be judged: counting or judging it raised. Until somebody resumes or ends it."""
    reason: str = ""
    waiting_for: tuple[str, ...] = ()
    verdict: Verdict = Verdict.UNDECIDED
    guards: list[window_pb2.HardGuard] = field(default_factory=list)
    """Those that accuse this candidate."""
    times: RollbackTimes = field(default_factory=RollbackTimes)
    decisions: list[rollout_pb2.Decision] = field(default_factory=list)
    past_stages: list[PastStage] = field(default_factory=list)
    positions_by_revision: dict[int, StagePosition] = field(default_factory=dict)
    """Revision -> the place it was: windows of an older revision still count, at its share."""
    inbox: Inbox = field(init=False)
    evidence: Evidence = field(init=False)
    judged_unix_ms: int = 0
    """When it was judged last."""
    evidence_history: list[rollout_pb2.EvidencePoint] = field(default_factory=list)
    """How the evidence came about, for pictures; since this controller began."""
    checkpoint_sequence: int = 0
    """Number of the newest checkpoint written."""

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.spec.model)
        terms = self.spec
        self.evidence = Evidence(terms.version, terms.baseline, terms.policy, terms.shift)

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.position.stage in FINAL_STAGES

    def receive(self, batch: window_pb2.WindowBatch, now: ClockReading) -> bool:
        """Take one batch; return whether it asks to be judged at once (a hard guard)."""
        return self._note_batches(self.inbox.accept(batch, now.monotonic_ns))

    def count_closed_seconds(self, now: ClockReading) -> bool:
        """Count the seconds that are over; return whether there were any."""
        self._note_batches(self.inbox.skip_gaps(now.monotonic_ns))
        over = self.inbox.close_seconds(now.monotonic_ns)
        for second in over:
            place = self.positions_by_revision.get(second.revision)
            if place is not None and not self.ended and not self.judging_error:
                current = second.revision == self.revision
                self.evidence.count_second(second, place, current=current)
                if current:
                    self._add_evidence_point(second.second, place)
            elif place is not None:  # what was in flight: calls, but evidence of nothing any more
                self.evidence.add_totals(second)
        return bool(over)

    def _add_evidence_point(self, second: int, position: StagePosition) -> None:
        point = rollout_pb2.EvidencePoint(
            second=second,
            stage=_stage_name(position),
            share_bp=share_bp_at(position, self.spec.policy),
            log_e=log_e_maxima(self.evidence),
        )
        self.evidence_history.append(point)
        if (
            len(self.evidence_history) > EVIDENCE_POINTS_MAX
        ):  # every other one, but never the newest
            self.evidence_history = self.evidence_history[-1::-2][::-1]

    def _note_batches(self, batches: list[window_pb2.WindowBatch]) -> bool:
        urgent = False
        for batch in batches:
            for window in batch.windows:
                self._note_bad_answers(window)
            for guard in batch.guards:
                urgent |= self._note_guard(guard)
        return urgent

    def _note_bad_answers(self, window: window_pb2.Window) -> None:
        """Keep the first and last bad answer of the candidate to customers (or as a shadow)."""
        ours = (window.model, window.version) == (self.spec.model, self.spec.version)
        place = self.positions_by_revision.get(window.revision)
        if not ours or place is None or window.last_bad_unix_ns == 0:
            return
        if (window.arm == window_pb2.ARM_SHADOW) != (place.stage == Stage.SHADOW):
            return
        if place.stage == Stage.SHADOW and self.position.stage not in (Stage.SHADOW, *FINAL_STAGES):
            return
        self._note_first_bad_answer(window.first_bad_unix_ns)
        self.times.last_bad_answer_ns = max(self.times.last_bad_answer_ns, window.last_bad_unix_ns)

    def _note_first_bad_answer(self, unix_ns: int) -> None:
        known = [one for one in (self.times.first_bad_answer_ns, unix_ns) if one]
        self.times.first_bad_answer_ns = min(known, default=0)

    def _note_guard(self, guard: window_pb2.HardGuard) -> bool:
        ours = (guard.model, guard.version) == (self.spec.model, self.spec.version)
        kind = window_pb2.HardGuard.Kind.Name(guard.kind)
        if not ours or self.ended or kind not in self.spec.policy.guards:
            return False
        if (
            guard.kind == window_pb2.HardGuard.BREAKER_OPEN
            and guard.revision not in self.positions_by_revision
        ):
            return False
        self._note_first_bad_answer(guard.first_bad_unix_ns)
        self.times.last_bad_answer_ns = max(self.times.last_bad_answer_ns, guard.at_unix_ns)
        self.guards.append(guard)
        return True

    @property
    def guard_reason(self) -> str:
        """The first hard guard in words; empty: none."""
        if not self.guards:
            return ""
        first = self.guards[0]
        kind = window_pb2.HardGuard.Kind.Name(first.kind)
        return f"{kind}: {first.reason or 'no reason given'}"

    def judge(self, now: ClockReading, fleet: FleetView, finding: str = "") -> StagePosition:
        """Look once; return where to go: the same place when nothing is to be done.

        finding  what monitoring wrote to hold this model; empty: nothing.
        """
        if self.ended:
            return self.position
        if self.judging_error:
            return self._judge_without_evidence()
        inbox, self.judged_unix_ms = self.inbox, now.unix_ns // 1_000_000
        facts = JudgeInputs(
            position=self.position,
            stayed_s=max(0.0, now.unix_ns / 1e9 - self.since_unix_ms / 1e3),
            fleet=fleet,
            guard_reason=self.guard_reason,
            late_windows=inbox.late_windows
            if _is_recent(inbox.late_at_ns, now, LATE_WINDOW_HOLD_NS)
            else 0,
            lost_batches=inbox.lost_batches
            if _is_recent(inbox.lost_at_ns, now, LOST_BATCH_HOLD_NS)
            else 0,
            freeze_window=active_freeze(self.spec.policy.freeze, now.unix_ns / 1e9),
            monitoring_hold=finding,
        )
        judgement = judge(self.spec.policy, facts, self.evidence)
        self._set_judgement(judgement)
        if self.paused and judgement.verdict != Verdict.FAULTY:
            return self.position
        return next_position(self.position, judgement.verdict, self.spec.policy)

    def _judge_without_evidence(self) -> StagePosition:
        """Hold it, whatever was counted; a hard guard needs no counting."""
        if self.guard_reason:
            self._set_judgement(Judgement(Verdict.FAULTY, self.guard_reason))
            return next_position(self.position, Verdict.FAULTY, self.spec.policy)
        self.hold(self.judging_error)
        return self.position

    def hold(self, reason: str) -> None:
        """Say why the verdict could not be carried out yet."""
        self._set_judgement(Judgement(Verdict.HOLD, reason, (reason,)))

    def _set_judgement(self, judgement: Judgement) -> None:
        self.verdict, self.reason = judgement.verdict, judgement.reason
        self.waiting_for = judgement.waiting_for

    def enter_position(
        self, position: StagePosition, revision: int, now: ClockReading, reason: str
    ) -> None:
        """Stand at *place* from now on: its deployment, *revision*, has been written."""
        self._record_decision(position, revision, now, reason)
        if self.position.stage == Stage.SHADOW and position.stage not in FINAL_STAGES:
            self.times = RollbackTimes()  # a shadow's bad answers reached nobody
        self.position, self.since_unix_ms = position, now.unix_ns // 1_000_000
        self.reason = reason
        self.waiting_for = ()
        if not self.ended:
            self.evidence.enter_stage()
            self.verdict = Verdict.UNDECIDED

    def adopt_revision(self, revision: int, now: ClockReading, reason: str) -> None:
        """Stay where we are under a newer *revision*: another field was changed by hand."""
        self._record_decision(self.position, revision, now, reason)

    def _record_decision(
        self, position: StagePosition, revision: int, now: ClockReading, reason: str
    ) -> None:
        if self.decisions:
            self.past_stages.append(self._current_stage())
        self.decisions.append(
            rollout_pb2.Decision(
                at_unix_ns=now.unix_ns,
                stage=_stage_name(position),
                revision=revision,
                verdict=rollout_pb2.Verdict.Name(int(self.verdict)),
                reason=reason,
                evidence=evidence_rows(self.evidence, intervals=True),
                policy_digest=self.spec.policy.digest,
                first_second=self.since_unix_ms // 1000,
                last_second=self.inbox.closed_second,
            )
        )
        self.revision = revision
        self.positions_by_revision[revision] = position

    def _current_stage(self) -> PastStage:
        stage = self.evidence.stage
        return PastStage(
            position=self.position,
            since_unix_ms=self.since_unix_ms,
            promote_log_e=self.evidence.promote_log_e,
            clean_keys=len(stage.clean_keys),
            failed_keys=stage.failed_in_sample,
            pairs=stage.shadow.pairs,
            flips=stage.shadow.flips,
            pairs_faulty=stage.shadow.faulty,
        )

    def stage_history(self) -> list[PastStage]:
        """Return the places left behind and the one it stands at."""
        return [*self.past_stages, self._current_stage()]

    def _forecast_text(self) -> str:
        stage = self.evidence.stage
        stayed_s = self.judged_unix_ms / 1e3 - self.since_unix_ms / 1e3
        counts = len(stage.clean_keys), stage.failed_in_sample, stage.shadow.pairs
        return stage_forecast(self.spec.policy, self.position, stayed_s, *counts)

    def status(self, *, intervals: bool = False) -> rollout_pb2.RolloutStatus:
        """Return what people and scripts are shown; *intervals*: with those of rate ratios."""
        return rollout_pb2.RolloutStatus(
            rollout_id=self.spec.rollout_id,
            model=self.spec.model,
            version=self.spec.version,
            baseline=self.spec.baseline,
            policy=self.spec.policy.name,
            policy_digest=self.spec.policy.digest,
            stage=_stage_name(self.position),
            step=self.position.step,
            share_bp=share_bp_at(self.position, self.spec.policy),
            verdict=rollout_pb2.Verdict.Name(int(self.verdict)),
            reason=self.reason,
            evidence=evidence_rows(self.evidence, intervals=intervals),
            times=self.times.to_proto(),
            revision=self.revision,
            started_unix_ms=self.started_unix_ms,
            stage_since_unix_ms=self.since_unix_ms,
            paused=self.paused,
            waiting_for=self.waiting_for,
            forecast=self._forecast_text(),
            approved_shift_text=self.evidence.prediction.shift_text,
            policy_note=self.policy_note,
            calls=self.evidence.totals.to_proto(),
        )


def _is_recent(at_ns: int | None, now: ClockReading, recent_ns: int) -> bool:
    return at_ns is not None and now.monotonic_ns - at_ns < recent_ns


def _stage_name(position: StagePosition) -> str:
    return rollout_pb2.Stage.Name(int(position.stage))
