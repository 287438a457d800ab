"""One rollout under way: what it was told, where it stands, what it decided.

Pure: no I/O, every instant an argument. The controller (controller.py) carries its decisions out.
"""

from dataclasses import dataclass, field

from protos import rollout_pb2, window_pb2
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import NS, Inbox
from rollout.judge.forecast import ready_in
from rollout.judge.judge import Facts, FleetView, Judgement, judge
from rollout.judge.reasons import evidence_rows, log_es
from rollout.lifecycle.deploy import Terms
from rollout.policy.freeze import frozen
from rollout.policy.stages import ENDS, Place, Stage, Verdict, next_place, share_bp

COURSE_MAX = 600
LATE_RECENT_NS = 3 * NS
"""How long windows that came too late keep a rollout on HOLD."""
LOST_RECENT_NS = 30 * NS
"""How long one that never came does: gateways send again, so a loss is no accident, and between
the losses of a sender that drops half there are often three good seconds."""


@dataclass(frozen=True, slots=True)
class Now:
    """One instant on two clocks."""

    unix_ns: int
    monotonic_ns: int


@dataclass(slots=True)
class Times:
    """The four times of a rollback, Unix ns; 0: not yet."""

    first_bad: int = 0
    verdict: int = 0
    moved: int = 0
    last_bad: int = 0


@dataclass(slots=True)
class PastStage:
    """A place that was left, for the record."""

    place: Place
    since_unix_ms: int
    promote_log_e: float = 0.0
    clean: int = 0
    failed: int = 0
    pairs: int = 0
    flips: int = 0
    pairs_faulty: int = 0


@dataclass(slots=True)
class Trial:
    """A rollout: its terms, its inbox, its evidence, its place, its decisions."""

    terms: Terms
    started_unix_ms: int
    policy_note: str = ""
    """How the policy of this name differs now from the one it runs under; empty: it does not."""
    place: Place = field(default_factory=lambda: Place(Stage.PRELOAD))
    revision: int = 0
    since_unix_ms: int = 0
    paused: bool = False
    broken: str = ""
    """Why it cannot be judged: counting or judging it raised. Until somebody resumes or ends it."""
    reason: str = ""
    missing: tuple[str, ...] = ()
    verdict: Verdict = Verdict.UNDECIDED
    guards: list[window_pb2.HardGuard] = field(default_factory=list)
    """Those that accuse this candidate."""
    times: Times = field(default_factory=Times)
    decisions: list[rollout_pb2.Decision] = field(default_factory=list)
    past: list[PastStage] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    """Revision -> the place it was: windows of an older revision still count, at its share."""
    inbox: Inbox = field(init=False)
    evidence: Evidence = field(init=False)
    looked_unix_ms: int = 0
    """When it was judged last."""
    course: list[rollout_pb2.RacePoint] = field(default_factory=list)
    """How the evidence came about, for pictures; since this controller began."""
    checkpoint: int = 0
    """Number of the newest checkpoint written."""

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.terms.model)
        terms = self.terms
        self.evidence = Evidence(terms.version, terms.baseline, terms.policy, terms.shift)

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.place.stage in ENDS

    def receive(self, batch: window_pb2.WindowBatch, now: Now) -> bool:
        """Take one batch; return whether it asks to be judged at once (a hard guard)."""
        return self._told(self.inbox.accept(batch, now.monotonic_ns))

    def close(self, now: Now) -> bool:
        """Count the seconds that are over; return whether there were any."""
        self._told(self.inbox.skip_gaps(now.monotonic_ns))
        over = self.inbox.close(now.monotonic_ns)
        for second in over:
            place = self.places.get(second.revision)
            if place is not None and not self.ended and not self.broken:
                current = second.revision == self.revision
                self.evidence.take(second, place, current=current)
                if current:
                    self._note_course(second.second, place)
            elif place is not None:  # what was in flight: calls, but evidence of nothing any more
                self.evidence.add_totals(second)
        return bool(over)

    def _note_course(self, second: int, place: Place) -> None:
        point = rollout_pb2.RacePoint(
            second=second,
            stage=_stage(place),
            share_bp=share_bp(place, self.terms.policy),
            log_e=log_es(self.evidence),
        )
        self.course.append(point)
        if len(self.course) > COURSE_MAX:  # every other one, but never the newest
            self.course = self.course[-1::-2][::-1]

    def _told(self, batches: list[window_pb2.WindowBatch]) -> bool:
        urgent = False
        for batch in batches:
            for window in batch.windows:
                self._note_bad(window)
            for guard in batch.guards:
                urgent |= self._note_guard(guard)
        return urgent

    def _note_bad(self, window: window_pb2.Window) -> None:
        """Keep the first and last bad answer of the candidate to customers (or as a shadow)."""
        ours = (window.model, window.version) == (self.terms.model, self.terms.version)
        place = self.places.get(window.revision)
        if not ours or place is None or window.last_bad_unix_ns == 0:
            return
        if (window.arm == window_pb2.ARM_SHADOW) != (place.stage == Stage.SHADOW):
            return
        if place.stage == Stage.SHADOW and self.place.stage not in (Stage.SHADOW, *ENDS):
            return
        self._note_first_bad(window.first_bad_unix_ns)
        self.times.last_bad = max(self.times.last_bad, window.last_bad_unix_ns)

    def _note_first_bad(self, unix_ns: int) -> None:
        known = [one for one in (self.times.first_bad, unix_ns) if one]
        self.times.first_bad = min(known, default=0)

    def _note_guard(self, guard: window_pb2.HardGuard) -> bool:
        ours = (guard.model, guard.version) == (self.terms.model, self.terms.version)
        kind = window_pb2.HardGuard.Kind.Name(guard.kind)
        if not ours or self.ended or kind not in self.terms.policy.guards:
            return False
        if guard.kind == window_pb2.HardGuard.BREAKER_OPEN and guard.revision not in self.places:
            return False
        self._note_first_bad(guard.first_bad_unix_ns)
        self.times.last_bad = max(self.times.last_bad, guard.at_unix_ns)
        self.guards.append(guard)
        return True

    @property
    def guard(self) -> str:
        """The first hard guard in words; empty: none."""
        if not self.guards:
            return ""
        first = self.guards[0]
        kind = window_pb2.HardGuard.Kind.Name(first.kind)
        return f"{kind}: {first.reason or 'no reason given'}"

    def judge(self, now: Now, fleet: FleetView, finding: str = "") -> Place:
        """Look once; return where to go: the same place when nothing is to be done.

        finding  what monitoring wrote to hold this model; empty: nothing.
        """
        if self.ended:
            return self.place
        if self.broken:
            return self._judge_blindly()
        inbox, self.looked_unix_ms = self.inbox, now.unix_ns // 1_000_000
        facts = Facts(
            place=self.place,
            stayed_s=max(0.0, now.unix_ns / 1e9 - self.since_unix_ms / 1e3),
            fleet=fleet,
            guard=self.guard,
            late_windows=inbox.late_windows
            if _is_recent(inbox.late_at_ns, now, LATE_RECENT_NS)
            else 0,
            lost_batches=inbox.lost_batches
            if _is_recent(inbox.lost_at_ns, now, LOST_RECENT_NS)
            else 0,
            frozen=frozen(self.terms.policy.freeze, now.unix_ns / 1e9),
            finding=finding,
        )
        judgement = judge(self.terms.policy, facts, self.evidence)
        self._keep(judgement)
        if self.paused and judgement.verdict != Verdict.FAULTY:
            return self.place
        return next_place(self.place, judgement.verdict, self.terms.policy)

    def _judge_blindly(self) -> Place:
        """Hold it, whatever was counted; a hard guard needs no counting."""
        if self.guard:
            self._keep(Judgement(Verdict.FAULTY, self.guard))
            return next_place(self.place, Verdict.FAULTY, self.terms.policy)
        self.hold(self.broken)
        return self.place

    def hold(self, reason: str) -> None:
        """Say why the verdict could not be carried out yet."""
        self._keep(Judgement(Verdict.HOLD, reason, (reason,)))

    def _keep(self, judgement: Judgement) -> None:
        self.verdict, self.reason = judgement.verdict, judgement.reason
        self.missing = judgement.missing

    def enter(self, place: Place, revision: int, now: Now, reason: str) -> None:
        """Stand at *place* from now on: its deployment, *revision*, has been written."""
        self._decide(place, revision, now, reason)
        if self.place.stage == Stage.SHADOW and place.stage not in ENDS:
            self.times = Times()  # a shadow's bad answers reached nobody
        self.place, self.since_unix_ms = place, now.unix_ns // 1_000_000
        self.reason = reason
        self.missing = ()
        if not self.ended:
            self.evidence.enter_stage()
            self.verdict = Verdict.UNDECIDED

    def adopt(self, revision: int, now: Now, reason: str) -> None:
        """Stay where we are under a newer *revision*: another field was changed by hand."""
        self._decide(self.place, revision, now, reason)

    def _decide(self, place: Place, revision: int, now: Now, reason: str) -> None:
        if self.decisions:
            self.past.append(self._leave())
        self.decisions.append(
            rollout_pb2.Decision(
                at_unix_ns=now.unix_ns,
                stage=_stage(place),
                revision=revision,
                verdict=rollout_pb2.Verdict.Name(int(self.verdict)),
                reason=reason,
                evidence=evidence_rows(self.evidence, intervals=True),
                policy_digest=self.terms.policy.digest,
                first_second=self.since_unix_ms // 1000,
                last_second=self.inbox.closed_second,
            )
        )
        self.revision = revision
        self.places[revision] = place

    def _leave(self) -> PastStage:
        stage = self.evidence.stage
        return PastStage(
            place=self.place,
            since_unix_ms=self.since_unix_ms,
            promote_log_e=self.evidence.promote_log_e,
            clean=len(stage.clean),
            failed=stage.failed_kept,
            pairs=stage.shadow.pairs,
            flips=stage.shadow.flips,
            pairs_faulty=stage.shadow.faulty,
        )

    def stages(self) -> list[PastStage]:
        """Return the places left behind and the one it stands at."""
        return [*self.past, self._leave()]

    def _foretold(self) -> str:
        stage = self.evidence.stage
        stayed_s = self.looked_unix_ms / 1e3 - self.since_unix_ms / 1e3
        counts = len(stage.clean), stage.failed_kept, stage.shadow.pairs
        return ready_in(self.terms.policy, self.place, stayed_s, *counts)

    def status(self, *, intervals: bool = False) -> rollout_pb2.RolloutStatus:
        """Return what people and scripts are shown; *intervals*: with those of rate ratios."""
        totals = self.evidence.totals
        return rollout_pb2.RolloutStatus(
            rollout_id=self.terms.rollout_id,
            model=self.terms.model,
            version=self.terms.version,
            baseline=self.terms.baseline,
            policy=self.terms.policy.name,
            policy_digest=self.terms.policy.digest,
            stage=_stage(self.place),
            step=self.place.step,
            share_bp=share_bp(self.place, self.terms.policy),
            verdict=rollout_pb2.Verdict.Name(int(self.verdict)),
            reason=self.reason,
            evidence=evidence_rows(self.evidence, intervals=intervals),
            times=rollout_pb2.RollbackTimes(
                first_bad_unix_ns=self.times.first_bad,
                verdict_unix_ns=self.times.verdict,
                moved_unix_ns=self.times.moved,
                last_bad_unix_ns=self.times.last_bad,
            ),
            revision=self.revision,
            started_unix_ms=self.started_unix_ms,
            stage_since_unix_ms=self.since_unix_ms,
            paused=self.paused,
            missing=self.missing,
            foretold=self._foretold(),
            shift=self.evidence.prediction.words,
            policy_note=self.policy_note,
            calls=rollout_pb2.CallTotals(
                canary=totals.canary,
                production=totals.production,
                shadow_pairs=totals.shadow_pairs,
                fallen_back=totals.fallen_back,
                failed=totals.failed,
            ),
        )


def _is_recent(at_ns: int | None, now: Now, recent_ns: int) -> bool:
    return at_ns is not None and now.monotonic_ns - at_ns < recent_ns


def _stage(place: Place) -> str:
    return rollout_pb2.Stage.Name(int(place.stage))
