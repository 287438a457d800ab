"""A call that has the native door to itself: answered by predict.single_call, without columns."""

import asyncio
from collections.abc import Callable

import numpy as np

from gateway.columns import Calls, Replies
from gateway.models.routes import Routes
from gateway.predict.single_call import SingleCallPath
from gateway.status import Refusal, RefusedError
from gateway.transport.decode import DecodedCall

ONE_ROW_OFFSETS = np.array([0, 1], dtype=np.uint32)


class NativeSingleCalls:
    """Answers one taken call; gives it back where it is a batch's after all.

    answer, refuse  the door's.
    return_to_batch       told of calls that a batch must take.
    wording         counts and words what went wrong.
    """

    def __init__(
        self,
        send_replies: Callable[[Replies], None],
        refuse_calls: Callable[..., None],
        return_to_batch: Callable[[Calls], None],
        refuse_error: Callable[[str, BaseException], Refusal],
    ) -> None:
        self._send_replies = send_replies
        self._refuse_calls = refuse_calls
        self._return_to_batch = return_to_batch
        self._refuse_error = refuse_error
        self._tasks: set[asyncio.Task[None]] = set()

    def try_start(self, single_call: SingleCallPath, calls: Calls) -> bool:
        """Begin to answer *calls*; False: they are a batch's."""
        if calls.calls != 1 or calls.rows != 1 or calls.pins:
            return False
        call = call_from_columns(calls)
        routes = single_call.routes_for(call)
        if routes is None:
            return False
        task = asyncio.get_running_loop().create_task(
            self._run_call(single_call, routes, call, calls)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def wait_finished(self) -> None:
        """Wait for those under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run_call(
        self, single_call: SingleCallPath, routes: Routes, call: DecodedCall, calls: Calls
    ) -> None:
        arrived_ns, deadline_ns = int(calls.arrived_ns[0]), int(calls.deadline_ns[0])
        try:
            reply = await single_call.answer_call(routes, call, arrived_ns, deadline_ns)
        except RefusedError as error:
            self._refuse_calls(calls.handles, error.refusal)
            return
        except Exception as error:  # noqa: BLE001  the wall: nothing internal reaches a caller
            self._refuse_calls(calls.handles, self._refuse_error(call.model, error))
            return
        if reply is None:
            self._return_to_batch(calls)
            return
        self._send_replies(
            Replies(
                model=reply.model,
                handles=calls.handles,
                version=reply.version,
                role=reply.role,
                holdout=np.array([True]) if reply.holdout else None,
                prediction_ids=reply.prediction_id,
                row_offsets=ONE_ROW_OFFSETS,
                scores=np.array([reply.scores], dtype=np.float32),
                row_flags=np.array(reply.row_flags or [0], dtype=np.uint32),
            )
        )


def call_from_columns(calls: Calls) -> DecodedCall:
    """Return a lone call's values one by one."""
    offsets = calls.entity_offsets.tolist()
    ids = calls.entity_ids
    return DecodedCall(
        model=calls.model,
        rows=1,
        sticky=calls.sticky,
        request_id=calls.request_ids,
        pin="",
        criticality=int(calls.criticality[0]),
        ids=[ids[offsets[at] : offsets[at + 1]] for at in range(len(offsets) - 1)],
        inputs=calls.inputs[0].tolist(),
        nan_inputs=0,
    )
