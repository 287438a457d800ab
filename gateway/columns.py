"""What ingress and batch core say to each other: columns of calls, columns of replies.

Both ingresses (grpcio here, native in Rust) implement `Ingress`; the core knows nothing else of
them. Nothing in these columns is an object per call. All arrays are C-contiguous; buffers with
offsets hold UTF-8, item i being buffer[offsets[i]:offsets[i + 1]].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.status import Refusal


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the door must know of a model to decode a call and to refuse a bad one itself."""

    model: str
    entities: int
    """E: ids in Row.keys."""
    input_names: tuple[str, ...]
    """R request inputs, in order."""
    dictionaries: tuple[tuple[str, ...], ...]
    """One an input; empty where it is a plain number."""
    input_defaults: tuple[float, ...]
    """For named inputs left out; NaN allowed."""
    outputs: int
    """K: scores a row."""
    guard: int
    """PredictRequest.contract must be this, or 0."""
    rows_max: int
    deadline_ns_default: int
    nan_inputs_refused: bool


@dataclass(slots=True)
class Calls:
    """C calls for one model that were waiting together; R rows in all.

    A call that reaches the core is well-formed: counts, names, UTF-8 and contract were checked by
    the door against its ModelShape.
    """

    model: str
    handles: NDArray[np.uint64]
    """(C,) the door's own name for each call."""
    arrived_ns: NDArray[np.int64]
    """(C,) monotonic."""
    deadline_ns: NDArray[np.int64]
    """(C,) monotonic; the caller has stopped waiting after it."""
    criticality: NDArray[np.uint8]
    """(C,) turnout.v1.Criticality; 0 reads as DEFAULT."""
    row_offsets: NDArray[np.uint32]
    """(C + 1,) rows of call c are row_offsets[c] to row_offsets[c + 1]."""
    sticky: bytes
    sticky_offsets: NDArray[np.uint32]
    """(C + 1,) empty where the call gave none: the core falls back as CONTRACTS says."""
    request_ids: bytes
    request_id_offsets: NDArray[np.uint32]
    """(C + 1,) empty where the call gave none."""
    pins: tuple[tuple[int, str], ...]
    """(call, version) of those that named a version: few, so not a column."""
    entity_ids: bytes
    entity_offsets: NDArray[np.uint32]
    """(R * E + 1,) ids row-major: row r's entity e is item r * E + e."""
    inputs: NDArray[np.float32]
    """(R, inputs of the model)."""

    @property
    def calls(self) -> int:
        """C."""
        return len(self.handles)

    @property
    def rows(self) -> int:
        """R."""
        return int(self.row_offsets[-1])


@dataclass(slots=True)
class Replies:
    """Answers of one version, in one role, to C calls; R rows, K scores a row."""

    model: str
    handles: NDArray[np.uint64]
    version: str
    role: int
    """turnout.v1.Role of all C."""
    holdout: NDArray[np.bool_] | None
    """(C,) None: nobody is held out."""
    prediction_ids: bytes
    """64 bytes a call (journal.prediction_id)."""
    row_offsets: NDArray[np.uint32]
    """(C + 1,)."""
    scores: NDArray[np.float32]
    """(R, K)."""
    row_flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits."""


class Ingress(Protocol):
    """The front door: bytes to columns on the way in, columns to bytes on the way out.

    It owns connections, decoding, the bound on rows inside (waiting or being scored), and
    cancellation. Every method is called on the event loop's thread.
    """

    def configure(self, shapes: Mapping[str, ModelShape]) -> None:
        """Replace what the door knows; calls for other models are NOT_FOUND from now on."""
        ...

    async def wait_for_calls(self) -> None:
        """Return when at least one call waits to be taken."""
        ...

    def pop_calls(self, rows_max: int) -> Calls | None:
        """Hand over what waits for the model whose oldest call has waited longest.

        At most *rows_max* rows, except that one call is never cut; None when nothing waits.
        Cancelled calls are left out: their slots are free already.
        """
        ...

    def send_replies(self, replies: Replies, *, more: bool = False) -> None:
        """Send each reply; a handle whose caller has gone is skipped.

        more  others of the same batch follow at once, and may go out together with these.
        """
        ...

    def refuse_calls(self, handles: NDArray[np.uint64], refusal: Refusal) -> None:
        """End these calls with one status."""
        ...
