"""The dispatcher: which version scores which calls, and what callers get if a version fails.

Production scores its own calls and every call of the canary's share, so that production can answer
a call that the canary fails on. The order of the answers is: production's calls, the standby's,
pinned versions' one after another, and last the canary's. Only the canary's own callers wait for
the canary, and at most until its budget is spent.
"""

import asyncio
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Answer, Batch, BatchSlice
from gateway.columns import ModelShape, Replies
from gateway.internal_error_log import InternalErrorLog
from gateway.models.executor import Fault, Scored, ScoringRun
from gateway.models.routes import Participant
from gateway.predict.prediction_ids import PredictionIdWriter
from gateway.status import Code, Refusal, refuse_internal
from gateway.telemetry.journal_records import sample_served
from gateway.telemetry.native_observations import NATIVE_BATCHES, FaultFreeBatch, VersionResult
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.slice_observations import observe_slice
from gateway.transport.server import IngressServer
from host.clock import Clock
from protos.predict_pb2 import CANARY, DEFAULTED, FALLBACK, PINNED, PRODUCTION, ROLE_UNSPECIFIED
from protos.window_pb2 import ARM_CANARY, ARM_PINNED, ARM_PRODUCTION, ARM_STANDBY

NO_CALLS: NDArray[np.intp] = np.empty(0, dtype=np.intp)
REPLY_RESERVE_NS = 1_000_000
REPLY_RESERVE_SHARE = 0.05
"""Time reserved for sending the reply: this share of the time that a caller had left when scoring
started, and at least REPLY_RESERVE_NS. With a fixed millisecond one caller in three was answered
too late on a busy host."""


class CanaryCalls(NamedTuple):
    """Calls of the canary's share that are not answered yet."""

    batch: Batch
    batch_slice: BatchSlice
    production_scored: Scored
    """Production's result for the same calls."""
    run: ScoringRun | None
    """The canary's run. None if the canary was not asked."""


class Dispatcher:
    """Scores batches and answers their calls."""

    def __init__(
        self,
        server: IngressServer,
        id_writer: PredictionIdWriter,
        recorder: Recorder,
        clock: Clock,
        error_log: InternalErrorLog,
        *,
        fault_free_path: bool = True,
    ) -> None:
        """Create a dispatcher.

        fault_free_path  whether batches without a fault take the native path after their replies,
                         if the library is built. The reference path gives the same bits.
        """
        self._server = server
        self._id_writer = id_writer
        self._recorder = recorder
        self._clock = clock
        self._error_log = error_log
        self._fault_free_path = fault_free_path and NATIVE_BATCHES is not None

    async def dispatch(self, batch: Batch) -> CanaryCalls | None:
        """Score *batch* and answer its calls, except those that still wait for the canary.

        Calls whose pin is refused, or is answered by a shadow, are left out. Returns the calls that
        wait for the canary; give them to `answer_canary`.
        """
        routes, assignment = batch.routes, batch.assignment
        batch.scoring_started_ns = self._clock.now_ns()
        # The usual case: production answers every call, and nothing is cut or copied.
        if assignment.arm is None:
            await self._dispatch_to_production(batch)
            return None
        # Start the runs of the other versions, so that they run while production scores.
        production_calls = assignment.calls_in_arm(ARM_PRODUCTION)
        canary_calls = assignment.calls_in_arm(ARM_CANARY)
        standby_calls = NO_CALLS if routes.standby is None else assignment.calls_in_arm(ARM_STANDBY)
        production_slice = batch.slice_calls(production_calls)
        canary_slice = batch.slice_calls(canary_calls)
        canary_run = self._start_canary(batch, canary_slice)
        standby_run = self._start_run(batch, routes.standby, batch.slice_calls(standby_calls))
        # Production scores its own calls and the canary's.
        two_arms = len(production_calls) + len(canary_calls) == batch.calls.calls
        if two_arms and _is_done(canary_run, canary_slice):
            # The canary's result is here, so nearly always the batch has no fault.
            scored = self._score_production(batch, batch.all_calls())
            canary_scored = None if canary_run is None else canary_run.result()
            if self._answer_fault_free(
                batch, production_slice, scored, canary_slice, canary_scored
            ):
                return None
            both = production_slice.concatenated(canary_slice)
            scored = scored.select_calls(both.call_index_array(), both.row_indexes)
        else:
            both = production_slice.concatenated(canary_slice)
            scored = self._score_production(batch, both)
        # Answer the calls of each arm, production's first.
        if len(production_calls):
            rows = int(production_slice.row_offsets[-1])
            inputs = batch.inputs(both, routes.production)[:rows]
            production_slice.cached_inputs = routes.production, inputs
            await self._answer_production(batch, production_slice, scored)
        if standby_run is not None:
            standby_slice = batch.slice_calls(standby_calls)
            await self._answer_standby(batch, standby_slice, await standby_run.wait())
        for participant in {id(pin): pin for pin in assignment.pins.values()}.values():
            await self._answer_pinned(batch, participant)
        # Shadows copy calls that are answered.
        if len(production_calls):
            rows = int(production_slice.row_offsets[-1])
            own_scored = scored.first_calls(len(production_slice), rows)
            self._recorder.offer_shadow_copies(batch, production_slice, own_scored)
        if not len(canary_calls):
            return None
        production_scored = scored.last_calls(len(canary_slice), int(canary_slice.row_offsets[-1]))
        return CanaryCalls(batch, canary_slice, production_scored, canary_run)

    async def _dispatch_to_production(self, batch: Batch) -> None:
        """Score and answer a batch in which production answers every call."""
        batch_slice = batch.all_calls()
        scored = self._score_production(batch, batch_slice)
        if self._answer_fault_free(batch, batch_slice, scored, None, None):
            return
        await self._answer_production(batch, batch_slice, scored)
        self._recorder.offer_shadow_copies(batch, batch_slice, scored)

    def _answer_fault_free(
        self,
        batch: Batch,
        production_slice: BatchSlice,
        scored: Scored,
        canary_slice: BatchSlice | None,
        canary_scored: Scored | None,
    ) -> bool:
        """Answer a batch without a fault and leave one record of it. False: it has a fault.

        scored         production's result for the whole batch.
        canary_scored  the canary's result for *canary_slice*.
        """
        if not self._fault_free_path or not scored.faultless:
            return False
        if canary_scored is not None and not canary_scored.faultless:
            return False
        # A batch without a fault has one record, of what each version did.
        routes, at_unix_ns = batch.routes, self._clock.unix_ns()
        flags = batch.flags(batch.all_calls())
        production, canary = VersionResult(scored, 0, b""), None
        # Production's callers are answered first.
        if len(production_slice):
            rows = production_slice.row_indexes
            version = routes.production.version
            answer = Answer(production_slice, version, PRODUCTION, scored.scores[rows], flags[rows])
            more = canary_scored is not None
            production = self._send_result(batch, answer, scored, at_unix_ns, more=more)
        if canary_scored is not None:
            assert canary_slice is not None
            assert routes.canary is not None
            rows, version = canary_slice.row_indexes, routes.canary.version
            answer = Answer(canary_slice, version, CANARY, canary_scored.scores, flags[rows])
            canary = self._send_result(batch, answer, canary_scored, at_unix_ns, more=False)
            routes.breaker.record([], any_answered=True, at_unix_ns=0)
        self._recorder.record(FaultFreeBatch(batch, flags, at_unix_ns, production, canary))
        return True

    def _send_result(
        self, batch: Batch, answer: Answer, scored: Scored, at_unix_ns: int, *, more: bool
    ) -> VersionResult:
        answer.prediction_ids = self._id_writer.write(batch, answer, at_unix_ns // 1_000_000)
        self._server.send_replies(_replies(batch, answer), more=more)
        return VersionResult(scored, self._clock.now_ns(), answer.prediction_ids)

    # Scoring

    def _score_production(self, batch: Batch, batch_slice: BatchSlice) -> Scored:
        """Score on the event loop, while the other versions run on their threads."""
        production = batch.routes.production
        executor = production.version.executor
        if not len(batch_slice):
            return Scored.all_late(np.zeros(1, dtype=np.uint32), executor.outputs)
        score = executor.score_timed if batch.routes.compared else executor.score_inline
        return score(batch.inputs(batch_slice, production), batch_slice.row_offsets)

    async def _score_on_executor(
        self, batch: Batch, participant: Participant, batch_slice: BatchSlice
    ) -> Scored:
        inputs = batch.inputs(batch_slice, participant)
        return await participant.version.executor.start_run(inputs, batch_slice.row_offsets).wait()

    def _start_run(
        self, batch: Batch, participant: Participant | None, batch_slice: BatchSlice
    ) -> ScoringRun | None:
        """Start a run of a version other than production. None: there is nothing to score."""
        if participant is None or not len(batch_slice):
            return None
        inputs = batch.inputs(batch_slice, participant)
        return participant.version.executor.start_run(inputs, batch_slice.row_offsets)

    def _start_canary(self, batch: Batch, batch_slice: BatchSlice) -> ScoringRun | None:
        """Start the canary's run, unless its breaker is open or its queue is full."""
        canary = batch.routes.canary
        if canary is None or batch.routes.breaker.open or canary.version.executor.queue_full:
            return None
        return self._start_run(batch, canary, batch_slice)

    # Answering

    async def _answer_production(
        self, batch: Batch, batch_slice: BatchSlice, scored: Scored
    ) -> None:
        """Answer production's own calls. Calls that it failed on go to the standby, if any."""
        routes = batch.routes
        scored = scored.first_calls(len(batch_slice), int(batch_slice.row_offsets[-1]))
        answered, failed = scored.answered, 0
        if scored.faultless:
            self._send(batch, batch_slice, routes.production, PRODUCTION, scored.scores)
        else:
            calls = np.flatnonzero(answered)
            self._send_subset(batch, batch_slice, scored, calls, routes.production, PRODUCTION)
            failed_calls = np.flatnonzero(~answered)
            failed = len(failed_calls)
            await self._answer_failed_calls(
                batch, batch_slice, scored, failed_calls, routes.standby
            )
        fallbacks = 0 if routes.standby is None else failed
        self._observe(
            batch, routes.production, ARM_PRODUCTION, batch_slice, scored, fallbacks=fallbacks
        )

    async def _answer_standby(self, batch: Batch, batch_slice: BatchSlice, scored: Scored) -> None:
        """Answer the standby's calls. Calls that it failed on go to production."""
        standby = batch.routes.standby
        assert standby is not None
        calls = np.flatnonzero(scored.answered)
        self._send_subset(batch, batch_slice, scored, calls, standby, PRODUCTION)
        failed = np.flatnonzero(~scored.answered)
        if len(failed):
            production = batch.routes.production
            await self._answer_failed_calls(batch, batch_slice, scored, failed, production)
        self._observe(batch, standby, ARM_STANDBY, batch_slice, scored, fallbacks=len(failed))

    async def _answer_pinned(self, batch: Batch, participant: Participant) -> None:
        """Answer the calls that named this version. No other version stands in for it."""
        pins = batch.assignment.pins
        pinned = np.array([call for call, pin in pins.items() if pin is participant], dtype=np.intp)
        batch_slice = batch.slice_calls(pinned)
        scored = await self._score_on_executor(batch, participant, batch_slice)
        await self.answer_pinned(batch, participant, batch_slice, scored)

    async def answer_pinned(
        self, batch: Batch, participant: Participant, batch_slice: BatchSlice, scored: Scored
    ) -> None:
        """Answer the calls of a slice that named *participant*, which gave them *scored*."""
        calls = np.flatnonzero(scored.answered)
        self._send_subset(batch, batch_slice, scored, calls, participant, PINNED)
        failed = np.flatnonzero(~scored.answered)
        if len(failed):
            await self._answer_failed_calls(batch, batch_slice, scored, failed, None)
        self._observe(batch, participant, ARM_PINNED, batch_slice, scored, fallbacks=0)

    async def answer_canary(self, calls: CanaryCalls) -> None:
        """Answer the canary's calls: with its score, or with production's in the same call."""
        try:
            await self._answer_canary(calls)
        finally:
            batch, batch_slice, production_scored, _ = calls
            self._recorder.offer_shadow_copies(batch, batch_slice, production_scored)

    async def _answer_canary(self, calls: CanaryCalls) -> None:
        batch, batch_slice, production_scored, _ = calls
        routes, canary = batch.routes, batch.routes.canary
        assert canary is not None
        breaker_closed = not routes.breaker.open
        scored, had_full_budget = await self._wait_for_canary(calls)
        # The usual case: the canary answered every call.
        if scored.faultless and breaker_closed:
            paired = production_scored.scores
            self._send(batch, batch_slice, canary, CANARY, scored.scores, paired)
            self._observe(
                batch, canary, ARM_CANARY, batch_slice, scored, production_scored, fallbacks=0
            )
            routes.breaker.record([], any_answered=True, at_unix_ns=0)
            return
        # Else each call gets the canary's score, production's, the standby's or an error.
        answered, covered = scored.answered, production_scored.answered
        self._send_subset(
            batch,
            batch_slice,
            scored,
            np.flatnonzero(answered),
            canary,
            CANARY,
            production_scored.scores,
        )
        fallbacks = np.flatnonzero(~answered & covered)
        self._send_subset(
            batch, batch_slice, production_scored, fallbacks, routes.production, FALLBACK
        )
        failed = np.flatnonzero(~answered & ~covered)
        if len(failed):
            await self._answer_failed_calls(
                batch, batch_slice, production_scored, failed, routes.standby
            )
            # What no version can score is no fault of the canary.
            unusable = production_scored.faults == Fault.BAD_INPUT
            scored.faults[unusable & (scored.faults == Fault.NOT_FINITE)] = Fault.BAD_INPUT
        # Record what the canary did, unless it had no fair chance.
        hurried = not had_full_budget and bool((scored.faults == Fault.LATE).all())
        if not breaker_closed or hurried:
            self._recorder.record_canary_skipped(routes, canary.version, len(batch_slice))
        else:
            self._observe(
                batch,
                canary,
                ARM_CANARY,
                batch_slice,
                scored,
                production_scored,
                fallbacks=len(fallbacks),
            )
        if breaker_closed:
            self._update_breaker(batch, batch_slice, scored, covered)

    async def _wait_for_canary(self, calls: CanaryCalls) -> tuple[Scored, bool]:
        """Wait for the canary's run. Return its result, and whether lateness is the canary's fault.

        Lateness does not count against the canary in three cases:
        - a caller has a short deadline, so production answers it before the budget is spent;
        - the canary has too many queued runs, so it gets no further run;
        - the run waited for a processor or for the interpreter's lock, which production's answers
          use first.
        """
        batch, batch_slice, _, run = calls
        assert batch.routes.canary is not None
        executor = batch.routes.canary.version.executor
        if run is None:
            return Scored.all_late(batch_slice.row_offsets, executor.outputs), False
        canary_ns, full_budget = batch.routes.limits.canary_ns, True
        if run.result() is None and run.loop_future is not None:
            # Wait until the budget is spent or a caller's deadline is near.
            now_ns = self._clock.now_ns()
            budget_ns = canary_ns - (now_ns - batch.scoring_started_ns)
            deadline_ns = int(batch.calls.deadline_ns[batch_slice.call_indexes].min())
            had_ns = deadline_ns - batch.scoring_started_ns
            reserve_ns = max(REPLY_RESERVE_NS, REPLY_RESERVE_SHARE * had_ns)
            left_ns = deadline_ns - now_ns - reserve_ns
            full_budget = budget_ns <= left_ns
            timeout_s = max(min(budget_ns, left_ns), 0) / 1e9
            await asyncio.wait({run.loop_future}, timeout=timeout_s)
        if (scored := run.result()) is not None:
            return scored, full_budget
        late = Scored.all_late(batch_slice.row_offsets, executor.outputs)
        return late, full_budget and executor.caused_delay(run, canary_ns)

    def _update_breaker(
        self, batch: Batch, batch_slice: BatchSlice, scored: Scored, covered: NDArray[np.bool_]
    ) -> None:
        """Give the breaker the keys that the canary failed on while production did not.

        Lateness counts here only if the canary's thread hangs. Otherwise the controller judges it,
        which holds both arms to one clock.

        covered  (P,) True where production answered.
        """
        routes = batch.routes
        assert routes.canary is not None
        answered = scored.answered
        if not routes.canary.version.executor.hung:
            covered = covered & (scored.faults != Fault.LATE)
        failed = batch_slice.call_index_array()[~answered & covered]
        keys = batch.assignment.key_hash[failed].tolist()
        unix_ns = self._clock.unix_ns()
        if routes.breaker.record(keys, any_answered=bool(answered.any()), at_unix_ns=unix_ns):
            reason = f"failed on every key of the last runs: {_fault_names(scored.faults)}"
            self._recorder.report_breaker_open(routes, reason, unix_ns)

    async def _answer_failed_calls(
        self,
        batch: Batch,
        batch_slice: BatchSlice,
        scored: Scored,
        calls: NDArray[np.intp],
        fallback: Participant | None,
    ) -> None:
        """Answer calls that a version failed on: by *fallback*, by a default score, or an error.

        calls  indexes of the failed calls within *batch_slice*.
        """
        # Another version may have scores for these calls.
        routes = batch.routes
        if fallback is not None and len(calls):
            failed = batch_slice.subset(calls)
            again = await self._score_on_executor(batch, fallback, failed)
            answered = np.flatnonzero(again.answered)
            self._send_subset(batch, failed, again, answered, fallback, FALLBACK)
            calls = calls[~again.answered]
        # What an input of the caller makes NaN is not counted against the versions.
        nan_calls = calls[scored.faults[calls] == Fault.NOT_FINITE]
        refusals = _refusals_of_inputs(batch, batch_slice, scored, nan_calls)
        scored.faults[list(refusals)] = Fault.BAD_INPUT
        # A model's policy may give calls with a NaN score a default score instead of an error.
        if routes.limits.nan_scores_defaulted:
            self._send_subset(batch, batch_slice, scored, nan_calls, routes.production, PRODUCTION)
            calls = np.setdiff1d(calls, nan_calls)
        # Else a call with an input that makes its score NaN is told which input it is.
        else:
            for call, refusal in refusals.items():
                index = batch_slice.call_index_array()[call : call + 1]
                self._server.refuse_calls(batch.calls.handles[index], refusal)
                self._recorder.record_failures(routes, refusal, 1, "input")
            calls = np.setdiff1d(calls, list(refusals)).astype(np.intp)
        # The others end with INTERNAL and the id of a line in the error log.
        if len(calls):
            names = _fault_names(scored.faults[calls])
            error_id = self._error_log.log_error(f"{routes.model}: {len(calls)} calls {names}")
            refusal = refuse_internal(error_id)
            handles = batch.calls.handles[batch_slice.call_index_array()[calls]]
            self._server.refuse_calls(handles, refusal)
            self._recorder.record_failures(routes, refusal, len(calls))

    def _send_subset(
        self,
        batch: Batch,
        batch_slice: BatchSlice,
        scored: Scored,
        calls: NDArray[np.intp],
        participant: Participant,
        role: int,
        production_scores: NDArray[np.float32] | None = None,
    ) -> None:
        """Answer some calls of a slice, by their indexes within it."""
        if not len(calls):
            return
        if len(calls) == len(batch_slice):
            self._send(batch, batch_slice, participant, role, scored.scores, production_scores)
            return
        rows = BatchSlice.from_calls(calls, batch_slice.row_offsets).row_indexes
        paired = None if production_scores is None else production_scores[rows]
        part = batch_slice.subset(calls)
        self._send(batch, part, participant, role, scored.scores[rows], paired)

    def _send(
        self,
        batch: Batch,
        batch_slice: BatchSlice,
        participant: Participant,
        role: int,
        scores: NDArray[np.float32],
        production_scores: NDArray[np.float32] | None = None,
    ) -> None:
        """Answer the calls of a slice and leave a record for the journal.

        production_scores  what production scored the same rows, if another version answers them.
        """
        # A number that is not finite has become the default score, where a policy says so.
        flags = batch.flags(batch_slice)
        unusable = ~np.isfinite(scores)
        if unusable.any():
            scores, flags = scores.copy(), flags.copy()
            scores[unusable] = batch.routes.limits.default_score
            flags[unusable.any(axis=1)] |= np.uint32(DEFAULTED)
        answer = Answer(batch_slice, participant.version, role, scores, flags)
        answer.production_scores = production_scores
        # Send the replies; the rest is for the journal and the shadows.
        unix_ns = self._clock.unix_ns()
        answer.prediction_ids = self._id_writer.write(batch, answer, unix_ns // 1_000_000)
        self._server.send_replies(_replies(batch, answer))
        batch.keep_answer_ids(answer)
        vectors = batch.inputs(batch_slice, participant)
        served = sample_served(batch, answer, vectors, unix_ns)
        if served is not None:
            self._recorder.record(served)

    def _observe(
        self,
        batch: Batch,
        participant: Participant,
        arm: int,
        batch_slice: BatchSlice,
        scored: Scored,
        production_scored: Scored | None = None,
        *,
        fallbacks: int,
    ) -> None:
        """Leave a record of what this version did, whichever version answered in the end."""
        self._recorder.record(
            observe_slice(
                batch,
                participant,
                arm,
                batch_slice,
                scored,
                production_scored=production_scored,
                fallbacks=fallbacks,
                now_ns=self._clock.now_ns(),
                unix_ns=self._clock.unix_ns(),
            )
        )


def _replies(batch: Batch, answer: Answer) -> Replies:
    """Return an answer as the columns that a server sends."""
    calls, holdout = answer.batch_slice.call_indexes, batch.assignment.holdout
    hidden = batch.routes.limits.hide_role
    return Replies(
        model=batch.routes.model,
        handles=batch.calls.handles[calls],
        version="" if hidden else answer.version.label,
        role=ROLE_UNSPECIFIED if hidden else answer.role,
        holdout=None if holdout is None else holdout[calls],
        prediction_ids=answer.prediction_ids,
        row_offsets=answer.batch_slice.row_offsets,
        scores=answer.scores,
        row_flags=answer.flags,
    )


def _refusals_of_inputs(
    batch: Batch, batch_slice: BatchSlice, scored: Scored, calls: NDArray[np.intp]
) -> dict[int, Refusal]:
    """Return the refusal of each call that has a row with an input and a score that are not finite.

    calls  indexes within *batch_slice* of calls whose score is not finite.
    """
    refusals = {}
    for call in calls.tolist():
        part = batch_slice.subset(np.array([call], dtype=np.intp))
        rows = slice(*batch_slice.row_offsets[call : call + 2].tolist())
        inputs, scores = batch.calls.inputs[part.row_indexes], scored.scores[rows]
        sentence = unusable_input(batch.routes.shape, inputs, scores)
        if sentence:
            refusals[call] = Refusal(Code.INVALID_ARGUMENT, sentence)
    return refusals


def _is_done(run: ScoringRun | None, batch_slice: BatchSlice) -> bool:
    """Return whether the canary's result is here: it ran on the event loop or has no calls."""
    return not len(batch_slice) if run is None else run.thread_future is None


def unusable_input(
    shape: ModelShape, inputs: NDArray[np.float32], scores: NDArray[np.float32]
) -> str:
    """Return which input of a call makes a score NaN or infinite, as a sentence; "" for none.

    inputs  (R, request inputs), as the call sent them, or the default of an input it left out.
    scores  (R, K) of the same rows.
    """
    failed = ~np.isfinite(scores).all(axis=1, keepdims=True)
    places = np.argwhere(~np.isfinite(inputs) & failed)
    if not len(places):
        return ""
    row, column = places[0].tolist()
    more = f" ({len(places) - 1} more are not finite)" if len(places) > 1 else ""
    name, default = shape.input_names[column], shape.input_defaults[column]
    # An input that was left out has its default, which may be NaN.
    default_text = f", or leave the input out by name for its default, {default:g}"
    if not np.isfinite(default):
        more += " or was left out, and has no default"
        default_text = ""
    return (
        f"row {row}: input {name!r} is {inputs[row, column]}{more}, and model {shape.model!r} has "
        f"no finite score for it; send a finite number{default_text}"
    )


def _fault_names(faults: NDArray[np.uint8]) -> str:
    """Return the names of the faults that occur, sorted and joined by commas."""
    return ", ".join(sorted({Fault(fault).name.lower() for fault in faults.tolist() if fault}))
