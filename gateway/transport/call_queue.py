"""The call queue of the grpcio server: admitted calls, by criticality and model."""

from collections import deque
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import attrgetter

import numpy as np

from gateway.columns import Calls, Pin
from gateway.status import RefusedError
from gateway.transport.admission import Admission
from gateway.transport.decode import DecodedCall

PRIORITY_BY_CRITICALITY = (1, 0, 1, 2)
"""turnout.v1.Criticality -> priority. The lowest is taken first. Unspecified is DEFAULT."""

NEWEST_FIRST_NS = 100_000_000
"""The duration of three full batches. If calls wait longer, the newest are taken first."""


@dataclass(slots=True)
class QueuedCall:
    """One decoded call with its times. Columns are made of it only if a batch must take it."""

    handle: int
    """The server's own number for the call."""
    call: DecodedCall
    arrived_ns: int
    """Monotonic time."""
    deadline_ns: int
    """Monotonic time after which the caller does not wait any more."""
    cancelled: bool = False
    """True if the caller left before the call was taken."""
    taken: bool = False

    def to_columns(self) -> Calls:
        """Return a batch of this one call."""
        return columns_from_calls(self.call.model, [self])


BY_HANDLE = attrgetter("handle")


class CallQueue:
    """Queues by criticality and model, behind an admission.

    Rows are inside from `admit` to `finish`: waiting, being scored or being answered. CRITICAL
    calls are taken first and SHEDDABLE ones last. Among equals the oldest is taken first, until
    calls wait longer than NEWEST_FIRST_NS. From then on the newest is taken first: the oldest calls
    of so long a queue are about to reach their deadlines, and serving them in order would answer
    none in time.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._queues: dict[tuple[int, str], deque[QueuedCall]] = {}
        self._inside: dict[int, QueuedCall] = {}
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
        queued = QueuedCall(handle, call, arrived_ns, deadline_ns)
        self._inside[handle] = queued
        key = (PRIORITY_BY_CRITICALITY[call.criticality], call.model)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(queued)
        self.rows_inside += call.rows
        self.rows_waiting += call.rows
        return handle

    def finish_call(self, handle: int) -> None:
        """Free a call's rows, answered or not. A call that still waits will not be taken."""
        queued = self._inside.pop(handle, None)
        if queued is None:
            return
        self.rows_inside -= queued.call.rows
        if not queued.taken:
            queued.cancelled = True
            self.rows_waiting -= queued.call.rows

    def pop_single_call(self) -> QueuedCall | None:
        """Return the call that waits if it is the only one inside and has one row, else None."""
        if self.rows_inside != 1 or self.rows_waiting != 1:
            return None
        key = self._next_queue()
        assert key is not None
        queued = self._queues[key].popleft()
        queued.taken = True
        self.rows_waiting = 0
        self._admission.rate.on_queue_empty()
        return queued

    def pop_calls(self, rows_max: int, now_ns: int = 0) -> Calls | None:
        """Return waiting calls of one model in the order they came; None if no call waits.

        They are calls of the most urgent queue, then calls of the same model's other queues.

        now_ns  monotonic time, to tell how long calls have waited.
        """
        key = self._next_queue()
        if key is None:
            return None
        taken: list[QueuedCall] = []
        rows = 0
        for priority in range(key[0], len(PRIORITY_BY_CRITICALITY)):
            queue = self._queues.get((priority, key[1]))
            if queue:
                rows = self._pop_from_queue(taken, queue, rows, rows_max, now_ns)
        if self.rows_waiting:
            self._admission.rate.on_queue_nonempty(now_ns)
        else:
            self._admission.rate.on_queue_empty()
        taken.sort(key=BY_HANDLE)
        return columns_from_calls(key[1], taken)

    def _pop_from_queue(
        self,
        taken: list[QueuedCall],
        queue: "deque[QueuedCall]",
        rows: int,
        rows_max: int,
        now_ns: int,
    ) -> int:
        """Move calls from *queue* to *taken*, up to *rows_max* rows. Return the rows taken."""
        newest_first = now_ns - queue[0].arrived_ns > NEWEST_FIRST_NS
        while queue:
            queued = queue[-1 if newest_first else 0]
            if not queued.cancelled and taken and rows + queued.call.rows > rows_max:
                break
            if newest_first:
                queue.pop()
            else:
                queue.popleft()
            if not queued.cancelled:
                queued.taken = True
                self.rows_waiting -= queued.call.rows
                taken.append(queued)
                rows += queued.call.rows
        return rows

    def _next_queue(self) -> tuple[int, str] | None:
        """Return (priority, model) of the most urgent queue; None if all are empty.

        Among queues of one priority it is the queue whose first call is the oldest. Cancelled calls
        at the heads of queues are removed.
        """
        most_urgent: tuple[int, str] | None = None
        arrived_ns = 0
        for key in list(self._queues):
            queue = self._queues[key]
            while queue and queue[0].cancelled:
                queue.popleft()
            if not queue:
                del self._queues[key]
            elif most_urgent is None or (key[0], queue[0].arrived_ns) < (
                most_urgent[0],
                arrived_ns,
            ):
                most_urgent, arrived_ns = key, queue[0].arrived_ns
        return most_urgent


def columns_from_calls(model: str, queued_calls: list[QueuedCall]) -> Calls:
    """Return decoded calls of one model as columns."""
    calls = [queued.call for queued in queued_calls]
    rows = [call.rows for call in calls]
    ids = list(chain.from_iterable([call.ids for call in calls]))
    values = list(chain.from_iterable([call.inputs for call in calls]))
    count = sum(rows)
    width = len(calls[0].inputs) // calls[0].rows
    return Calls(
        model=model,
        handles=np.array([queued.handle for queued in queued_calls], dtype=np.uint64),
        arrived_ns=np.array([queued.arrived_ns for queued in queued_calls], dtype=np.int64),
        deadline_ns=np.array([queued.deadline_ns for queued in queued_calls], dtype=np.int64),
        criticality=np.array([call.criticality for call in calls], dtype=np.uint8),
        row_offsets=_offsets(rows),
        sticky=b"".join([call.sticky for call in calls]),
        sticky_offsets=_offsets([len(call.sticky) for call in calls]),
        request_ids=b"".join([call.request_id for call in calls]),
        request_id_offsets=_offsets([len(call.request_id) for call in calls]),
        pins=tuple(
            Pin(index, call.pin, call.any_version) for index, call in enumerate(calls) if call.pin
        ),
        entity_ids=b"".join(ids),
        entity_offsets=_offsets([len(entity_id) for entity_id in ids]),
        inputs=np.array(values, dtype=np.float32).reshape(count, width),
    )


def _offsets(lengths: list[int]) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
    return np.array([0, *accumulate(lengths)], dtype=np.uint32)
