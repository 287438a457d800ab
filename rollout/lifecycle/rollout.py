"""The state of one rollout: its windows, its evidence, its position and its decisions.

Pure: no input or output, and every instant is an argument. The controller carries the decisions
out (rollout/controller/controller.py).
"""

from dataclasses import dataclass, field

from host.freeze_windows import active_freeze
from protos import rollout_pb2, window_pb2
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import NS, Inbox
from rollout.judge.forecast import stage_forecast
from rollout.judge.judge import FleetView, JudgeInputs, Judgement, judge
from rollout.judge.reasons import evidence_rows, log_e_maxima
from rollout.lifecycle.clock import ClockReading
from rollout.lifecycle.deploy import RolloutSpec
from rollout.policy.stages import (
    FINAL_STAGES,
    Stage,
    StagePosition,
    Verdict,
    next_position,
    share_bp_at,
)

EVIDENCE_POINTS_MAX = 600
"""Points of the evidence history; beyond it every other point is dropped."""
LATE_WINDOW_HOLD_NS = 3 * NS
"""How long late windows hold a rollout."""
LOST_BATCH_HOLD_NS = 30 * NS
"""How long a lost batch holds a rollout. Gateways send batches again, so a loss is no accident. A
source that drops every second batch often has three good seconds between two losses."""


@dataclass(slots=True)
class RollbackTimes:
    """The four times of a rollback, Unix ns; 0: not known so far."""

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
    """A position of the rollout, since when it stood there, and what the stage showed."""

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
    """One rollout from its start to its end."""

    spec: RolloutSpec
    started_unix_ms: int
    policy_note: str = ""
    """How the policy of this name differs now from the approved policy; empty if it does not."""
    position: StagePosition = field(default_factory=lambda: StagePosition(Stage.PRELOAD))
    revision: int = 0
    since_unix_ms: int = 0
    paused: bool = False
    judging_error: str = ""
    """The error that counting or judging raised. It holds the rollout until a person resumes or
    ends it."""
    reason: str = ""
    waiting_for: tuple[str, ...] = ()
    verdict: Verdict = Verdict.UNDECIDED
    guards: list[window_pb2.HardGuard] = field(default_factory=list)
    """Hard guards about this candidate, in the order in which they came."""
    times: RollbackTimes = field(default_factory=RollbackTimes)
    decisions: list[rollout_pb2.Decision] = field(default_factory=list)
    past_stages: list[PastStage] = field(default_factory=list)
    positions_by_revision: dict[int, StagePosition] = field(default_factory=dict)
    """Revision -> position. Windows of an older revision count at the share of its position."""
    inbox: Inbox = field(init=False)
    evidence: Evidence = field(init=False)
    judged_unix_ms: int = 0
    """Unix ms of the newest judgement."""
    evidence_history: list[rollout_pb2.EvidencePoint] = field(default_factory=list)
    """The evidence second by second since this controller began, for pictures."""
    dropped_windows: int = 0
    """Malformed windows of the model, and those of refused workers, since this controller began.
    Nothing counts them."""
    refused_senders: tuple[str, ...] = ()
    """The workers whose windows are not counted now, and why."""
    checkpoint_sequence: int = 0
    """Number of the newest checkpoint written."""

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.spec.model)
        spec = self.spec
        self.evidence = Evidence(spec.version, spec.baseline, spec.policy, spec.shift)

    @property
    def ended(self) -> bool:
        """Whether the rollout is at a final stage."""
        return self.position.stage in FINAL_STAGES

    def receive(self, batch: window_pb2.WindowBatch, now: ClockReading) -> bool:
        """Receive one batch. Return True if it has a hard guard, which must be judged at once."""
        return self._note_batches(self.inbox.accept(batch, now.monotonic_ns))

    def count_closed_seconds(self, now: ClockReading) -> bool:
        """Count the seconds that are over. Return whether there was any."""
        self._note_batches(self.inbox.skip_gaps(now.monotonic_ns))
        over = self.inbox.close_seconds(now.monotonic_ns)
        for second in over:
            position = self.positions_by_revision.get(second.revision)
            if position is None:
                continue  # a revision of before this rollout
            if self.ended or self.judging_error:
                self.evidence.add_totals(second)  # calls for people to read, but no evidence
                continue
            current = second.revision == self.revision
            self.evidence.count_second(second, position, current=current)
            if current:
                self._add_evidence_point(second.second, position)
        return bool(over)

    def _add_evidence_point(self, second: int, position: StagePosition) -> None:
        point = rollout_pb2.EvidencePoint(
            second=second,
            stage=_stage_name(position),
            share_bp=share_bp_at(position, self.spec.policy),
            log_e=log_e_maxima(self.evidence),
        )
        self.evidence_history.append(point)
        # Drop every other point, but never the newest.
        if len(self.evidence_history) > EVIDENCE_POINTS_MAX:
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
        """Note the first and last bad answer of the candidate in *window*.

        In the shadow stage these are the shadow's answers, later only answers to customers.
        """
        of_candidate = (window.model, window.version) == (self.spec.model, self.spec.version)
        position = self.positions_by_revision.get(window.revision)
        if not of_candidate or position is None or window.last_bad_unix_ns == 0:
            return
        if (window.arm == window_pb2.ARM_SHADOW) != (position.stage == Stage.SHADOW):
            return
        # A shadow's window that comes after the shadow stage says nothing about customers.
        shadow_or_ended = self.position.stage in (Stage.SHADOW, *FINAL_STAGES)
        if position.stage == Stage.SHADOW and not shadow_or_ended:
            return
        self._note_first_bad_answer(window.first_bad_unix_ns)
        self.times.last_bad_answer_ns = max(self.times.last_bad_answer_ns, window.last_bad_unix_ns)

    def _note_first_bad_answer(self, unix_ns: int) -> None:
        known = [ns for ns in (self.times.first_bad_answer_ns, unix_ns) if ns]
        self.times.first_bad_answer_ns = min(known, default=0)

    def _note_guard(self, guard: window_pb2.HardGuard) -> bool:
        """Note a hard guard. Return whether it is about this candidate and the policy uses it."""
        of_candidate = (guard.model, guard.version) == (self.spec.model, self.spec.version)
        kind = window_pb2.HardGuard.Kind.Name(guard.kind)
        if not of_candidate or self.ended or kind not in self.spec.policy.guards:
            return False
        # A breaker that opened in an earlier rollout of the same version does not count.
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
        """The first hard guard as a text; empty if there is none."""
        if not self.guards:
            return ""
        first = self.guards[0]
        kind = window_pb2.HardGuard.Kind.Name(first.kind)
        return f"{kind}: {first.reason or 'no reason given'}"

    def judge(self, now: ClockReading, fleet: FleetView, finding: str = "") -> StagePosition:
        """Judge once. Return the position to move to; the current position means: stay.

        fleet    the workers' view of the candidate.
        finding  why monitoring holds the model or version; empty: it does not.
        """
        if self.ended:
            return self.position
        if self.judging_error:
            return self._judge_without_evidence()
        inbox, self.judged_unix_ms = self.inbox, now.unix_ns // 1_000_000
        late = _is_recent(inbox.late_at_ns, now, LATE_WINDOW_HOLD_NS)
        lost = _is_recent(inbox.lost_at_ns, now, LOST_BATCH_HOLD_NS)
        # Collect what is known besides the evidence.
        inputs = JudgeInputs(
            position=self.position,
            stayed_s=max(0.0, now.unix_ns / 1e9 - self.since_unix_ms / 1e3),
            fleet=fleet,
            guard_reason=self.guard_reason,
            late_windows=inbox.late_windows if late else 0,
            lost_batches=inbox.lost_batches if lost else 0,
            freeze_window=active_freeze(self.spec.policy.freeze, now.unix_ns / 1e9),
            monitoring_hold=finding,
        )
        judgement = judge(self.spec.policy, inputs, self.evidence)
        self._set_judgement(judgement)
        # A paused rollout still rolls back.
        if self.paused and judgement.verdict != Verdict.FAULTY:
            return self.position
        return next_position(self.position, judgement.verdict, self.spec.policy)

    def _judge_without_evidence(self) -> StagePosition:
        """Hold the rollout because of its error. A hard guard needs no counts and rolls back."""
        if self.guard_reason:
            self._set_judgement(Judgement(Verdict.FAULTY, self.guard_reason))
            return next_position(self.position, Verdict.FAULTY, self.spec.policy)
        self.hold(self.judging_error)
        return self.position

    def hold(self, reason: str) -> None:
        """Set the verdict HOLD with *reason*, for example because a move was refused."""
        self._set_judgement(Judgement(Verdict.HOLD, reason, (reason,)))

    def _set_judgement(self, judgement: Judgement) -> None:
        self.verdict, self.reason = judgement.verdict, judgement.reason
        self.waiting_for = judgement.waiting_for

    def enter_position(
        self, position: StagePosition, revision: int, now: ClockReading, reason: str
    ) -> None:
        """Stand at *position* from now on. Its deployment has been written as *revision*."""
        self._record_decision(position, revision, now, reason)
        if self.position.stage == Stage.SHADOW and position.stage not in FINAL_STAGES:
            self.times = RollbackTimes()  # no customer got the shadow's bad answers
        self.position, self.since_unix_ms = position, now.unix_ns // 1_000_000
        self.reason = reason
        self.waiting_for = ()
        if not self.ended:
            self.evidence.enter_stage()
            self.verdict = Verdict.UNDECIDED

    def adopt_revision(self, revision: int, now: ClockReading, reason: str) -> None:
        """Stay at the position under a newer *revision*, in which another field was changed."""
        self._record_decision(self.position, revision, now, reason)

    def _record_decision(
        self, position: StagePosition, revision: int, now: ClockReading, reason: str
    ) -> None:
        """Add a decision, and with it the stage that ends."""
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
        """Return the past stages and the current one, oldest first."""
        return [*self.past_stages, self._current_stage()]

    def _forecast_text(self) -> str:
        stage = self.evidence.stage
        stayed_s = self.judged_unix_ms / 1e3 - self.since_unix_ms / 1e3
        counts = len(stage.clean_keys), stage.failed_in_sample, stage.shadow.pairs
        return stage_forecast(self.spec.policy, self.position, stayed_s, *counts)

    def status(self, *, intervals: bool = False) -> rollout_pb2.RolloutStatus:
        """Return the status for people and scripts.

        intervals  also compute the interval of each rate ratio, which costs a bisection each.
        """
        return rollout_pb2.RolloutStatus(
            # What is rolled out.
            rollout_id=self.spec.rollout_id,
            model=self.spec.model,
            version=self.spec.version,
            baseline=self.spec.baseline,
            policy=self.spec.policy.name,
            policy_digest=self.spec.policy.digest,
            # Where it stands, and why.
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
            dropped_windows=self.dropped_windows,
            refused_senders=self.refused_senders,
            score_differences=self.evidence.stage.shadow.output_texts(),
        )


def _is_recent(at_ns: int | None, now: ClockReading, recent_ns: int) -> bool:
    return at_ns is not None and now.monotonic_ns - at_ns < recent_ns


def _stage_name(position: StagePosition) -> str:
    return rollout_pb2.Stage.Name(int(position.stage))
