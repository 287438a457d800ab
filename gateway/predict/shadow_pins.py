"""Calls that pinned a shadow, by permission: its own process answers them, and no worker does.

Nobody has approved a shadow, so its file is run in no process that answers customers. Such a call
waits for a process of the lowest priority, which must be started for the first of them. So it is
answered beside its batch: neither the batch slot nor any other call waits for it.
"""

import asyncio

import numpy as np

from gateway.batch import Batch
from gateway.models.routes import Participant
from gateway.predict.dispatch import REPLY_RESERVE_NS, REPLY_RESERVE_SHARE, Dispatcher
from gateway.shadow.shadows import Shadows
from gateway.status import Code, Refusal
from gateway.telemetry.recorder import Recorder
from gateway.transport.server import IngressServer
from host.clock import NS_PER_SECOND, Clock

PUSHBACK_MS = 500
"""After how long a caller may ask a shadow again whose process is starting or busy."""


class ShadowPins:
    """Answers the calls of batches that pinned a shadow."""

    def __init__(
        self,
        server: IngressServer,
        dispatcher: Dispatcher,
        shadows: Shadows,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._server = server
        self._dispatcher = dispatcher
        self._shadows = shadows
        self._recorder = recorder
        self._clock = clock

    async def answer(self, batch: Batch) -> None:
        """Answer each call of *batch* that pinned a shadow, or refuse it as UNAVAILABLE."""
        pins = batch.assignment.shadow_pins
        await asyncio.gather(*(self._answer_call(batch, call, pins[call]) for call in pins))

    async def _answer_call(self, batch: Batch, call: int, shadow: Participant) -> None:
        """Answer the call at index *call*, until shortly before its deadline."""
        batch_slice = batch.slice_calls(np.array([call], dtype=np.intp))
        inputs = batch.inputs(batch_slice, shadow)
        deadline_ns = int(batch.calls.deadline_ns[call])
        left_ns = deadline_ns - self._clock.now_ns()
        wait_ns = left_ns - max(REPLY_RESERVE_NS, REPLY_RESERVE_SHARE * left_ns)
        try:
            async with asyncio.timeout(max(wait_ns, 0) / NS_PER_SECOND):
                scored = await self._shadows.score_pinned(
                    batch.routes, shadow.version, inputs, batch_slice.row_offsets
                )
        except TimeoutError:
            scored = None
        if scored is not None:
            await self._dispatcher.answer_pinned(batch, shadow, batch_slice, scored)
            return
        refusal = Refusal(
            Code.UNAVAILABLE,
            f"the process of shadow {shadow.version.label!r} of model {batch.routes.model!r} is "
            "starting, busy or has ended, and no other process answers for it; retry",
            PUSHBACK_MS,
        )
        self._server.refuse_calls(batch.calls.handles[call : call + 1], refusal)
        self._recorder.record_failures(batch.routes, refusal, 1)
