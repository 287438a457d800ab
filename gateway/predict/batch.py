"""One batch on its way: what was asked, what is known, and how its calls are answered."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.columns import Calls, Replies
from gateway.models.executor import NO_FAULT, Scored
from gateway.models.routes import LoadedVersion, Participant, Routes
from gateway.native_library import load_native_library
from gateway.predict.feature_lookup import FeatureRows
from gateway.predict.routing import Assignment
from gateway.rows import counts_of
from journal.prediction_id import (
    BODY,
    FORMAT,
    HOLDOUT_BIT,
    hash_model_name,
    write_prediction_id,
    write_prediction_ids,
)
from protos.predict_pb2 import DEFAULTED, PRODUCTION


@dataclass(slots=True)
class WorkerIdentity:
    """Which worker this is, as prediction ids and windows name it. Its slot comes with serving."""

    gateway: str
    slot: int
    boot_id: int
    prediction_id_key: bytes


Index = NDArray[np.intp] | slice
ALL = slice(None)
"""Everything, in its order: indexing with it copies nothing."""


@dataclass(slots=True)
class BatchSlice:
    """Some calls of a batch with their rows: what one version is asked, and what it answers."""

    call_indexes: Index
    """(P,) indexes into the batch's calls; a whole slice for the batch itself."""
    row_indexes: Index
    """Indexes into the batch's rows, call by call; likewise."""
    row_offsets: NDArray[np.uint32]
    """(P + 1,) where each call's rows begin within *rows*."""
    cached_flags: NDArray[np.uint32] | None = None
    """(R,) once `Batch.flags` was asked; read only."""
    cached_inputs: "tuple[Participant, NDArray[np.float32]] | None" = None
    """Whose (R, F) were cut last, and these."""

    def __len__(self) -> int:
        """P."""
        return len(self.row_offsets) - 1

    @property
    def rows_per_call(self) -> NDArray[np.intp]:
        """(P,)."""
        return counts_of(self.row_offsets)

    @staticmethod
    def from_calls(calls: NDArray[np.intp], row_offsets: NDArray[np.uint32]) -> "BatchSlice":
        """Pick *calls* out of a batch whose rows lie at *row_offsets*."""
        if int(row_offsets[-1]) == len(row_offsets) - 1:  # a row each: no call has less
            return BatchSlice(calls, calls, np.arange(len(calls) + 1, dtype=np.uint32))
        starts = row_offsets[calls].astype(np.intp)
        counts = row_offsets[calls + 1].astype(np.intp) - starts
        offsets = np.zeros(len(calls) + 1, dtype=np.uint32)
        np.cumsum(counts, out=offsets[1:])
        within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1].astype(np.intp), counts)
        return BatchSlice(calls, np.repeat(starts, counts) + within, offsets)

    def concatenated(self, other: "BatchSlice") -> "BatchSlice":
        """Return this part's calls and then *other*'s; neither is the whole batch."""
        offsets = np.concatenate([self.row_offsets, self.row_offsets[-1] + other.row_offsets[1:]])
        picked = (self.call_indexes, other.call_indexes, self.row_indexes, other.row_indexes)
        mine, theirs, my_rows, their_rows = (one for one in picked if not isinstance(one, slice))
        calls = np.concatenate([mine, theirs])
        return BatchSlice(calls, np.concatenate([my_rows, their_rows]), offsets)

    def subset(self, indexes: NDArray[np.intp]) -> "BatchSlice":
        """Pick some of this part's calls, by place within it."""
        part = BatchSlice.from_calls(indexes, self.row_offsets)
        if isinstance(self.call_indexes, slice) or isinstance(self.row_indexes, slice):
            return part
        return BatchSlice(
            self.call_indexes[indexes], self.row_indexes[part.row_indexes], part.row_offsets
        )

    def call_index_array(self) -> NDArray[np.intp]:
        """(P,) indexes into the batch's calls, as numbers."""
        return np.arange(len(self)) if isinstance(self.call_indexes, slice) else self.call_indexes


@dataclass(slots=True)
class Batch:
    """C calls of one model, taken together, under one revision."""

    routes: Routes
    calls: Calls
    assignment: Assignment
    features: FeatureRows
    read_unix_ns: int
    """When its features were judged for staleness."""
    scoring_started_ns: int = 0
    """Monotonic: when its versions were asked."""

    def all_calls(self) -> BatchSlice:
        """All of its calls."""
        return BatchSlice(ALL, ALL, self.calls.row_offsets)

    def slice_calls(self, calls: NDArray[np.intp]) -> BatchSlice:
        """Pick some of its calls."""
        return BatchSlice.from_calls(calls, self.calls.row_offsets)

    def flags(self, batch_slice: BatchSlice) -> NDArray[np.uint32]:
        """Row flags of *part*: what the lookup found, and whether the call was sticky.

        Kept for the next who asks: not to be written to.
        """
        if batch_slice.cached_flags is None:
            flags, by_call = self.features.flags[batch_slice.row_indexes], self.assignment.flags
            if by_call is not None:
                flags = flags | np.repeat(
                    by_call[batch_slice.call_indexes], batch_slice.rows_per_call
                )
            batch_slice.cached_flags = flags
        return batch_slice.cached_flags

    def inputs(self, batch_slice: BatchSlice, participant: Participant) -> NDArray[np.float32]:
        """(R, F) of *part* as this version sees them; cut once for scoring and journal."""
        if batch_slice.cached_inputs is None or batch_slice.cached_inputs[0] is not participant:
            batch_slice.cached_inputs = (
                participant,
                participant.matrix(self.features.matrix)[batch_slice.row_indexes],
            )
        return batch_slice.cached_inputs[1]


@dataclass(slots=True)
class Answer:
    """Finished calls of one version and role, ready to be sent, counted and kept."""

    part: BatchSlice
    version: LoadedVersion
    role: int
    scores: NDArray[np.float32]
    """(R, K)."""
    flags: NDArray[np.uint32]
    """(R,)."""
    prediction_ids: bytes = b""


def replace_unusable_scores(
    scores: NDArray[np.float32], flags: NDArray[np.uint32], default: float
) -> None:
    """Put *default* where a score is NaN or infinite, in place, and flag the row DEFAULTED."""
    unusable = ~np.isfinite(scores)
    scores[unusable] = default
    flags[unusable.any(axis=1)] |= np.uint32(DEFAULTED)


WriteIds = Callable[[bytes, bytes, int, NDArray[np.uint64], bytes | None], bytes]
"""journal.prediction_id.write_prediction_ids, or the native library's of the same bytes."""
WRITE_IDS: WriteIds = getattr(load_native_library(), "prediction_ids", write_prediction_ids)


class PredictionIdWriter:
    """Names predictions: 64 bytes a call, unique for this worker's life."""

    def __init__(self, worker: WorkerIdentity) -> None:
        self._worker = worker
        self._sequence = 0

    def write(self, batch: Batch, answer: Answer, at_unix_ms: int) -> bytes:
        """Return the ids of one answer's calls, joined, in order."""
        worker, assignment, calls = self._worker, batch.assignment, answer.part.call_indexes
        key_hashes, first = assignment.key_hash[calls], self._sequence
        held_out = assignment.holdout
        self._sequence += len(key_hashes)
        return WRITE_IDS(
            worker.prediction_id_key,
            BODY.pack(
                FORMAT,
                answer.role,
                worker.slot,
                0,
                hash_model_name(batch.routes.model),
                answer.version.id[:8],
                batch.routes.deployment.revision,
                at_unix_ms,
                0,
                worker.boot_id,
            ),
            first & 0xFFFF_FFFF,
            key_hashes,
            None if held_out is None else held_out[calls].tobytes(),
        )

    def write_single(
        self,
        routes: Routes,
        version: LoadedVersion,
        key_hash: int,
        *,
        holdout: bool,
        at_unix_ms: int,
    ) -> bytes:
        """Return the id of one call that production answered, outside any batch."""
        worker = self._worker
        sequence = self._sequence
        self._sequence += 1
        return write_prediction_id(
            worker.prediction_id_key,
            role=PRODUCTION | HOLDOUT_BIT if holdout else PRODUCTION,
            slot=worker.slot,
            sequence=sequence & 0xFFFF_FFFF,
            model_hash=hash_model_name(routes.model),
            version=version.id[:8],
            revision=routes.deployment.revision,
            at_ms=at_unix_ms,
            key_hash=key_hash,
            boot_id=worker.boot_id,
        )


def replies_of(batch: Batch, answer: Answer) -> Replies:
    """Lay an answer out as the door wants it."""
    calls = answer.part.call_indexes
    held_out = batch.assignment.holdout
    return Replies(
        model=batch.routes.model,
        handles=batch.calls.handles[calls],
        version=answer.version.label,
        role=answer.role,
        holdout=None if held_out is None else held_out[calls],
        prediction_ids=answer.prediction_ids,
        row_offsets=answer.part.row_offsets,
        scores=answer.scores,
        row_flags=answer.flags,
    )


def answered_mask(scored: Scored) -> NDArray[np.bool_]:
    """(C,) True where the version answered with finite scores."""
    good: NDArray[np.bool_] = scored.faults == NO_FAULT
    return good
