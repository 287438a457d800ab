"""Admission: which calls a worker accepts, by rows inside, criticality and deadline. Pure.

A refusal saves the scoring of a call, not its transport: on grpc.aio a refused call costs about
half of what an answered one costs, and its caller sends the next call at once. So a call that only
has to wait is admitted; it takes one of its connection's `streams_max`, so its client waits too.
Refused are calls whose rows exceed the bound, and calls that would be answered too late. Which
waiting call goes first is decided in gateway.transport.call_queue.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.columns import Calls
from gateway.status import Code, Refusal

PUSHBACK_MS = 100
"""Pause before a retry, sent with UNAVAILABLE. Overload lasts for some batches, not for seconds."""

RATE_SAMPLE_NS = 50_000_000
RATE_SAMPLE_ROWS = 64
"""A sample of the service rate has at least this time and this many rows, and rows waited during
all of it. A single call that waits for a slow store does not show how fast rows are scored."""
SLOWER_SAMPLE_WEIGHT = 0.3
"""Weight of the newest sample when it is slower; a faster sample replaces the estimate."""
WAIT_MARGIN = 1.25
"""Factor on the predicted wait, because the time to send a reply is not measured."""

CRITICAL, SHEDDABLE = 1, 3
"""Numbers of turnout.v1.Criticality; other numbers count as DEFAULT."""


class ServiceRate:
    """Estimates the time a worker needs for one row while other rows wait."""

    def __init__(self) -> None:
        self.row_ns = 0.0
        """Estimate in ns; 0 until rows had to wait, so that no call is refused for its time."""
        self._began_ns: int | None = None
        self._rows = 0

    def on_queue_nonempty(self, now_ns: int) -> None:
        """Start a sample, if none runs: rows wait besides those being scored."""
        if self._began_ns is None:
            self._began_ns, self._rows = now_ns, 0

    def on_queue_empty(self) -> None:
        """End the sample: no row waits, so the callers set the pace from here on."""
        self._began_ns = None

    def record_answered(self, rows: int, now_ns: int) -> None:
        """Add *rows* answered rows to the running sample, and finish it when it is large enough."""
        if self._began_ns is None:
            return
        self._rows += rows
        elapsed_ns = now_ns - self._began_ns
        if elapsed_ns >= RATE_SAMPLE_NS and self._rows >= RATE_SAMPLE_ROWS:
            newest = elapsed_ns / self._rows
            slower = max(0.0, newest - (self.row_ns or newest))
            self.row_ns = newest - (1 - SLOWER_SAMPLE_WEIGHT) * slower
            self._began_ns, self._rows = now_ns, 0

    def wait_ns(self, rows: int) -> float:
        """Return the predicted time until *rows* rows are answered, in ns."""
        return WAIT_MARGIN * rows * self.row_ns


class Admission:
    """Bounds the rows inside one worker, by criticality.

    rows_inside_max  for CRITICAL calls.
    default_pct      share of it for DEFAULT calls.
    sheddable_pct    share of it for SHEDDABLE calls.
    """

    def __init__(self, rows_inside_max: int, default_pct: int, sheddable_pct: int) -> None:
        default = rows_inside_max * default_pct // 100
        sheddable = rows_inside_max * sheddable_pct // 100
        self._rows_max = (default, rows_inside_max, default, sheddable)
        self.rate = ServiceRate()

    def refusal(
        self, rows: int, criticality: int, *, rows_inside: int, rows_scoring: int, left_ns: int
    ) -> Refusal | None:
        """Return why a call of *rows* rows is refused; None: it is admitted.

        rows_inside   rows admitted and not yet answered.
        rows_scoring  those of them that are being scored, which no later call can overtake.
        left_ns       time to the call's deadline.

        While no row is inside, no call is refused. So the largest call can be answered, and the
        service rate is measured anew after a slow time.
        """
        # While no row is inside, every call is admitted.
        if not rows_inside:
            return None
        # Are there too many rows for a call of this criticality?
        bound = self._rows_max[criticality]
        if rows_inside + rows > bound:
            return Refusal(
                Code.UNAVAILABLE,
                f"{rows_inside} rows are inside and {rows} more asked for; this worker holds "
                f"{bound} for calls of this criticality (rows_inside_max); retry after a pause",
                pushback_ms=PUSHBACK_MS,
            )
        # Would the call be answered after its deadline?
        wait_ns = self.rate.wait_ns(rows_scoring + rows)
        if wait_ns > left_ns:
            return Refusal(
                Code.UNAVAILABLE,
                f"{rows} rows behind {rows_scoring} take {wait_ns / 1e6:.0f} ms and the call has "
                f"{left_ns / 1e6:.0f} ms left; retry after a pause, or with more time",
                pushback_ms=PUSHBACK_MS,
            )
        return None


@dataclass(slots=True)
class DeadlineSplit:
    """A batch, split by whether its calls can be answered in time."""

    calls: Calls
    """The calls that can."""
    expired_handles: NDArray[np.uint64]
    """Handles of the calls that cannot."""


def split_by_deadline(calls: Calls, now_ns: int, answer_ns_min: int) -> DeadlineSplit:
    """Split a batch; a call needs *answer_ns_min* to its deadline to be answered in time. Pure."""
    if int(calls.deadline_ns.min()) - now_ns >= answer_ns_min:
        return DeadlineSplit(calls, np.empty(0, dtype=np.uint64))
    in_time = calls.deadline_ns - now_ns >= answer_ns_min
    return DeadlineSplit(filter_calls(calls, np.flatnonzero(in_time)), calls.handles[~in_time])


def filter_calls(calls: Calls, indexes: NDArray[np.intp]) -> Calls:
    """Return the calls at *indexes*, in that order, with columns of their own."""
    # Which rows and entity ids belong to these calls.
    rows = [np.arange(calls.row_offsets[call], calls.row_offsets[call + 1]) for call in indexes]
    row_index = np.concatenate(rows) if rows else np.empty(0, dtype=np.intp)
    entities = (len(calls.entity_offsets) - 1) // calls.rows if calls.rows else 0
    entity_index = (row_index[:, None] * entities + np.arange(entities)).ravel()
    # Columns of variable length are cut and joined again.
    sticky, sticky_offsets = _select_items(calls.sticky, calls.sticky_offsets, indexes)
    request_ids, request_id_offsets = _select_items(
        calls.request_ids, calls.request_id_offsets, indexes
    )
    entity_ids, entity_offsets = _select_items(calls.entity_ids, calls.entity_offsets, entity_index)
    new_index = {int(call): index for index, call in enumerate(indexes)}
    return Calls(
        model=calls.model,
        handles=calls.handles[indexes],
        arrived_ns=calls.arrived_ns[indexes],
        deadline_ns=calls.deadline_ns[indexes],
        criticality=calls.criticality[indexes],
        row_offsets=np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.uint32),
        sticky=sticky,
        sticky_offsets=sticky_offsets,
        request_ids=request_ids,
        request_id_offsets=request_id_offsets,
        pins=tuple(
            pin._replace(call=new_index[pin.call]) for pin in calls.pins if pin.call in new_index
        ),
        entity_ids=entity_ids,
        entity_offsets=entity_offsets,
        inputs=calls.inputs[row_index],
    )


def _select_items(
    buffer: bytes, offsets: NDArray[np.uint32], indexes: NDArray[np.intp]
) -> tuple[bytes, NDArray[np.uint32]]:
    items = [buffer[offsets[i] : offsets[i + 1]] for i in indexes]
    lengths = np.cumsum([0, *map(len, items)]).astype(np.uint32)
    return b"".join(items), lengths
