"""Calls that wait: from single decoded calls to columns, and the bound on rows inside."""

from collections import deque
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from gateway.admission import Admission
from gateway.columns import Calls
from gateway.decode import DecodedCall
from gateway.status import RefusedError


@dataclass(slots=True)
class Waiting:
    """One call that was admitted and not yet taken."""

    handle: int
    call: DecodedCall
    arrived_ns: int
    deadline_ns: int
    left: bool = False


class Intake:
    """Queues by model, oldest first, behind an admission.

    Rows are inside from `enter` to `leave`: waiting, being scored, or being answered. Oldest
    first, because what is inside is 30 ms of work (`calls_inside_max`): newest first would save no
    call there, and where the long queue is, inside grpc's core, nobody can choose.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._queues: dict[str, deque[Waiting]] = {}
        self._inside: dict[int, Waiting] = {}
        self._next_handle = 1
        self.rows_inside = 0
        self.rows_waiting = 0

    def enter(self, call: DecodedCall, *, arrived_ns: int, deadline_ns: int) -> int:
        """Admit a call and return its handle; RefusedError UNAVAILABLE, with a pushback."""
        refusal = self._admission.refusal(
            call.rows,
            call.criticality,
            rows_inside=self.rows_inside,
            left_ns=deadline_ns - arrived_ns,
        )
        if refusal is not None:
            raise RefusedError(refusal)
        self._admission.rate.working(arrived_ns)
        handle = self._next_handle
        self._next_handle += 1
        waiting = Waiting(handle, call, arrived_ns, deadline_ns)
        self._inside[handle] = waiting
        queue = self._queues.get(call.model)
        if queue is None:
            queue = self._queues[call.model] = deque()
        queue.append(waiting)
        self.rows_inside += call.rows
        self.rows_waiting += call.rows
        return handle

    def leave(self, handle: int) -> None:
        """Free a call's rows, answered or not; a call that still waits will not be taken."""
        waiting = self._inside.pop(handle, None)
        if waiting is None:
            return
        waiting.left = True
        self.rows_inside -= waiting.call.rows
        if not self._inside:
            self._admission.rate.idle()

    def take(self, rows_max: int) -> Calls | None:
        """Hand over the calls of the model whose oldest has waited longest; None: none waits."""
        model = self._oldest()
        if model is None:
            return None
        queue = self._queues[model]
        taken: list[Waiting] = []
        rows = 0
        while queue:
            waiting = queue[0]
            if not waiting.left and taken and rows + waiting.call.rows > rows_max:
                break
            queue.popleft()
            self.rows_waiting -= waiting.call.rows
            if not waiting.left:
                taken.append(waiting)
                rows += waiting.call.rows
        return columns(model, taken)

    def _oldest(self) -> str | None:
        """Drop calls that have left from the heads; the model whose head arrived first."""
        oldest: str | None = None
        oldest_ns = 0
        for model in list(self._queues):
            queue = self._queues[model]
            while queue and queue[0].left:
                self.rows_waiting -= queue.popleft().call.rows
            if not queue:
                del self._queues[model]
            elif oldest is None or queue[0].arrived_ns < oldest_ns:
                oldest, oldest_ns = model, queue[0].arrived_ns
        return oldest


def columns(model: str, taken: list[Waiting]) -> Calls:
    """Lay single calls out as columns (gateway.columns.Calls)."""
    calls = [waiting.call for waiting in taken]
    rows = [call.rows for call in calls]
    ids = [one for call in calls for one in call.ids]
    values = [value for call in calls for value in call.inputs]
    count = sum(rows)
    width = len(calls[0].inputs) // calls[0].rows
    return Calls(
        model=model,
        handles=np.array([w.handle for w in taken], dtype=np.uint64),
        arrived_ns=np.array([w.arrived_ns for w in taken], dtype=np.int64),
        deadline_ns=np.array([w.deadline_ns for w in taken], dtype=np.int64),
        criticality=np.array([call.criticality for call in calls], dtype=np.uint8),
        row_offsets=_offsets(rows),
        sticky=b"".join([call.sticky for call in calls]),
        sticky_offsets=_offsets([len(call.sticky) for call in calls]),
        request_ids=b"".join([call.request_id for call in calls]),
        request_id_offsets=_offsets([len(call.request_id) for call in calls]),
        pins=tuple((place, call.pin) for place, call in enumerate(calls) if call.pin),
        entity_ids=b"".join(ids),
        entity_offsets=_offsets([len(one) for one in ids]),
        inputs=np.array(values, dtype=np.float32).reshape(count, width),
    )


def _offsets(lengths: list[int]) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
    return np.array([0, *accumulate(lengths)], dtype=np.uint32)
