"""Calls that wait: from single decoded calls to columns, and the bound on rows inside."""

from collections import deque
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import attrgetter

import numpy as np

from gateway.columns import Calls
from gateway.status import RefusedError
from gateway.transport.admission import Admission
from gateway.transport.decode import DecodedCall

PRIORITY_BY_CRITICALITY = (1, 0, 1, 2)
"""By turnout.v1.Criticality: who is taken first. Unspecified reads as DEFAULT."""

NEWEST_FIRST_NS = 100_000_000
"""Three full batches. Longer, and callers' deadlines begin to matter more than their order."""


@dataclass(slots=True)
class WaitingCall:
    """One call that was admitted and not yet taken."""

    handle: int
    call: DecodedCall
    arrived_ns: int
    deadline_ns: int
    cancelled: bool = False
    """Gone before it was taken."""
    taken: bool = False


BY_HANDLE = attrgetter("handle")


class CallQueue:
    """Queues by criticality and model, behind an admission.

    Rows are inside from `enter` to `leave`: waiting, being scored, or being answered. CRITICAL
    calls are taken first and SHEDDABLE ones last; among equals the oldest, until calls wait longer
    than NEWEST_FIRST_NS. Then the newest: a queue that is longer than callers wait has at its head
    only calls that are about to be given up, and whoever serves those in order answers nobody.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._queues: dict[tuple[int, str], deque[WaitingCall]] = {}
        self._inside: dict[int, WaitingCall] = {}
        self._next_handle = 1
        self.rows_inside = 0
        self.rows_waiting = 0

    def admit(self, call: DecodedCall, *, arrived_ns: int, deadline_ns: int) -> int:
        """Admit a call and return its handle; RefusedError UNAVAILABLE, with a pushback."""
        refusal = self._admission.refusal(
            call.rows,
            call.criticality,
            rows_inside=self.rows_inside,
            rows_scoring=self.rows_inside - self.rows_waiting,
            left_ns=deadline_ns - arrived_ns,
        )
        if refusal is not None:
            raise RefusedError(refusal)
        handle = self._next_handle
        self._next_handle += 1
        waiting = WaitingCall(handle, call, arrived_ns, deadline_ns)
        self._inside[handle] = waiting
        kind = (PRIORITY_BY_CRITICALITY[call.criticality], call.model)
        queue = self._queues.get(kind)
        if queue is None:
            queue = self._queues[kind] = deque()
        queue.append(waiting)
        self.rows_inside += call.rows
        self.rows_waiting += call.rows
        return handle

    def reserve_rows(self, rows: int) -> None:
        """Count rows as inside that never wait: those of a call that is answered by itself."""
        self.rows_inside += rows

    def release_rows(self, rows: int) -> None:
        """Undo `hold`."""
        self.rows_inside -= rows

    def finish_call(self, handle: int) -> None:
        """Free a call's rows, answered or not; a call that still waits will not be taken."""
        waiting = self._inside.pop(handle, None)
        if waiting is None:
            return
        self.rows_inside -= waiting.call.rows
        if not waiting.taken:
            waiting.cancelled = True
            self.rows_waiting -= waiting.call.rows

    def pop_calls(self, rows_max: int, now_ns: int = 0) -> Calls | None:
        """Hand over calls of one model, those of the first kind and then its others; None: none.

        Within a batch they lie in the order they came.

        now_ns  monotonic, to tell how long they have waited.
        """
        first = self._next_queue()
        if first is None:
            return None
        taken: list[WaitingCall] = []
        rows = 0
        for rank in range(first[0], len(PRIORITY_BY_CRITICALITY)):
            queue = self._queues.get((rank, first[1]))
            if queue:
                rows = self._pop_from_queue(taken, queue, rows, rows_max, now_ns)
        if self.rows_waiting:
            self._admission.rate.on_queue_nonempty(now_ns)
        else:
            self._admission.rate.on_queue_empty()
        taken.sort(key=BY_HANDLE)
        return columns_from_calls(first[1], taken)

    def _pop_from_queue(
        self,
        taken: list[WaitingCall],
        queue: "deque[WaitingCall]",
        rows: int,
        rows_max: int,
        now_ns: int,
    ) -> int:
        newest_first = now_ns - queue[0].arrived_ns > NEWEST_FIRST_NS
        while queue:
            waiting = queue[-1 if newest_first else 0]
            if not waiting.cancelled and taken and rows + waiting.call.rows > rows_max:
                break
            if newest_first:
                queue.pop()
            else:
                queue.popleft()
            if not waiting.cancelled:
                waiting.taken = True
                self.rows_waiting -= waiting.call.rows
                taken.append(waiting)
                rows += waiting.call.rows
        return rows

    def _next_queue(self) -> tuple[int, str] | None:
        """The kind to take now, oldest among equals; calls that have left go from the heads."""
        first: tuple[int, str] | None = None
        arrived_ns = 0
        for kind in list(self._queues):
            queue = self._queues[kind]
            while queue and queue[0].cancelled:
                queue.popleft()
            if not queue:
                del self._queues[kind]
            elif first is None or (kind[0], queue[0].arrived_ns) < (first[0], arrived_ns):
                first, arrived_ns = kind, queue[0].arrived_ns
        return first


def columns_from_calls(model: str, waiting_calls: list[WaitingCall]) -> Calls:
    """Lay single calls out as columns (gateway.columns.Calls)."""
    calls = [waiting.call for waiting in waiting_calls]
    rows = [call.rows for call in calls]
    ids = list(chain.from_iterable([call.ids for call in calls]))
    values = list(chain.from_iterable([call.inputs for call in calls]))
    count = sum(rows)
    width = len(calls[0].inputs) // calls[0].rows
    return Calls(
        model=model,
        handles=np.array([w.handle for w in waiting_calls], dtype=np.uint64),
        arrived_ns=np.array([w.arrived_ns for w in waiting_calls], dtype=np.int64),
        deadline_ns=np.array([w.deadline_ns for w in waiting_calls], dtype=np.int64),
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
