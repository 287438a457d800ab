"""A batch on its way through the pipeline: its calls, their arms and their features.

C is the number of calls in the batch, R the number of their rows, P the number of calls in a slice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.columns import Calls, Pin, row_counts
from gateway.key_column import KeyColumn
from gateway.models.routes import LoadedVersion, Participant, Routes
from journal.prediction_id import LENGTH

Index = NDArray[np.intp] | slice
ALL = slice(None)
"""Every item in order. Indexing with it copies nothing."""


@dataclass(slots=True)
class FeatureRows:
    """The feature matrix of a batch, and how its rows were read."""

    matrix: NDArray[np.float32]
    """(R, W): every stored feature of every view that is read, then the request inputs."""
    flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits."""
    broken: int
    """Number of stored rows with a wrong hash or id."""
    read_failure: str
    """Why the store did not answer, as one word. Empty if it answered."""


@dataclass(slots=True)
class Assignment:
    """The arm of each call of a batch, and the keys by which evidence is counted."""

    keys: KeyColumn
    """The sticky keys of the C calls."""
    arm: NDArray[np.uint8] | None
    """(C,) turnout.v1.Arm. None: production answers every call."""
    key_hash: NDArray[np.uint64]
    """(C,) evidence keys."""
    holdout: NDArray[np.bool_] | None
    """(C,) True for the control group: scored and answered, but no evidence. None: no call."""
    flags: NDArray[np.uint32] | None
    """(C,) NOT_STICKY or 0, for every row of the call. None: all 0."""
    pins: dict[int, Participant]
    """Call index -> the version that the call named."""
    shadow_pins: dict[int, Participant]
    """Call index -> the shadow that the call named, with permission."""
    refused_pins: tuple[Pin, ...]
    """Calls that named a version that gives them no answer."""

    def calls_in_arm(self, arm: int) -> NDArray[np.intp]:
        """Return the indexes of the calls of one arm, in order. Needs `arm` to be an array."""
        assert self.arm is not None
        calls: NDArray[np.intp] = (self.arm == arm).nonzero()[0]  # a third of flatnonzero's cost
        return calls


@dataclass(slots=True)
class BatchSlice:
    """Some calls of a batch with their rows. A version scores one slice."""

    call_indexes: Index
    """(P,) indexes into the batch's calls, or ALL for the batch itself."""
    row_indexes: Index
    """Indexes into the batch's rows, call by call, or ALL for the batch itself."""
    row_offsets: NDArray[np.uint32]
    """(P + 1,) where each call's rows begin within the slice."""
    cached_flags: NDArray[np.uint32] | None = None
    """(rows of the slice,) filled in by `Batch.flags`. Read only."""
    cached_inputs: "tuple[Participant, NDArray[np.float32]] | None" = None
    """The last model-input matrix cut from this slice, and the participant it was cut for."""

    def __len__(self) -> int:
        """Return P, the number of calls."""
        return len(self.row_offsets) - 1

    @property
    def rows_per_call(self) -> NDArray[np.intp]:
        """(P,) number of rows of each call."""
        return row_counts(self.row_offsets)

    @staticmethod
    def from_calls(calls: NDArray[np.intp], row_offsets: NDArray[np.uint32]) -> "BatchSlice":
        """Return the slice of *calls*, given the (C + 1,) *row_offsets* of the batch."""
        if int(row_offsets[-1]) == len(row_offsets) - 1:  # every call has exactly one row
            return BatchSlice(calls, calls, np.arange(len(calls) + 1, dtype=np.uint32))
        starts = row_offsets[calls].astype(np.intp)
        counts = row_offsets[calls + 1].astype(np.intp) - starts
        offsets = np.zeros(len(calls) + 1, dtype=np.uint32)
        np.cumsum(counts, out=offsets[1:])
        within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1].astype(np.intp), counts)
        return BatchSlice(calls, np.repeat(starts, counts) + within, offsets)

    def concatenated(self, other: "BatchSlice") -> "BatchSlice":
        """Return the calls of this slice, then those of *other*. Neither may be the whole batch."""
        assert not isinstance(self.call_indexes, slice)
        assert not isinstance(self.row_indexes, slice)
        return BatchSlice(
            np.concatenate([self.call_indexes, other.call_indexes]),
            np.concatenate([self.row_indexes, other.row_indexes]),
            np.concatenate([self.row_offsets, self.row_offsets[-1] + other.row_offsets[1:]]),
        )

    def subset(self, indexes: NDArray[np.intp]) -> "BatchSlice":
        """Return some calls of this slice. *indexes* count within the slice."""
        part = BatchSlice.from_calls(indexes, self.row_offsets)
        if isinstance(self.call_indexes, slice) or isinstance(self.row_indexes, slice):
            return part
        return BatchSlice(
            self.call_indexes[indexes], self.row_indexes[part.row_indexes], part.row_offsets
        )

    def call_index_array(self) -> NDArray[np.intp]:
        """(P,) indexes into the batch's calls, as an array even for the whole batch."""
        return np.arange(len(self)) if isinstance(self.call_indexes, slice) else self.call_indexes


@dataclass(slots=True)
class Batch:
    """C calls of one model, taken together, under one revision of its deployment."""

    routes: Routes
    calls: Calls
    assignment: Assignment
    features: FeatureRows
    read_unix_ns: int
    """Wall clock at which the age of the stored features was checked."""
    scoring_started_ns: int = 0
    """Monotonic time at which the versions were given the batch."""
    _answer_ids: "NDArray[np.void] | None" = None

    @property
    def answer_ids(self) -> "NDArray[np.void]":
        """(C,) the prediction id of each call's answer, 64 bytes; zeros until it is answered.

        They are kept for shadows, so only `keep_answer_ids` fills them in.
        """
        if self._answer_ids is None:
            self._answer_ids = np.zeros(self.calls.calls, dtype=f"V{LENGTH}")
        return self._answer_ids

    def keep_answer_ids(self, answer: "Answer") -> None:
        """Keep the prediction ids of an answer for shadows, if the model has any."""
        if self.routes.shadows:
            ids = np.frombuffer(answer.prediction_ids, dtype=f"V{LENGTH}")
            self.answer_ids[answer.batch_slice.call_indexes] = ids

    def all_calls(self) -> BatchSlice:
        """Return the slice of the whole batch."""
        return BatchSlice(ALL, ALL, self.calls.row_offsets)

    def slice_calls(self, calls: NDArray[np.intp]) -> BatchSlice:
        """Return the slice of some calls, by their indexes in the batch."""
        return BatchSlice.from_calls(calls, self.calls.row_offsets)

    def flags(self, batch_slice: BatchSlice) -> NDArray[np.uint32]:
        """Return the row flags of a slice: how each row was read, and NOT_STICKY of its call.

        The array is cached in the slice, so it must not be written to.
        """
        if batch_slice.cached_flags is None:
            flags, by_call = self.features.flags[batch_slice.row_indexes], self.assignment.flags
            if by_call is not None:
                of_calls = by_call[batch_slice.call_indexes]
                flags = flags | np.repeat(of_calls, batch_slice.rows_per_call)
            batch_slice.cached_flags = flags
        return batch_slice.cached_flags

    def inputs(self, batch_slice: BatchSlice, participant: Participant) -> NDArray[np.float32]:
        """Return the (rows, F) inputs of a slice for one version, cut once for score and record."""
        if batch_slice.cached_inputs is None or batch_slice.cached_inputs[0] is not participant:
            matrix = participant.matrix(self.features.matrix)[batch_slice.row_indexes]
            batch_slice.cached_inputs = participant, matrix
        return batch_slice.cached_inputs[1]


@dataclass(slots=True)
class Answer:
    """The answers of one version in one role to the calls of a slice."""

    batch_slice: BatchSlice
    version: LoadedVersion
    role: int
    """turnout.v1.Role."""
    scores: NDArray[np.float32]
    """(rows, K) scores, without NaN."""
    flags: NDArray[np.uint32]
    """(rows,) turnout.v1.RowFlag bits."""
    prediction_ids: bytes = b""
    """64 bytes a call, filled in when the answer is sent."""
    production_scores: NDArray[np.float32] | None = None
    """(rows, K) what production scored the rows of a canary's answer; None for other answers."""
