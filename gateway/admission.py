"""Who is let in, decided before a call has cost anything: by room, by kind, by time. Pure.

Refusing here saves a call's scoring, not its transport: on grpc.aio a refused call costs nearly
half of what an answered one does. So calls that merely wait are held, on the wire and in their
clients (gateway.pace, `streams_max`), and what is refused is what cannot be helped: rows for
which there is no room, and calls that would be answered too late.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.columns import Calls
from gateway.status import Code, Refusal

PUSHBACK_MS = 100
"""Overload lasts batches, not seconds: a caller with a retry budget may come back soon."""

WINDOW_NS = 50_000_000
"""The rate is measured over stretches this long in which there always was work."""
NEWEST_WEIGHT = 0.3
"""Of the newest stretch: the rate follows a change within some 150 ms."""
MARGIN = 1.25
"""What is predicted for a call, against what it has left: the way out is not measured."""

CRITICAL, SHEDDABLE = 1, 3
"""turnout.v1.Criticality; everything else reads as DEFAULT."""


HOPELESS = Refusal(
    Code.UNAVAILABLE,
    "the calls inside take longer than this one has left; retry after a pause, or with more time",
    pushback_ms=PUSHBACK_MS,
)
"""For a call whose message was not even read."""


class ServiceRate:
    """How long a row takes, all told, while there is always another one waiting."""

    def __init__(self) -> None:
        self.row_ns = 0.0
        """0: never measured yet; then nothing is predicted and nothing refused for its time."""
        self._began_ns: int | None = None
        self._rows = 0

    def working(self, now_ns: int) -> None:
        """There is work at *now_ns*."""
        if self._began_ns is None:
            self._began_ns, self._rows = now_ns, 0

    def idle(self) -> None:
        """Nothing is inside: this stretch says how busy callers are, not how fast we are."""
        self._began_ns = None

    def answered(self, rows: int, now_ns: int) -> None:
        """*rows* rows were answered by *now_ns*."""
        if self._began_ns is None:
            return
        self._rows += rows
        elapsed_ns = now_ns - self._began_ns
        if elapsed_ns >= WINDOW_NS:
            newest = elapsed_ns / self._rows
            known = self.row_ns or newest
            self.row_ns = known + NEWEST_WEIGHT * (newest - known)
            self._began_ns, self._rows = now_ns, 0

    def wait_ns(self, rows: int) -> float:
        """When the last of *rows* rows, those inside among them, will have been answered."""
        return MARGIN * rows * self.row_ns


class Admission:
    """The bounds of one worker's house, by kind of call."""

    def __init__(self, rows_inside_max: int, default_pct: int, sheddable_pct: int) -> None:
        """rows_inside_max: for CRITICAL; DEFAULT and SHEDDABLE may fill that many per cent."""
        default = rows_inside_max * default_pct // 100
        sheddable = rows_inside_max * sheddable_pct // 100
        self._rows_max = (default, rows_inside_max, default, sheddable)
        self.rate = ServiceRate()

    def refusal(
        self, rows: int, criticality: int, *, rows_inside: int, left_ns: int
    ) -> Refusal | None:
        """Why a call of *rows* rows must not come in now; None: it may.

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
                f"{bound} of such calls (rows_inside_max, criticality); retry after a pause",
                pushback_ms=PUSHBACK_MS,
            )
        if self.hopeless(rows, rows_inside=rows_inside, left_ns=left_ns):
            wait_ms = self.rate.wait_ns(rows_inside + rows) / 1e6
            return Refusal(
                Code.UNAVAILABLE,
                f"{rows_inside} rows are before this call's {rows}, which takes {wait_ms:.0f} ms; "
                f"it has {left_ns / 1e6:.0f} ms left; retry after a pause, or with more time",
                pushback_ms=PUSHBACK_MS,
            )
        return None

    def hopeless(self, rows: int, *, rows_inside: int, left_ns: int) -> bool:
        """Whether a call would be answered after its deadline, at the rate of now."""
        return bool(rows_inside) and self.rate.wait_ns(rows_inside + rows) > left_ns


@dataclass(slots=True)
class Admitted:
    """The calls of a batch that are still worth an answer."""

    calls: Calls
    late: NDArray[np.uint64]
    """Handles of the others."""


def admit(calls: Calls, now_ns: int, answer_ns_min: int) -> Admitted:
    """Part the calls that can be answered in time from those that cannot. Pure."""
    if int(calls.deadline_ns.min()) - now_ns >= answer_ns_min:
        return Admitted(calls, np.empty(0, dtype=np.uint64))
    in_time = calls.deadline_ns - now_ns >= answer_ns_min
    return Admitted(only(calls, np.flatnonzero(in_time)), calls.handles[~in_time])


def only(calls: Calls, kept: NDArray[np.intp]) -> Calls:
    """Return the calls at *kept*, laid out anew."""
    rows = [np.arange(calls.row_offsets[c], calls.row_offsets[c + 1]) for c in kept]
    row_index = np.concatenate(rows) if rows else np.empty(0, dtype=np.intp)
    entities = (len(calls.entity_offsets) - 1) // calls.rows if calls.rows else 0
    entity_index = (row_index[:, None] * entities + np.arange(entities)).ravel()
    sticky, sticky_offsets = _pick(calls.sticky, calls.sticky_offsets, kept)
    request_ids, request_id_offsets = _pick(calls.request_ids, calls.request_id_offsets, kept)
    entity_ids, entity_offsets = _pick(calls.entity_ids, calls.entity_offsets, entity_index)
    place = {int(call): index for index, call in enumerate(kept)}
    return Calls(
        model=calls.model,
        handles=calls.handles[kept],
        arrived_ns=calls.arrived_ns[kept],
        deadline_ns=calls.deadline_ns[kept],
        criticality=calls.criticality[kept],
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


def _pick(
    buffer: bytes, offsets: NDArray[np.uint32], kept: NDArray[np.intp]
) -> tuple[bytes, NDArray[np.uint32]]:
    items = [buffer[offsets[i] : offsets[i + 1]] for i in kept]
    lengths = np.cumsum([0, *map(len, items)]).astype(np.uint32)
    return b"".join(items), lengths
