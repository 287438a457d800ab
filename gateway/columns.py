"""The columns that pass between an ingress server and the pipeline: calls in, replies out.

No column holds a Python object per call. All arrays are C-contiguous. A buffer with offsets holds
UTF-8 text, and item i is buffer[offsets[i]:offsets[i + 1]].
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a server must know of a model to decode its calls and to refuse malformed ones."""

    model: str
    entities: int
    """E: number of ids in Row.keys."""
    input_names: tuple[str, ...]
    """R request inputs, in order."""
    dictionaries: tuple[tuple[str, ...], ...]
    """One dictionary for each input. Empty if the input is a plain number."""
    input_defaults: tuple[float, ...]
    """Values of named inputs that a call leaves out. NaN is allowed."""
    outputs: int
    """K: number of scores for each row."""
    guard: int
    """PredictRequest.contract must be this number or 0."""
    rows_max: int
    deadline_ns_default: int
    nan_inputs_refused: bool


class Pin(NamedTuple):
    """A call that names the version that shall answer it."""

    call: int
    """Index of the call in its batch."""
    version: str
    """A label, a role or an alias."""
    any_version: bool
    """Whether the caller may pin every version of the model (gateway.caller.Caller.pins)."""


@dataclass(slots=True)
class Calls:
    """C calls for one model that are taken together, with R rows in all.

    Every call is well-formed. The server has checked counts, names, UTF-8 and contract against the
    model's ModelShape.
    """

    model: str
    handles: NDArray[np.uint64]
    """(C,) the server's own number for each call."""
    arrived_ns: NDArray[np.int64]
    """(C,) monotonic time."""
    deadline_ns: NDArray[np.int64]
    """(C,) monotonic time after which the caller does not wait any more."""
    criticality: NDArray[np.uint8]
    """(C,) turnout.v1.Criticality. 0 means DEFAULT."""
    row_offsets: NDArray[np.uint32]
    """(C + 1,) the rows of call c are row_offsets[c] to row_offsets[c + 1]."""
    sticky: bytes
    sticky_offsets: NDArray[np.uint32]
    """(C + 1,) an item is empty if the call gave no sticky key (see predict/routing.py)."""
    request_ids: bytes
    request_id_offsets: NDArray[np.uint32]
    """(C + 1,) an item is empty if the call gave no request id."""
    pins: tuple[Pin, ...]
    """The few calls that name a version."""
    entity_ids: bytes
    entity_offsets: NDArray[np.uint32]
    """(R * E + 1,) ids in row-major order: entity e of row r is item r * E + e."""
    inputs: NDArray[np.float32]
    """(R, number of request inputs of the model)."""

    @property
    def calls(self) -> int:
        """Return C, the number of calls."""
        return len(self.handles)

    @property
    def rows(self) -> int:
        """Return R, the number of rows."""
        return int(self.row_offsets[-1])


@dataclass(slots=True)
class Replies:
    """The answers of one version in one role to C calls, with R rows and K scores for each row."""

    model: str
    handles: NDArray[np.uint64]
    version: str
    role: int
    """turnout.v1.Role of every call."""
    holdout: NDArray[np.bool_] | None
    """(C,) True for the control group. None: no call is in it."""
    prediction_ids: bytes
    """64 bytes for each call (journal.prediction_id)."""
    row_offsets: NDArray[np.uint32]
    """(C + 1,) where the rows of each call begin."""
    scores: NDArray[np.float32]
    """(R, K) scores of the version."""
    row_flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits."""


def row_counts(row_offsets: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Return the (C,) number of rows of each call, from (C + 1,) offsets."""
    offsets = row_offsets.astype(np.intp)
    return offsets[1:] - offsets[:-1]
