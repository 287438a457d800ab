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
from gateway.internal_error_log import InternalErrorLog
from gateway.models.executor import Fault, ModelExecutor, Scored, ScoringRun
from gateway.models.routes import Participant
from gateway.predict.batch import (
    Answer,
    Batch,
    BatchSlice,
    PredictionIdWriter,
    answered_mask,
    replace_unusable_scores,
    replies_of,
)
from gateway.status import refuse_internal
from gateway.telemetry.fault_free import FaultFreeBatch, VersionResult
from gateway.telemetry.observations import Observations
from gateway.telemetry.recorder import Recorder
from protos.predict_pb2 import CANARY, FALLBACK, PINNED, PRODUCTION
from protos.window_pb2 import ARM_CANARY, ARM_PINNED, ARM_PRODUCTION, ARM_STANDBY

NO_CALLS: NDArray[np.intp] = np.empty(0, dtype=np.intp)
"""No calls."""
REPLY_RESERVE_NS = 1_000_000
REPLY_RESERVE_SHARE = 0.05
"""Kept back from a caller's deadline for the reply itself: a twentieth of what was left when its
versions were asked, a millisecond at least. One alone was missed by one caller in three on a busy
host."""


class Dispatcher:
    """Scores batches and answers their calls."""

    def __init__(
        self,
        ingress: Ingress,
        id_writer: PredictionIdWriter,
        recorder: Recorder,
        clock: Clock,
        error_log: InternalErrorLog,
    ) -> None:
        self._ingress = ingress
        self._id_writer = id_writer
        self._recorder = recorder
        self._clock = clock
        self._error_log = error_log

    async def dispatch(self, batch: Batch, batch_slot: Callable[[], None]) -> None:
        """Answer every call of *batch* that routing did not refuse.

        *leave* is called once no more than a candidate is being waited for, so that a slow
        candidate never takes a place that production's calls could have.
        """
        routes, drawn = batch.routes, batch.assignment
        batch.scoring_started_ns = self._clock.now_ns()
        if drawn.arm is None:
            await self._answer_production_only(batch)
            batch_slot()
            return
        mine, candidates = drawn.calls_in_arm(ARM_PRODUCTION), drawn.calls_in_arm(ARM_CANARY)
        baseline = NO_CALLS if routes.standby is None else drawn.calls_in_arm(ARM_STANDBY)
        own, theirs = batch.slice_calls(mine), batch.slice_calls(candidates)
        canary_run = self._start_canary_run(batch, theirs)
        standby_run = None
        if len(baseline):
            standby_run = self._start_run(batch, routes.standby, batch.slice_calls(baseline))
        if len(mine) + len(candidates) < batch.calls.calls or not _run_finished(canary_run, theirs):
            part = own.concatenated(theirs)
            scored = self._score_on_loop(batch, routes.production, part)
        else:  # two versions at most, and both are done: mostly there is nothing to part
            scored = self._score_on_loop(batch, routes.production, batch.all_calls())
            by_canary = None if canary_run is None else canary_run.result()
            if self._answer_fault_free(batch, own, scored, theirs, by_canary):
                batch_slot()
                return
            part = own.concatenated(theirs)
            scored = scored.select_calls(part.call_index_array(), part.row_indexes)
        if len(mine):
            rows = batch.inputs(part, routes.production)[: int(own.row_offsets[-1])]
            own.cached_inputs = routes.production, rows
            await self._answer_production(batch, own, scored)
        if standby_run is not None and routes.standby is not None:
            await self._answer_standby(batch, batch.slice_calls(baseline), await standby_run.wait())
        for participant in {id(p): p for p in drawn.pins.values()}.values():
            await self._answer_pinned(batch, participant)
        if len(part):
            self._recorder.offer_shadow_copies(batch, part, scored)
        batch_slot()
        if len(candidates):
            await self._answer_canary(batch, theirs, scored, canary_run)

    async def _answer_production_only(self, batch: Batch) -> None:
        """Answer a batch that is production's alone: the usual case, nothing is cut or copied."""
        routes = batch.routes
        part = batch.all_calls()
        scored = self._score_on_loop(batch, routes.production, part)
        if self._answer_fault_free(batch, part, scored, None, None):
            return
        await self._answer_production(batch, part, scored)
        if routes.shadows:
            self._recorder.offer_shadow_copies(batch, part, scored)

    def _answer_fault_free(
        self,
        batch: Batch,
        production_slice: BatchSlice,
        scored: Scored,
        canary_slice: BatchSlice | None,
        canary_scored: Scored | None,
    ) -> bool:
        """Answer a batch without a fault: production's calls, then the canary's. False: it has one.

        scored     production's, of the whole batch; by_canary: of *theirs*.
        """
        if not scored.faultless or not (canary_scored is None or canary_scored.faultless):
            return False
        routes, at_unix_ns = batch.routes, self._clock.unix_ns()
        flags = batch.flags(batch.all_calls())
        production, canary = VersionResult(scored, 0, b""), None
        if len(production_slice):
            scores = scored.scores[production_slice.row_indexes]
            answer = Answer(
                production_slice,
                routes.production.version,
                PRODUCTION,
                scores,
                flags[production_slice.row_indexes],
            )
            production = self._send_reply(
                batch, answer, scored, at_unix_ns, more=canary_scored is not None
            )
        if canary_scored is not None:
            assert canary_slice is not None
            assert routes.canary is not None
            version = routes.canary.version
            answer = Answer(
                canary_slice, version, CANARY, canary_scored.scores, flags[canary_slice.row_indexes]
            )
            canary = self._send_reply(batch, answer, canary_scored, at_unix_ns, more=False)
            routes.breaker.record([], any_answered=True, at_unix_ns=0)
        self._recorder.record_fault_free_batch(
            FaultFreeBatch(batch, flags, at_unix_ns, production, canary)
        )
        return True

    def _send_reply(
        self, batch: Batch, answer: Answer, scored: Scored, at_unix_ns: int, *, more: bool
    ) -> VersionResult:
        answer.prediction_ids = self._id_writer.write(batch, answer, at_unix_ns // 1_000_000)
        self._ingress.send_replies(replies_of(batch, answer), more=more)
        return VersionResult(scored, self._clock.now_ns(), answer.prediction_ids)

    # Scoring

    def _score_on_loop(
        self, batch: Batch, production: Participant, batch_slice: BatchSlice
    ) -> Scored:
        """Score on the loop: after the others were asked, who run meanwhile on their threads."""
        lane = production.version.executor
        if not len(batch_slice):
            return Scored.all_late(np.zeros(1, dtype=np.uint32), lane.outputs)
        score = lane.score_timed if batch.routes.compared else lane.score_inline
        return score(batch.inputs(batch_slice, production), batch_slice.row_offsets)

    async def _score_on_executor(
        self, batch: Batch, participant: Participant, batch_slice: BatchSlice
    ) -> Scored:
        matrix = batch.inputs(batch_slice, participant)
        return await participant.version.executor.start_run(matrix, batch_slice.row_offsets).wait()

    def _start_run(
        self, batch: Batch, participant: Participant | None, batch_slice: BatchSlice
    ) -> ScoringRun | None:
        if participant is None or not len(batch_slice):
            return None
        matrix = batch.inputs(batch_slice, participant)
        return participant.version.executor.start_run(matrix, batch_slice.row_offsets)

    def _start_canary_run(self, batch: Batch, batch_slice: BatchSlice) -> ScoringRun | None:
        canary = batch.routes.canary
        if canary is None or batch.routes.breaker.open or canary.version.executor.queue_full:
            return None
        return self._start_run(batch, canary, batch_slice)

    # Answering

    async def _answer_production(
        self, batch: Batch, batch_slice: BatchSlice, scored: Scored
    ) -> None:
        """Answer production's own calls; those it failed on go to the standby, if there is one."""
        routes = batch.routes
        own = scored.first_calls(len(batch_slice), int(batch_slice.row_offsets[-1]))
        good = answered_mask(own)
        if own.faultless:
            self._send_slice(batch, batch_slice, routes.production, PRODUCTION, own.scores)
        else:
            self._send_subset(
                batch, batch_slice, own, np.flatnonzero(good), routes.production, PRODUCTION
            )
            await self._answer_failed_calls(
                batch, batch_slice, own, np.flatnonzero(~good), routes.standby
            )
        fallen_back = 0 if routes.standby is None else len(good) - int(np.count_nonzero(good))
        self._record_observations(
            batch, routes.production, ARM_PRODUCTION, batch_slice, own, None, fallen_back
        )

    async def _answer_standby(self, batch: Batch, batch_slice: BatchSlice, scored: Scored) -> None:
        """Answer the baseline's calls; those it failed on go to production."""
        routes = batch.routes
        assert routes.standby is not None
        good = answered_mask(scored)
        self._send_subset(
            batch, batch_slice, scored, np.flatnonzero(good), routes.standby, PRODUCTION
        )
        if not good.all():
            bad = np.flatnonzero(~good)
            await self._answer_failed_calls(batch, batch_slice, scored, bad, routes.production)
        fallen_back = int(np.count_nonzero(~good))
        self._record_observations(
            batch, routes.standby, ARM_STANDBY, batch_slice, scored, None, fallen_back
        )

    async def _answer_pinned(self, batch: Batch, participant: Participant) -> None:
        """Answer the calls that named this version; they asked for it, so nobody stands in."""
        pins = batch.assignment.pins
        calls = np.array([c for c, p in pins.items() if p is participant], dtype=np.intp)
        part = batch.slice_calls(calls)
        scored = await self._score_on_executor(batch, participant, part)
        good = answered_mask(scored)
        self._send_subset(batch, part, scored, np.flatnonzero(good), participant, PINNED)
        if not good.all():
            await self._answer_failed_calls(batch, part, scored, np.flatnonzero(~good), None)
        self._record_observations(batch, participant, ARM_PINNED, part, scored, None, 0)

    async def _answer_canary(
        self,
        batch: Batch,
        batch_slice: BatchSlice,
        production_scored: Scored,
        run: ScoringRun | None,
    ) -> None:
        """Answer the canary's calls: with its score, or with production's in the same call."""
        routes = batch.routes
        canary = routes.canary
        assert canary is not None
        offered = not routes.breaker.open
        first = len(production_scored.faults) - len(batch_slice)
        safe = Scored(
            production_scored.scores[
                len(production_scored.scores) - int(batch_slice.row_offsets[-1]) :
            ],
            production_scored.faults[first:],
        )
        scored, late_fairly = await self._wait_for_canary(
            batch, batch_slice, canary.version.executor, run
        )
        if scored.faultless and offered:
            self._send_slice(batch, batch_slice, canary, CANARY, scored.scores)
            self._record_observations(batch, canary, ARM_CANARY, batch_slice, scored, safe, 0)
            routes.breaker.record([], any_answered=True, at_unix_ns=0)
            return
        good, covered = answered_mask(scored), answered_mask(safe)
        self._send_subset(batch, batch_slice, scored, np.flatnonzero(good), canary, CANARY)
        saved = np.flatnonzero(~good & covered)
        self._send_subset(batch, batch_slice, safe, saved, routes.production, FALLBACK)
        lost = np.flatnonzero(~good & ~covered)
        if len(lost):
            await self._answer_failed_calls(batch, batch_slice, safe, lost, routes.standby)
        if not offered or _late_for_short_deadline(scored, had_full_budget=late_fairly):
            self._recorder.record_canary_skipped(routes, canary.version, len(batch_slice))
        else:
            self._record_observations(
                batch, canary, ARM_CANARY, batch_slice, scored, safe, len(saved)
            )
        if offered:
            self._update_breaker(batch, batch_slice, scored, covered)

    async def _wait_for_canary(
        self, batch: Batch, batch_slice: BatchSlice, executor: ModelExecutor, run: ScoringRun | None
    ) -> tuple[Scored, bool]:
        """Wait for the canary; also whether it was asked, and had its whole budget.

        A caller in a hurry is answered by production before the budget is up, a lane with too
        many runs waiting is not asked again, and a run may wait for a processor or for the
        interpreter, the canary's longer, because production's callers are answered first. None of
        this accuses the canary.
        """
        if run is None:
            return Scored.all_late(batch_slice.row_offsets, executor.outputs), False
        fairly = True
        if run.result() is None and run.loop_future is not None:
            now_ns = self._clock.now_ns()
            budget_ns = batch.routes.limits.canary_ns - (now_ns - batch.scoring_started_ns)
            deadline_ns = int(batch.calls.deadline_ns[batch_slice.call_indexes].min())
            kept_ns = max(
                REPLY_RESERVE_NS, REPLY_RESERVE_SHARE * (deadline_ns - batch.scoring_started_ns)
            )
            left_ns = deadline_ns - now_ns - kept_ns
            fairly = budget_ns <= left_ns
            await asyncio.wait({run.loop_future}, timeout=max(min(budget_ns, left_ns), 0) / 1e9)
        if (scored := run.result()) is not None:
            return scored, fairly
        late = Scored.all_late(batch_slice.row_offsets, executor.outputs)
        return late, fairly and executor.caused_delay(run, batch.routes.limits.canary_ns)

    def _update_breaker(
        self, batch: Batch, batch_slice: BatchSlice, scored: Scored, covered: NDArray[np.bool_]
    ) -> None:
        """Let the breaker see this run: keys the canary failed on while production was fine.

        Being late says nothing here until the canary's thread is really hung: its evidence goes
        to the controller, which holds both arms to one clock.
        """
        routes = batch.routes
        assert routes.canary is not None
        good = answered_mask(scored)
        if not routes.canary.version.executor.hung:
            covered = covered & (scored.faults != Fault.LATE)
        keys = batch.assignment.key_hash[batch_slice.call_index_array()[~good & covered]].tolist()
        unix_ns = self._clock.unix_ns()
        if routes.breaker.record(keys, any_answered=bool(good.any()), at_unix_ns=unix_ns):
            kinds = sorted({Fault(f).name.lower() for f in scored.faults.tolist() if f})
            self._recorder.report_breaker_open(
                routes, f"failed on every key: {', '.join(kinds)}", unix_ns
            )

    async def _answer_failed_calls(
        self,
        batch: Batch,
        batch_slice: BatchSlice,
        scored: Scored,
        indexes: NDArray[np.intp],
        fallback: Participant | None,
    ) -> None:
        """Answer calls that their version failed on: by another, by the default, or INTERNAL."""
        routes = batch.routes
        if fallback is not None and len(indexes):
            failed = batch_slice.subset(indexes)
            again = await self._score_on_executor(batch, fallback, failed)
            good = answered_mask(again)
            self._send_subset(batch, failed, again, np.flatnonzero(good), fallback, FALLBACK)
            indexes = indexes[~good]
        if routes.limits.nan_scores_defaulted:
            unusable = indexes[scored.faults[indexes] == Fault.NOT_FINITE]
            self._send_subset(batch, batch_slice, scored, unusable, routes.production, PRODUCTION)
            indexes = np.setdiff1d(indexes, unusable)
        if len(indexes):
            kinds = sorted({Fault(f).name.lower() for f in scored.faults[indexes].tolist()})
            error_id = self._error_log.log_error(
                f"{routes.model}: {len(indexes)} calls {', '.join(kinds)}"
            )
            refusal = refuse_internal(error_id)
            self._ingress.refuse_calls(
                batch.calls.handles[batch_slice.call_index_array()[indexes]], refusal
            )
            self._recorder.record_failures(routes, refusal, len(indexes))

    def _send_subset(
        self,
        batch: Batch,
        batch_slice: BatchSlice,
        scored: Scored,
        indexes: NDArray[np.intp],
        participant: Participant,
        role: int,
    ) -> None:
        if not len(indexes):
            return
        if len(indexes) == len(batch_slice):
            self._send_slice(batch, batch_slice, participant, role, scored.scores)
            return
        scores = scored.scores[BatchSlice.from_calls(indexes, batch_slice.row_offsets).row_indexes]
        self._send_slice(batch, batch_slice.subset(indexes), participant, role, scores)

    def _send_slice(
        self,
        batch: Batch,
        batch_slice: BatchSlice,
        participant: Participant,
        role: int,
        scores: NDArray[np.float32],
    ) -> None:
        flags = batch.flags(batch_slice)
        if not np.isfinite(scores).all():
            scores, flags = scores.copy(), flags.copy()
            replace_unusable_scores(scores, flags, batch.routes.limits.default_score)
        answer = Answer(batch_slice, participant.version, role, scores, flags)
        unix_ms = self._clock.unix_ns() // 1_000_000
        answer.prediction_ids = self._id_writer.write(batch, answer, unix_ms)
        self._ingress.send_replies(replies_of(batch, answer))
        self._recorder.record_served(batch, answer, batch.inputs(batch_slice, participant))

    def _record_observations(
        self,
        batch: Batch,
        participant: Participant,
        arm: int,
        batch_slice: BatchSlice,
        scored: Scored,
        expected: Scored | None,
        fallbacks: int,
    ) -> None:
        """Note what this version did with these calls, whoever answered them in the end."""
        calls, routes = batch_slice.call_indexes, batch.routes
        assignment, arrived_ns = batch.assignment, batch.calls.arrived_ns
        overdue = routes.compared and scored.overdue(routes.limits.canary_ns)
        told = Observations(
            key_hash=assignment.key_hash[calls],
            faults=scored.faults,
            holdout=None if assignment.holdout is None else assignment.holdout[calls],
            latency_ns=self._clock.now_ns() - arrived_ns[calls],
            scores=scored.scores[:, 0],
            expected=None if expected is None else expected.scores[:, 0],
            row_offsets=batch_slice.row_offsets,
            flags=batch.flags(batch_slice),
            fallbacks=fallbacks,
            broken=batch.features.broken if arm == ARM_PRODUCTION else 0,
            overdue=np.full(len(batch_slice), overdue) if overdue else None,
        )
        if routes.compared:
            told.batch_calls = np.full(len(batch_slice), batch.calls.calls)
        if scored.elapsed_ns:
            told.compared_latency_ns = batch.scoring_started_ns - arrived_ns[calls] + scored.cpu_ns
        self._recorder.record_observations(routes, participant.version, arm, told)


def _run_finished(run: ScoringRun | None, batch_slice: BatchSlice) -> bool:
    """Whether who was asked for *part* is done already, on the loop; nobody: it has no calls."""
    return not len(batch_slice) if run is None else run.thread_future is None


def _late_for_short_deadline(scored: Scored, *, had_full_budget: bool) -> bool:
    """Whether the canary did nothing worse than not to be done before a hurried caller."""
    return not had_full_budget and bool((scored.faults == Fault.LATE).all())
