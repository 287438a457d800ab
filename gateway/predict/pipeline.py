"""A Predict walks straight down: take, admit, route, look up, score, answer; then aside."""

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.columns import Calls, Ingress
from gateway.internal_error_log import InternalErrorLog
from gateway.models.routes import Routes, RouteTable
from gateway.predict.batch import Batch
from gateway.predict.dispatch import Dispatcher
from gateway.predict.feature_lookup import OnlineStore, look_up_features
from gateway.predict.routing import Assignment, assign_calls
from gateway.settings import Settings
from gateway.status import Code, Refusal, refuse_internal
from gateway.telemetry.recorder import Recorder
from gateway.transport.admission import split_by_deadline

MODEL_NOT_SERVED = Refusal(Code.NOT_FOUND, "the model is not served any more; ask DescribeModel")
TOO_LATE = Refusal(
    Code.DEADLINE_EXCEEDED,
    "the deadline passed, or is nearer than any answer; nothing was scored; send a later one",
)
NO_FEATURES = Refusal(
    Code.UNAVAILABLE,
    "stored features cannot be read now and this model does not answer without them; retry",
    pushback_ms=500,
)
NO_JOURNAL = Refusal(
    Code.UNAVAILABLE,
    "this model answers only what it can record, and its journal cannot be written now; retry",
    pushback_ms=500,
)


class PredictPipeline:
    """Takes what has arrived, as long as there is room, and sees each batch to its replies."""

    def __init__(
        self,
        ingress: Ingress,
        route_table: RouteTable,
        store: OnlineStore | None,
        dispatcher: Dispatcher,
        recorder: Recorder,
        clock: Clock,
        settings: Settings,
        error_log: InternalErrorLog,
    ) -> None:
        self._ingress = ingress
        self._route_table = route_table
        self._store = store
        self._dispatcher = dispatcher
        self._recorder = recorder
        self._clock = clock
        self._settings = settings
        self._error_log = error_log
        self._batch_slots = asyncio.Semaphore(settings.batches_in_flight_max)
        self._batches: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until cancelled. Greedy: a batch is whatever waits when there is room for one."""
        while True:
            await self._ingress.wait_for_calls()
            if self._settings.batch_wait_us:
                await asyncio.sleep(self._settings.batch_wait_us / 1e6)
            await self._batch_slots.acquire()
            calls = self._ingress.pop_calls(self._settings.batch_rows_max)
            if calls is None:
                self._batch_slots.release()
                continue
            batch = asyncio.get_running_loop().create_task(self._run_batch(calls))
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)

    async def wait_finished(self) -> None:
        """Wait for the batches that are under way."""
        while self._batches:
            await asyncio.wait(self._batches)

    async def _run_batch(self, calls: Calls) -> None:
        """See one batch through. Whatever goes wrong, every call of it is ended."""
        leave = BatchSlot(self._batch_slots.release)
        try:
            await self._answer_batch(calls, leave.release)
        except Exception as error:  # noqa: BLE001  the last resort: callers must not hang on our bug
            refusal = refuse_internal(self._error_log.log_error(repr(error), error))
            self._ingress.refuse_calls(calls.handles, refusal)
        finally:
            leave.release()

    async def _answer_batch(self, calls: Calls, batch_slot: Callable[[], None]) -> None:
        routes = self._route_table.get(calls.model)
        if routes is None:
            self._refuse(None, calls.model, calls.handles, MODEL_NOT_SERVED)
            return
        now_ns = self._clock.now_ns()
        admitted = split_by_deadline(calls, now_ns, self._settings.deadline_left_us_min * 1_000)
        if len(admitted.expired_handles):
            self._refuse(routes, calls.model, admitted.expired_handles, TOO_LATE)
        calls = admitted.calls
        if not calls.calls:
            return
        if routes.limits.journal_required and not self._recorder.journal_healthy:
            self._refuse(routes, calls.model, calls.handles, NO_JOURNAL)
            return
        assignment = assign_calls(routes, calls)
        unix_ns = self._clock.unix_ns()
        looked = await look_up_features(
            routes, calls, self._store, now_ns=now_ns, now_unix_ms=unix_ns // 1_000_000
        )
        self._recorder.record_feature_read(routes, looked)
        if looked.read_failure and routes.limits.features_required:
            self._refuse(routes, calls.model, calls.handles, NO_FEATURES)
            return
        self._refuse_unknown_pins(routes, calls, assignment)
        await self._dispatcher.dispatch(
            Batch(routes, calls, assignment, looked, unix_ns), batch_slot
        )

    def _refuse_unknown_pins(self, routes: Routes, calls: Calls, assignment: Assignment) -> None:
        for call, name in assignment.unknown_pins.items():
            refusal = Refusal(
                Code.NOT_FOUND,
                f"version {name!r} is not in the deployment of model {calls.model!r}; "
                "DescribeModel lists those that are",
            )
            self._refuse(routes, calls.model, calls.handles[call : call + 1], refusal)

    def _refuse(
        self, routes: Routes | None, model: str, handles: NDArray[np.uint64], refusal: Refusal
    ) -> None:
        self._ingress.refuse_calls(handles, refusal)
        self._recorder.record_refusals(routes, model, refusal, len(handles))


class BatchSlot:
    """Calls *act* the first time only."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give the slot back; a second call does nothing."""
        act, self._release = self._release, None
        if act is not None:
            act()
