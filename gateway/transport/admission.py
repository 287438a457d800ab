"""Who is let in, decided before a call has cost anything: by room, by kind, by time. Pure.

Refusing saves a call's scoring, not its transport: on grpc.aio a refused call costs about half of
what an answered one does, and its caller sends the next one at once. So calls that merely wait are
held (each holds one of its connection's `streams_max`, so its client waits as well), and what is
refused is what cannot be helped: rows for which there is no room, calls that would be answered too
late. Among those that wait, gateway.transport.call_queue chooses.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.columns import Calls
from gateway.status import Code, Refusal

PUSHBACK_MS = 100
"""Overload lasts batches, not seconds: a caller with a retry budget may come back soon."""

RATE_SAMPLE_NS = 50_000_000
RATE_SAMPLE_ROWS = 64
"""The rate is measured over stretches this long, and of this many rows, in which rows always
waited: a lone call that waits for a slow store says nothing of how fast rows are scored."""
SLOWER_SAMPLE_WEIGHT = 0.3
"""Of the newest stretch, where it is slower; a faster one is believed at once."""
WAIT_MARGIN = 1.25
"""What is predicted for a call, against what it has left: the way out is not measured."""

CRITICAL, SHEDDABLE = 1, 3
"""turnout.v1.Criticality; everything else reads as DEFAULT."""


class ServiceRate:
    """How long a row takes, all told, while there is always another one waiting."""

    def __init__(self) -> None:
        self.row_ns = 0.0
        """0: rows never had to wait; then nothing is predicted and nothing refused for its time."""
        self._began_ns: int | None = None
        self._rows = 0

    def on_queue_nonempty(self, now_ns: int) -> None:
        """Rows wait at *now_ns*, beyond those being scored."""
        if self._began_ns is None:
            self._began_ns, self._rows = now_ns, 0

    def on_queue_empty(self) -> None:
        """No row waits: from here on, the pace is the callers', not ours."""
        self._began_ns = None

    def record_answered(self, rows: int, now_ns: int) -> None:
        """*rows* rows were answered by *now_ns*."""
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
        """When the last of *rows* rows, those inside among them, will have been answered."""
        return WAIT_MARGIN * rows * self.row_ns


class Admission:
    """The bounds of one worker's house, by kind of call."""

    def __init__(self, rows_inside_max: int, default_pct: int, sheddable_pct: int) -> None:
        """rows_inside_max: for CRITICAL; DEFAULT and SHEDDABLE may fill that many per cent."""
        default = rows_inside_max * default_pct // 100
        sheddable = rows_inside_max * sheddable_pct // 100
        self._rows_max = (default, rows_inside_max, default, sheddable)
        self.rate = ServiceRate()

    def refusal(
        self, rows: int, criticality: int, *, rows_inside: int, rows_scoring: int, left_ns: int
    ) -> Refusal | None:
        """Why a call of *rows* rows must not come in now; None: it may.

        inside  rows admitted and not yet answered.
        ahead   those of them that are being scored, which no newcomer can overtake.

        A call that finds the house empty is never refused: so the largest call has its chance,
        and the rate is learned again after whatever made it slow.
        """
        if not rows_inside:
            return None
        bound = self._rows_max[criticality]
        if rows_inside + rows > bound:
            return Refusal(
                Code.UNAVAILABLE,
                f"{rows_inside} rows are inside and {rows} more asked for; this worker holds "
                f"{bound} "
                "for calls of this criticality (rows_inside_max); retry after a pause",
                pushback_ms=PUSHBACK_MS,
            )
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
    """The calls of a batch that are still worth an answer."""

    calls: Calls
    expired_handles: NDArray[np.uint64]
    """Handles of the others."""


def split_by_deadline(calls: Calls, now_ns: int, answer_ns_min: int) -> DeadlineSplit:
    """Part the calls that can be answered in time from those that cannot. Pure."""
    if int(calls.deadline_ns.min()) - now_ns >= answer_ns_min:
        return DeadlineSplit(calls, np.empty(0, dtype=np.uint64))
    in_time = calls.deadline_ns - now_ns >= answer_ns_min
    return DeadlineSplit(filter_calls(calls, np.flatnonzero(in_time)), calls.handles[~in_time])


def filter_calls(calls: Calls, indexes: NDArray[np.intp]) -> Calls:
    """Return the calls at *kept*, laid out anew."""
    rows = [np.arange(calls.row_offsets[c], calls.row_offsets[c + 1]) for c in indexes]
    row_index = np.concatenate(rows) if rows else np.empty(0, dtype=np.intp)
    entities = (len(calls.entity_offsets) - 1) // calls.rows if calls.rows else 0
    entity_index = (row_index[:, None] * entities + np.arange(entities)).ravel()
    sticky, sticky_offsets = _select_items(calls.sticky, calls.sticky_offsets, indexes)
    request_ids, request_id_offsets = _select_items(
        calls.request_ids, calls.request_id_offsets, indexes
    )
    entity_ids, entity_offsets = _select_items(calls.entity_ids, calls.entity_offsets, entity_index)
    place = {int(call): index for index, call in enumerate(indexes)}
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
        pins=tuple((place[call], name) for call, name in calls.pins if call in place),
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
