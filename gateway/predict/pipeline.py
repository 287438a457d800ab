"""The predict pipeline: from the calls that wait in a server to their replies.

A call that waits alone takes the short path of `single_call`. All others become batches, which are
answered step by step: check deadlines, assign arms, look up features, dispatch. The recorder
(gateway.telemetry.recorder) does what follows the replies.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Assignment, Batch
from gateway.columns import Calls
from gateway.internal_error_log import InternalErrorLog
from gateway.models.routes import Routes, RouteTable
from gateway.predict.dispatch import CanaryCalls, Dispatcher
from gateway.predict.feature_lookup import OnlineStore, look_up_features
from gateway.predict.refusals import (
    MODEL_NOT_SERVED,
    NO_FEATURES,
    NO_JOURNAL,
    TOO_LATE,
    pin_refusal,
)
from gateway.predict.routing import assign_calls
from gateway.predict.shadow_pins import ShadowPins
from gateway.predict.single_call import SingleCallPath, SingleRow, StartedCall
from gateway.predict.turns import TakenTurn, TurnMember, TurnPath, UnansweredGroup
from gateway.settings import Settings
from gateway.status import Refusal, RefusedError, refuse_internal
from gateway.telemetry.recorder import Recorder
from gateway.transport.admission import split_by_deadline
from gateway.transport.call_queue import QueuedCall
from gateway.transport.server import IngressServer
from host.clock import Clock


@dataclass(frozen=True, slots=True)
class PipelineStatistics:
    """What a pipeline is doing at one moment."""

    batches_in_flight: int
    """Batches and single calls that are not finished, those that wait for a canary included."""
    slots_exhausted: bool
    """True if every batch slot is in use, so that calls wait in the server."""


class BatchSlot:
    """The right of one batch to be in flight. `release` gives it back, and only once."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots: asyncio.Semaphore | None = slots

    def release(self) -> None:
        """Give the slot back. A second call does nothing."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()


class PredictPipeline:
    """Takes calls from a server while there is a free batch slot, and sees each to its reply.

    store         None if the gateway has no online store.
    single_calls  None to send single calls through batches, too.
    turns         None to make a batch of the calls of each model.
    """

    def __init__(
        self,
        server: IngressServer,
        route_table: RouteTable,
        store: OnlineStore | None,
        dispatcher: Dispatcher,
        shadow_pins: ShadowPins,
        single_calls: SingleCallPath | None,
        turns: TurnPath | None,
        recorder: Recorder,
        clock: Clock,
        settings: Settings,
        error_log: InternalErrorLog,
    ) -> None:
        self._server = server
        self._route_table = route_table
        self._store = store
        self._dispatcher = dispatcher
        self._shadow_pins = shadow_pins
        self._single_calls = single_calls
        self._turns = turns
        self._recorder = recorder
        self._clock = clock
        self._settings = settings
        self._error_log = error_log
        self._slots = asyncio.Semaphore(settings.batches_in_flight_max)
        self._tasks: set[asyncio.Task[None]] = set()

    def statistics(self) -> PipelineStatistics:
        """Return a snapshot of the batches in flight, single calls included."""
        return PipelineStatistics(len(self._tasks), self._slots.locked())

    async def run(self) -> None:
        """Serve until cancelled. A batch is whatever waits when a batch slot is free."""
        self.publish_plans()
        on_single_call = None if self._single_calls is None else self._start_single_call
        while True:
            await self._server.wait_for_calls(on_single_call)
            if self._settings.batch_wait_us:
                await asyncio.sleep(self._settings.batch_wait_us / 1e6)
            await self._slots.acquire()
            slot = BatchSlot(self._slots)
            if self._turns is not None:
                self._start_turn(self._turns, slot)
                continue
            calls = self._server.pop_calls(self._settings.batch_rows_max)
            if calls is None:
                slot.release()
            else:
                self._start(self.run_batch(calls, slot))

    def publish_plans(self) -> None:
        """Tell the I/O thread by what it answers usual calls, if the server has such a thread.

        Call this after the worker's identity changed.
        """
        if self._turns is not None:
            self._turns.publish()

    async def wait_finished(self) -> None:
        """Wait for the batches and single calls in flight."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Single calls

    def _start_single_call(self, queued: QueuedCall) -> None:
        """Answer a call that is alone by the short path, or as a batch of one."""
        assert self._single_calls is not None
        routes = self._single_calls.routes_for(queued.call)
        if routes is None:
            self._start(self._run_further_batch(queued.to_columns()))
            return
        # Only a call that waits for the store needs a task.
        try:
            started = self._single_calls.start(routes, queued)
            row = started.request_row
            if row is None:
                self._start(self._await_single_call(self._single_calls, started))
            else:
                self._finish_single_call(self._single_calls, started, row)
        except Exception as error:  # noqa: BLE001  nothing internal may reach a caller
            self._refuse_single_call(queued, error)

    async def _await_single_call(self, single_calls: SingleCallPath, started: StartedCall) -> None:
        try:
            row = await single_calls.read_row(started)
            self._finish_single_call(single_calls, started, row)
        except Exception as error:  # noqa: BLE001  nothing internal may reach a caller
            self._refuse_single_call(started.queued, error)

    def _finish_single_call(
        self, single_calls: SingleCallPath, started: StartedCall, row: SingleRow
    ) -> None:
        """Answer a single call, or start a batch if its score needs a batch's care."""
        answered = single_calls.answer(started, row)
        if answered is None:
            self._start(self._run_further_batch(started.queued.to_columns()))
        else:
            self._server.send_reply(started.queued.handle, answered.reply)
            single_calls.record(answered)

    def _refuse_single_call(self, queued: QueuedCall, error: Exception) -> None:
        handles = np.array([queued.handle], dtype=np.uint64)
        self._server.refuse_calls(handles, self._refusal_of(error))

    async def _run_further_batch(self, calls: Calls) -> None:
        """Answer calls that were taken from the server without a slot for them."""
        await self._slots.acquire()
        await self.run_batch(calls, BatchSlot(self._slots))

    # Turns

    def _start_turn(self, turns: TurnPath, slot: BatchSlot) -> None:
        """Answer the waiting calls of all models: the usual ones in one pass, others as batches."""
        taken = turns.take(self._settings.batch_rows_max)
        if taken is None:
            slot.release()
            return
        try:
            turns.assign(taken)
        except Exception as error:  # noqa: BLE001  then batches answer all of them
            self._error_log.log_error(repr(error), error)
        # The first of the others has the slot if the pass does not need it for a read.
        others = [turns.calls_of(taken, index) for index in taken.others]
        if taken.reading:
            self._start(self._run_reading(turns, taken, slot))
        elif others:
            self._start(self.run_batch(others.pop(0), slot))
        else:
            slot.release()
        for calls in others:
            self._start(self._run_further_batch(calls))
        # Calls that wait for no read are answered before this returns.
        if taken.ready:
            try:
                self._start_unanswered(turns.answer_ready(taken))
            except Exception as error:  # noqa: BLE001  callers must not hang because of our mistake
                self._refuse_members(turns, taken, taken.ready, error)

    async def _run_reading(self, turns: TurnPath, taken: TakenTurn, slot: BatchSlot) -> None:
        """Answer the groups of a turn whose rows are read from the store."""
        try:
            self._start_unanswered(await turns.answer_reading(taken))
        except Exception as error:  # noqa: BLE001  callers must not hang because of our mistake
            self._refuse_members(turns, taken, taken.reading, error)
        finally:
            slot.release()

    def _start_unanswered(self, groups: Sequence[UnansweredGroup]) -> None:
        for group in groups:
            self._start(self._run_unanswered(group))

    async def _run_unanswered(self, group: UnansweredGroup) -> None:
        """Answer a group that failed in its pass as a batch, which handles faults call by call."""
        routes, calls, features, read_unix_ns = group
        try:
            assignment = assign_calls(routes, calls)
            await self._answer_read_batch(Batch(routes, calls, assignment, features, read_unix_ns))
        except Exception as error:  # noqa: BLE001  callers must not hang because of our mistake
            self._server.refuse_calls(calls.handles, self._refusal_of(error))

    def _refuse_members(
        self, turns: TurnPath, taken: TakenTurn, members: Sequence[TurnMember], error: Exception
    ) -> None:
        refusal = self._refusal_of(error)
        for member in members:
            self._server.refuse_calls(turns.calls_of(taken, member.group).handles, refusal)

    # Batches

    async def run_batch(self, calls: Calls, slot: BatchSlot) -> None:
        """Answer the calls of one batch. Every call ends, whatever fails."""
        try:
            canary_calls = await self._answer_batch(calls)
            # A slow canary must not hold a slot that production's calls could have.
            slot.release()
            if canary_calls is not None:
                await self._dispatcher.answer_canary(canary_calls)
        except Exception as error:  # noqa: BLE001  callers must not hang because of our mistake
            self._server.refuse_calls(calls.handles, self._refusal_of(error))
        finally:
            slot.release()

    async def _answer_batch(self, calls: Calls) -> CanaryCalls | None:
        """Answer every call that does not wait for the canary. Return those that do."""
        routes = self._route_table.get(calls.model)
        if routes is None:
            self._refuse(None, calls.model, calls.handles, MODEL_NOT_SERVED)
            return None
        # Refuse what cannot be answered in time or not be recorded as the model's policy asks.
        now_ns = self._clock.now_ns()
        split = split_by_deadline(calls, now_ns, self._settings.deadline_left_us_min * 1_000)
        if len(split.expired_handles):
            self._refuse(routes, calls.model, split.expired_handles, TOO_LATE)
        calls = split.calls
        if not calls.calls:
            return None
        if routes.limits.journal_required and not self._recorder.journal_healthy:
            self._refuse(routes, calls.model, calls.handles, NO_JOURNAL)
            return None
        # Decide which arm answers each call, and read the features of every row.
        assignment = assign_calls(routes, calls)
        unix_ns = self._clock.unix_ns()
        features = await look_up_features(
            routes, calls, self._store, now_ns=now_ns, now_unix_ms=unix_ns // 1_000_000
        )
        return await self._answer_read_batch(Batch(routes, calls, assignment, features, unix_ns))

    async def _answer_read_batch(self, batch: Batch) -> CanaryCalls | None:
        """Score and answer a batch whose features were read. Return what waits for the canary."""
        routes, calls, assignment = batch.routes, batch.calls, batch.assignment
        self._recorder.record_feature_read(routes, batch.features)
        if batch.features.read_failure and routes.limits.features_required:
            self._refuse(routes, calls.model, calls.handles, NO_FEATURES)
            return None
        self._refuse_pins(routes, calls, assignment)
        if assignment.shadow_pins:
            self._start(self._answer_shadow_pins(batch))
        return await self._dispatcher.dispatch(batch)

    async def _answer_shadow_pins(self, batch: Batch) -> None:
        try:
            await self._shadow_pins.answer(batch)
        except Exception as error:  # noqa: BLE001  callers must not hang because of our mistake
            handles = batch.calls.handles[list(batch.assignment.shadow_pins)]
            self._server.refuse_calls(handles, self._refusal_of(error))

    def _refuse_pins(self, routes: Routes, calls: Calls, assignment: Assignment) -> None:
        for pin in assignment.refused_pins:
            refusal = pin_refusal(pin, calls.model, hidden=routes.limits.hide_role)
            self._refuse(routes, calls.model, calls.handles[pin.call : pin.call + 1], refusal)

    def _refuse(
        self, routes: Routes | None, model: str, handles: NDArray[np.uint64], refusal: Refusal
    ) -> None:
        self._server.refuse_calls(handles, refusal)
        self._recorder.record_refusals(routes, model, refusal, len(handles), reason="pipeline")

    def _refusal_of(self, error: Exception) -> Refusal:
        """Return the status of a call that failed: what was refused in words, or INTERNAL."""
        if isinstance(error, RefusedError):
            return error.refusal
        return refuse_internal(self._error_log.log_error(repr(error), error))
