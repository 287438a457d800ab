"""One batch on its way: what was asked, what is known, and how its calls are answered."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.columns import Calls, Replies
from gateway.models.executor import NONE, Scored
from gateway.models.routes import LoadedVersion, Participant, Routes
from gateway.native_library import built
from gateway.predict.feature_lookup import Looked
from gateway.predict.routing import Assignment
from gateway.rows import counts_of
from journal.prediction_id import BODY, FORMAT, HOLDOUT_BIT, model_hash, write, write_many
from protos.predict_pb2 import DEFAULTED, PRODUCTION


@dataclass(slots=True)
class Worker:
    """Which worker this is, as prediction ids and windows name it. Its slot comes with serving."""

    gateway: str
    slot: int
    boot_id: int
    prediction_id_key: bytes


Index = NDArray[np.intp] | slice
WHOLE = slice(None)
"""Everything, in its order: indexing with it copies nothing."""


@dataclass(slots=True)
class Part:
    """Some calls of a batch with their rows: what one version is asked, and what it answers."""

    calls: Index
    """(P,) indexes into the batch's calls; a whole slice for the batch itself."""
    rows: Index
    """Indexes into the batch's rows, call by call; likewise."""
    row_offsets: NDArray[np.uint32]
    """(P + 1,) where each call's rows begin within *rows*."""
    row_flags: NDArray[np.uint32] | None = None
    """(R,) once `Batch.flags` was asked; read only."""
    inputs: "tuple[Participant, NDArray[np.float32]] | None" = None
    """Whose (R, F) were cut last, and these."""

    def __len__(self) -> int:
        """P."""
        return len(self.row_offsets) - 1

    @property
    def rows_per_call(self) -> NDArray[np.intp]:
        """(P,)."""
        return counts_of(self.row_offsets)

    @staticmethod
    def of(calls: NDArray[np.intp], row_offsets: NDArray[np.uint32]) -> "Part":
        """Pick *calls* out of a batch whose rows lie at *row_offsets*."""
        if int(row_offsets[-1]) == len(row_offsets) - 1:  # a row each: no call has less
            return Part(calls, calls, np.arange(len(calls) + 1, dtype=np.uint32))
        starts = row_offsets[calls].astype(np.intp)
        counts = row_offsets[calls + 1].astype(np.intp) - starts
        offsets = np.zeros(len(calls) + 1, dtype=np.uint32)
        np.cumsum(counts, out=offsets[1:])
        within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1].astype(np.intp), counts)
        return Part(calls, np.repeat(starts, counts) + within, offsets)

    def with_(self, other: "Part") -> "Part":
        """Return this part's calls and then *other*'s; neither is the whole batch."""
        offsets = np.concatenate([self.row_offsets, self.row_offsets[-1] + other.row_offsets[1:]])
        picked = (self.calls, other.calls, self.rows, other.rows)
        mine, theirs, my_rows, their_rows = (one for one in picked if not isinstance(one, slice))
        calls = np.concatenate([mine, theirs])
        return Part(calls, np.concatenate([my_rows, their_rows]), offsets)

    def take(self, places: NDArray[np.intp]) -> "Part":
        """Pick some of this part's calls, by place within it."""
        part = Part.of(places, self.row_offsets)
        if isinstance(self.calls, slice) or isinstance(self.rows, slice):
            return part
        return Part(self.calls[places], self.rows[part.rows], part.row_offsets)

    def indexes(self) -> NDArray[np.intp]:
        """(P,) indexes into the batch's calls, as numbers."""
        return np.arange(len(self)) if isinstance(self.calls, slice) else self.calls


@dataclass(slots=True)
class Batch:
    """C calls of one model, taken together, under one revision."""

    routes: Routes
    calls: Calls
    assignment: Assignment
    looked: Looked
    read_unix_ns: int
    """When its features were judged for staleness."""
    asked_ns: int = 0
    """Monotonic: when its versions were asked."""

    def whole(self) -> Part:
        """All of its calls."""
        return Part(WHOLE, WHOLE, self.calls.row_offsets)

    def part(self, calls: NDArray[np.intp]) -> Part:
        """Pick some of its calls."""
        return Part.of(calls, self.calls.row_offsets)

    def flags(self, part: Part) -> NDArray[np.uint32]:
        """Row flags of *part*: what the lookup found, and whether the call was sticky.

        Kept for the next who asks: not to be written to.
        """
        if part.row_flags is None:
            flags, by_call = self.looked.flags[part.rows], self.assignment.flags
            if by_call is not None:
                flags = flags | np.repeat(by_call[part.calls], part.rows_per_call)
            part.row_flags = flags
        return part.row_flags

    def inputs(self, part: Part, participant: Participant) -> NDArray[np.float32]:
        """(R, F) of *part* as this version sees them; cut once for scoring and journal."""
        if part.inputs is None or part.inputs[0] is not participant:
            part.inputs = participant, participant.matrix(self.looked.matrix)[part.rows]
        return part.inputs[1]


@dataclass(slots=True)
class Answer:
    """Finished calls of one version and role, ready to be sent, counted and kept."""

    part: Part
    version: LoadedVersion
    role: int
    scores: NDArray[np.float32]
    """(R, K)."""
    flags: NDArray[np.uint32]
    """(R,)."""
    prediction_ids: bytes = b""


def default_unusable(
    answer_scores: NDArray[np.float32], flags: NDArray[np.uint32], default: float
) -> None:
    """Put *default* where a score is NaN or infinite, in place, and flag the row DEFAULTED."""
    unusable = ~np.isfinite(answer_scores)
    answer_scores[unusable] = default
    flags[unusable.any(axis=1)] |= np.uint32(DEFAULTED)


Many = Callable[[bytes, bytes, int, NDArray[np.uint64], bytes | None], bytes]
"""journal.prediction_id.write_many, or the native library's of the same bytes."""
MANY: Many = getattr(built(), "prediction_ids", write_many)


class IdWriter:
    """Names predictions: 64 bytes a call, unique for this worker's life."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._sequence = 0

    def write(self, batch: Batch, answer: Answer, at_unix_ms: int) -> bytes:
        """Return the ids of one answer's calls, joined, in order."""
        worker, assignment, calls = self._worker, batch.assignment, answer.part.calls
        key_hashes, first = assignment.key_hash[calls], self._sequence
        held_out = assignment.holdout
        self._sequence += len(key_hashes)
        return MANY(
            worker.prediction_id_key,
            BODY.pack(
                FORMAT,
                answer.role,
                worker.slot,
                0,
                model_hash(batch.routes.model),
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

    def write_one(
        self,
        routes: Routes,
        version: LoadedVersion,
        key_hash: int,
        *,
        held_out: bool,
        at_unix_ms: int,
    ) -> bytes:
        """Return the id of one call that production answered, outside any batch."""
        worker = self._worker
        sequence = self._sequence
        self._sequence += 1
        return write(
            worker.prediction_id_key,
            role=PRODUCTION | HOLDOUT_BIT if held_out else PRODUCTION,
            slot=worker.slot,
            sequence=sequence & 0xFFFF_FFFF,
            model_hash=model_hash(routes.model),
            version=version.id[:8],
            revision=routes.deployment.revision,
            at_ms=at_unix_ms,
            key_hash=key_hash,
            boot_id=worker.boot_id,
        )


def replies_of(batch: Batch, answer: Answer) -> Replies:
    """Lay an answer out as the door wants it."""
    calls = answer.part.calls
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


def fine(scored: Scored) -> NDArray[np.bool_]:
    """(C,) True where the version answered with finite scores."""
    good: NDArray[np.bool_] = scored.faults == NONE
    return good
