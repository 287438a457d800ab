"""Who scores which calls of a batch, and what becomes of a call when a version fails on it.

Production scores its own calls and every canary call, so that a canary's failure is answered
inside the same call. Each arm's calls are answered as soon as that arm is done: nobody waits for
a candidate but the candidate's own callers, and they only within its budget.
"""

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.columns import Ingress
from gateway.fault_log import FaultLog
from gateway.models.executor import Fault, Lane, Run, Scored
from gateway.models.routes import Participant
from gateway.predict.batch import Answer, Batch, IdWriter, Part, default_unusable, fine, replies_of
from gateway.status import refuse_internal
from gateway.telemetry.fault_free import Clean, Done
from gateway.telemetry.observations import Told
from gateway.telemetry.recorder import Aside
from protos.predict_pb2 import CANARY, FALLBACK, PINNED, PRODUCTION
from protos.window_pb2 import ARM_CANARY, ARM_PINNED, ARM_PRODUCTION, ARM_STANDBY

NOBODY: NDArray[np.intp] = np.empty(0, dtype=np.intp)
"""No calls."""
LAST_MOMENT_NS = 1_000_000
LAST_MOMENT_SHARE = 0.05
"""Kept back from a caller's deadline for the reply itself: a twentieth of what was left when its
versions were asked, a millisecond at least. One alone was missed by one caller in three on a busy
host."""


class Arms:
    """Scores batches and answers their calls."""

    def __init__(
        self,
        ingress: Ingress,
        ids: IdWriter,
        aside: Aside,
        clock: Clock,
        faults: FaultLog,
    ) -> None:
        self._ingress = ingress
        self._ids = ids
        self._aside = aside
        self._clock = clock
        self._faults = faults

    async def answer(self, batch: Batch, leave: Callable[[], None]) -> None:
        """Answer every call of *batch* that routing did not refuse.

        *leave* is called once no more than a candidate is being waited for, so that a slow
        candidate never takes a place that production's calls could have.
        """
        routes, drawn = batch.routes, batch.assignment
        batch.asked_ns = self._clock.now_ns()
        if drawn.arm is None:
            await self._answer_undivided(batch)
            leave()
            return
        mine, candidates = drawn.calls_of(ARM_PRODUCTION), drawn.calls_of(ARM_CANARY)
        baseline = NOBODY if routes.standby is None else drawn.calls_of(ARM_STANDBY)
        own, theirs = batch.part(mine), batch.part(candidates)
        canary_run = self._start_canary(batch, theirs)
        standby_run = None
        if len(baseline):
            standby_run = self._start(batch, routes.standby, batch.part(baseline))
        if len(mine) + len(candidates) < batch.calls.calls or not _back(canary_run, theirs):
            part = own.with_(theirs)
            scored = self._score_here(batch, routes.production, part)
        else:  # two versions at most, and both are done: mostly there is nothing to part
            scored = self._score_here(batch, routes.production, batch.whole())
            by_canary = None if canary_run is None else canary_run.result()
            if self._clean(batch, own, scored, theirs, by_canary):
                leave()
                return
            part = own.with_(theirs)
            scored = scored.at(part.indexes(), part.rows)
        if len(mine):
            rows = batch.inputs(part, routes.production)[: int(own.row_offsets[-1])]
            own.inputs = routes.production, rows
            await self._answer_production(batch, own, scored)
        if standby_run is not None and routes.standby is not None:
            await self._answer_standby(batch, batch.part(baseline), await standby_run.back())
        for participant in {id(p): p for p in drawn.pins.values()}.values():
            await self._answer_pins(batch, participant)
        if len(part):
            self._aside.offer_shadows(batch, part, scored)
        leave()
        if len(candidates):
            await self._answer_canary(batch, theirs, scored, canary_run)

    async def _answer_undivided(self, batch: Batch) -> None:
        """Answer a batch that is production's alone: the usual case, nothing is cut or copied."""
        routes = batch.routes
        part = batch.whole()
        scored = self._score_here(batch, routes.production, part)
        if self._clean(batch, part, scored, None, None):
            return
        await self._answer_production(batch, part, scored)
        if routes.shadows:
            self._aside.offer_shadows(batch, part, scored)

    def _clean(
        self,
        batch: Batch,
        own: Part,
        scored: Scored,
        theirs: Part | None,
        by_canary: Scored | None,
    ) -> bool:
        """Answer a batch without a fault: production's calls, then the canary's. False: it has one.

        scored     production's, of the whole batch; by_canary: of *theirs*.
        """
        if not scored.faultless or not (by_canary is None or by_canary.faultless):
            return False
        routes, at_unix_ns = batch.routes, self._clock.unix_ns()
        flags = batch.flags(batch.whole())
        production, canary = Done(scored, 0, b""), None
        if len(own):
            scores = scored.scores[own.rows]
            answer = Answer(own, routes.production.version, PRODUCTION, scores, flags[own.rows])
            production = self._reply(batch, answer, scored, at_unix_ns, more=by_canary is not None)
        if by_canary is not None:
            assert theirs is not None
            assert routes.canary is not None
            version = routes.canary.version
            answer = Answer(theirs, version, CANARY, by_canary.scores, flags[theirs.rows])
            canary = self._reply(batch, answer, by_canary, at_unix_ns, more=False)
            routes.breaker.record([], any_good=True, at_unix_ns=0)
        self._aside.clean(Clean(batch, flags, at_unix_ns, production, canary))
        return True

    def _reply(
        self, batch: Batch, answer: Answer, scored: Scored, at_unix_ns: int, *, more: bool
    ) -> Done:
        answer.prediction_ids = self._ids.write(batch, answer, at_unix_ns // 1_000_000)
        self._ingress.answer(replies_of(batch, answer), more=more)
        return Done(scored, self._clock.now_ns(), answer.prediction_ids)

    # Scoring

    def _score_here(self, batch: Batch, production: Participant, part: Part) -> Scored:
        """Score on the loop: after the others were asked, who run meanwhile on their threads."""
        lane = production.version.lane
        if not len(part):
            return Scored.late(np.zeros(1, dtype=np.uint32), lane.outputs)
        score = lane.score_timed if batch.routes.compared else lane.score_inline
        return score(batch.inputs(part, production), part.row_offsets)

    async def _score(self, batch: Batch, participant: Participant, part: Part) -> Scored:
        matrix = batch.inputs(part, participant)
        return await participant.version.lane.score_aside(matrix, part.row_offsets).back()

    def _start(self, batch: Batch, participant: Participant | None, part: Part) -> Run | None:
        if participant is None or not len(part):
            return None
        matrix = batch.inputs(part, participant)
        return participant.version.lane.score_aside(matrix, part.row_offsets)

    def _start_canary(self, batch: Batch, part: Part) -> Run | None:
        canary = batch.routes.canary
        if canary is None or batch.routes.breaker.open or canary.version.lane.stuck:
            return None
        return self._start(batch, canary, part)

    # Answering

    async def _answer_production(self, batch: Batch, part: Part, scored: Scored) -> None:
        """Answer production's own calls; those it failed on go to the standby, if there is one."""
        routes = batch.routes
        own = scored.first(len(part), int(part.row_offsets[-1]))
        good = fine(own)
        if own.faultless:
            self._send(batch, part, routes.production, PRODUCTION, own.scores)
        else:
            self._send_some(batch, part, own, np.flatnonzero(good), routes.production, PRODUCTION)
            await self._rescue(batch, part, own, np.flatnonzero(~good), routes.standby)
        fallen_back = 0 if routes.standby is None else len(good) - int(np.count_nonzero(good))
        self._tell(batch, routes.production, ARM_PRODUCTION, part, own, None, fallen_back)

    async def _answer_standby(self, batch: Batch, part: Part, scored: Scored) -> None:
        """Answer the baseline's calls; those it failed on go to production."""
        routes = batch.routes
        assert routes.standby is not None
        good = fine(scored)
        self._send_some(batch, part, scored, np.flatnonzero(good), routes.standby, PRODUCTION)
        if not good.all():
            bad = np.flatnonzero(~good)
            await self._rescue(batch, part, scored, bad, routes.production)
        fallen_back = int(np.count_nonzero(~good))
        self._tell(batch, routes.standby, ARM_STANDBY, part, scored, None, fallen_back)

    async def _answer_pins(self, batch: Batch, participant: Participant) -> None:
        """Answer the calls that named this version; they asked for it, so nobody stands in."""
        pins = batch.assignment.pins
        calls = np.array([c for c, p in pins.items() if p is participant], dtype=np.intp)
        part = batch.part(calls)
        scored = await self._score(batch, participant, part)
        good = fine(scored)
        self._send_some(batch, part, scored, np.flatnonzero(good), participant, PINNED)
        if not good.all():
            await self._rescue(batch, part, scored, np.flatnonzero(~good), None)
        self._tell(batch, participant, ARM_PINNED, part, scored, None, 0)

    async def _answer_canary(
        self,
        batch: Batch,
        part: Part,
        by_production: Scored,
        run: Run | None,
    ) -> None:
        """Answer the canary's calls: with its score, or with production's in the same call."""
        routes = batch.routes
        canary = routes.canary
        assert canary is not None
        offered = not routes.breaker.open
        first = len(by_production.faults) - len(part)
        safe = Scored(
            by_production.scores[len(by_production.scores) - int(part.row_offsets[-1]) :],
            by_production.faults[first:],
        )
        scored, late_fairly = await self._within_budget(batch, part, canary.version.lane, run)
        if scored.faultless and offered:
            self._send(batch, part, canary, CANARY, scored.scores)
            self._tell(batch, canary, ARM_CANARY, part, scored, safe, 0)
            routes.breaker.record([], any_good=True, at_unix_ns=0)
            return
        good, covered = fine(scored), fine(safe)
        self._send_some(batch, part, scored, np.flatnonzero(good), canary, CANARY)
        saved = np.flatnonzero(~good & covered)
        self._send_some(batch, part, safe, saved, routes.production, FALLBACK)
        lost = np.flatnonzero(~good & ~covered)
        if len(lost):
            await self._rescue(batch, part, safe, lost, routes.standby)
        if not offered or _only_hurried(scored, late_fairly=late_fairly):
            self._aside.passed_over(routes, canary.version, len(part))
        else:
            self._tell(batch, canary, ARM_CANARY, part, scored, safe, len(saved))
        if offered:
            self._judge_here(batch, part, scored, covered)

    async def _within_budget(
        self, batch: Batch, part: Part, lane: Lane, run: Run | None
    ) -> tuple[Scored, bool]:
        """Wait for the canary; also whether it was asked, and had its whole budget.

        A caller in a hurry is answered by production before the budget is up, a lane with too
        many runs waiting is not asked again, and a run may wait for a processor or for the
        interpreter, the canary's longer, because production's callers are answered first. None of
        this accuses the canary.
        """
        if run is None:
            return Scored.late(part.row_offsets, lane.outputs), False
        fairly = True
        if run.result() is None and run.on_loop is not None:
            now_ns = self._clock.now_ns()
            budget_ns = batch.routes.budgets.canary_ns - (now_ns - batch.asked_ns)
            deadline_ns = int(batch.calls.deadline_ns[part.calls].min())
            kept_ns = max(LAST_MOMENT_NS, LAST_MOMENT_SHARE * (deadline_ns - batch.asked_ns))
            left_ns = deadline_ns - now_ns - kept_ns
            fairly = budget_ns <= left_ns
            await asyncio.wait({run.on_loop}, timeout=max(min(budget_ns, left_ns), 0) / 1e9)
        if (scored := run.result()) is not None:
            return scored, fairly
        late = Scored.late(part.row_offsets, lane.outputs)
        return late, fairly and lane.late_by_itself(run, batch.routes.budgets.canary_ns)

    def _judge_here(
        self, batch: Batch, part: Part, scored: Scored, covered: NDArray[np.bool_]
    ) -> None:
        """Let the breaker see this run: keys the canary failed on while production was fine.

        Being late says nothing here until the canary's thread is really hung: its evidence goes
        to the controller, which holds both arms to one clock.
        """
        routes = batch.routes
        assert routes.canary is not None
        good = fine(scored)
        if not routes.canary.version.lane.hung:
            covered = covered & (scored.faults != Fault.LATE)
        keys = batch.assignment.key_hash[part.indexes()[~good & covered]].tolist()
        unix_ns = self._clock.unix_ns()
        if routes.breaker.record(keys, any_good=bool(good.any()), at_unix_ns=unix_ns):
            kinds = sorted({Fault(f).name.lower() for f in scored.faults.tolist() if f})
            self._aside.breaker_opened(routes, f"failed on every key: {', '.join(kinds)}", unix_ns)

    async def _rescue(
        self,
        batch: Batch,
        part: Part,
        scored: Scored,
        places: NDArray[np.intp],
        other: Participant | None,
    ) -> None:
        """Answer calls that their version failed on: by another, by the default, or INTERNAL."""
        routes = batch.routes
        if other is not None and len(places):
            failed = part.take(places)
            again = await self._score(batch, other, failed)
            good = fine(again)
            self._send_some(batch, failed, again, np.flatnonzero(good), other, FALLBACK)
            places = places[~good]
        if routes.budgets.nan_scores_defaulted:
            unusable = places[scored.faults[places] == Fault.NOT_FINITE]
            self._send_some(batch, part, scored, unusable, routes.production, PRODUCTION)
            places = np.setdiff1d(places, unusable)
        if len(places):
            kinds = sorted({Fault(f).name.lower() for f in scored.faults[places].tolist()})
            error_id = self._faults.note(f"{routes.model}: {len(places)} calls {', '.join(kinds)}")
            refusal = refuse_internal(error_id)
            self._ingress.refuse(batch.calls.handles[part.indexes()[places]], refusal)
            self._aside.failed(routes, refusal, len(places))

    def _send_some(
        self,
        batch: Batch,
        part: Part,
        scored: Scored,
        places: NDArray[np.intp],
        participant: Participant,
        role: int,
    ) -> None:
        if not len(places):
            return
        if len(places) == len(part):
            self._send(batch, part, participant, role, scored.scores)
            return
        scores = scored.scores[Part.of(places, part.row_offsets).rows]
        self._send(batch, part.take(places), participant, role, scores)

    def _send(
        self,
        batch: Batch,
        part: Part,
        participant: Participant,
        role: int,
        scores: NDArray[np.float32],
    ) -> None:
        flags = batch.flags(part)
        if not np.isfinite(scores).all():
            scores, flags = scores.copy(), flags.copy()
            default_unusable(scores, flags, batch.routes.budgets.default_score)
        answer = Answer(part, participant.version, role, scores, flags)
        unix_ms = self._clock.unix_ns() // 1_000_000
        answer.prediction_ids = self._ids.write(batch, answer, unix_ms)
        self._ingress.answer(replies_of(batch, answer))
        self._aside.answered(batch, answer, batch.inputs(part, participant))

    def _tell(
        self,
        batch: Batch,
        participant: Participant,
        arm: int,
        part: Part,
        scored: Scored,
        expected: Scored | None,
        fallen_back: int,
    ) -> None:
        """Note what this version did with these calls, whoever answered them in the end."""
        calls, routes = part.calls, batch.routes
        assignment, arrived_ns = batch.assignment, batch.calls.arrived_ns
        overdue = routes.compared and scored.overdue(routes.budgets.canary_ns)
        told = Told(
            key_hash=assignment.key_hash[calls],
            faults=scored.faults,
            held_out=None if assignment.holdout is None else assignment.holdout[calls],
            latency_ns=self._clock.now_ns() - arrived_ns[calls],
            scores=scored.scores[:, 0],
            expected=None if expected is None else expected.scores[:, 0],
            row_offsets=part.row_offsets,
            flags=batch.flags(part),
            fallen_back=fallen_back,
            broken=batch.looked.broken if arm == ARM_PRODUCTION else 0,
            overdue=np.full(len(part), overdue) if overdue else None,
        )
        if routes.compared:
            told.batch_calls = np.full(len(part), batch.calls.calls)
        if scored.took_ns:
            told.done_ns = batch.asked_ns - arrived_ns[calls] + scored.worked_ns
        self._aside.told(routes, participant.version, arm, told)


def _back(run: Run | None, part: Part) -> bool:
    """Whether who was asked for *part* is done already, on the loop; nobody: it has no calls."""
    return not len(part) if run is None else run.in_thread is None


def _only_hurried(scored: Scored, *, late_fairly: bool) -> bool:
    """Whether the canary did nothing worse than not to be done before a hurried caller."""
    return not late_fairly and bool((scored.faults == Fault.LATE).all())
