"""A Predict walks straight down: take, admit, route, look up, score, answer; then aside."""

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.columns import Calls, Ingress
from gateway.fault_log import FaultLog
from gateway.models.routes import Deployed, Routes
from gateway.predict.batch import Batch
from gateway.predict.dispatch import Arms
from gateway.predict.feature_lookup import OnlineRows, look_up
from gateway.predict.routing import Assignment, assign
from gateway.settings import Settings
from gateway.status import Code, Refusal, refuse_internal
from gateway.telemetry.recorder import Aside
from gateway.transport.admission import admit

GONE = Refusal(Code.NOT_FOUND, "the model is not served any more; ask DescribeModel")
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


class BatchCore:
    """Takes what has arrived, as long as there is room, and sees each batch to its replies."""

    def __init__(
        self,
        ingress: Ingress,
        deployed: Deployed,
        store: OnlineRows | None,
        arms: Arms,
        aside: Aside,
        clock: Clock,
        settings: Settings,
        faults: FaultLog,
    ) -> None:
        self._ingress = ingress
        self._deployed = deployed
        self._store = store
        self._arms = arms
        self._aside = aside
        self._clock = clock
        self._settings = settings
        self._faults = faults
        self._room = asyncio.Semaphore(settings.batches_in_flight_max)
        self._batches: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until cancelled. Greedy: a batch is whatever waits when there is room for one."""
        while True:
            await self._ingress.arrived()
            if self._settings.batch_wait_us:
                await asyncio.sleep(self._settings.batch_wait_us / 1e6)
            await self._room.acquire()
            calls = self._ingress.take(self._settings.batch_rows_max)
            if calls is None:
                self._room.release()
                continue
            batch = asyncio.get_running_loop().create_task(self._predict(calls))
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)

    async def finish(self) -> None:
        """Wait for the batches that are under way."""
        while self._batches:
            await asyncio.wait(self._batches)

    async def _predict(self, calls: Calls) -> None:
        """See one batch through. Whatever goes wrong, every call of it is ended."""
        leave = _Once(self._room.release)
        try:
            await self._answer(calls, leave)
        except Exception as error:  # noqa: BLE001  the last resort: callers must not hang on our bug
            refusal = refuse_internal(self._faults.note(repr(error), error))
            self._ingress.refuse(calls.handles, refusal)
        finally:
            leave()

    async def _answer(self, calls: Calls, leave: Callable[[], None]) -> None:
        routes = self._deployed.get(calls.model)
        if routes is None:
            self._refuse(None, calls.model, calls.handles, GONE)
            return
        now_ns = self._clock.now_ns()
        admitted = admit(calls, now_ns, self._settings.answer_us_min * 1_000)
        if len(admitted.late):
            self._refuse(routes, calls.model, admitted.late, TOO_LATE)
        calls = admitted.calls
        if not calls.calls:
            return
        if routes.budgets.journal_required and not self._aside.journal_healthy:
            self._refuse(routes, calls.model, calls.handles, NO_JOURNAL)
            return
        assignment = assign(routes, calls)
        unix_ns = self._clock.unix_ns()
        looked = await look_up(
            routes, calls, self._store, now_ns=now_ns, now_unix_ms=unix_ns // 1_000_000
        )
        self._aside.looked(routes, looked)
        if looked.unread and routes.budgets.features_required:
            self._refuse(routes, calls.model, calls.handles, NO_FEATURES)
            return
        self._refuse_strangers(routes, calls, assignment)
        await self._arms.answer(Batch(routes, calls, assignment, looked, unix_ns), leave)

    def _refuse_strangers(self, routes: Routes, calls: Calls, assignment: Assignment) -> None:
        for call, name in assignment.strangers.items():
            refusal = Refusal(
                Code.NOT_FOUND,
                f"version {name!r} is not in the deployment of model {calls.model!r}; "
                "DescribeModel lists those that are",
            )
            self._refuse(routes, calls.model, calls.handles[call : call + 1], refusal)

    def _refuse(
        self, routes: Routes | None, model: str, handles: NDArray[np.uint64], refusal: Refusal
    ) -> None:
        self._ingress.refuse(handles, refusal)
        self._aside.refused(routes, model, refusal, len(handles))


class _Once:
    """Calls *act* the first time only."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def __call__(self) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()
