"""One batch on its way: what was asked, what is known, and how its calls are answered."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.columns import Calls, Replies
from gateway.deployed import LoadedVersion, Routes
from gateway.lookup import Looked
from gateway.route import Assignment
from gateway.rows import counts_of
from gateway.scoring import NONE, Scored
from journal import prediction_id
from protos.predict_pb2 import DEFAULTED


@dataclass(slots=True)
class Worker:
    """Which worker this is, as prediction ids and windows name it. Its slot comes with serving."""

    gateway: str
    slot: int
    boot_id: int
    prediction_id_key: bytes


@dataclass(slots=True)
class Part:
    """Some calls of a batch with their rows: what one version is asked, and what it answers."""

    calls: NDArray[np.intp]
    """(P,) indexes into the batch's calls."""
    rows: NDArray[np.intp]
    """Indexes into the batch's rows, call by call."""
    row_offsets: NDArray[np.uint32]
    """(P + 1,) where each call's rows begin within *rows*."""
    whole: bool = False
    """True when this is the batch itself, in its order: nothing need be picked."""

    @property
    def rows_per_call(self) -> NDArray[np.intp]:
        """(P,)."""
        return counts_of(self.row_offsets)

    @staticmethod
    def of(calls: NDArray[np.intp], row_offsets: NDArray[np.uint32]) -> "Part":
        """Pick *calls* out of a batch whose rows lie at *row_offsets*."""
        starts = row_offsets[calls].astype(np.intp)
        counts = row_offsets[calls + 1].astype(np.intp) - starts
        offsets = np.zeros(len(calls) + 1, dtype=np.uint32)
        np.cumsum(counts, out=offsets[1:])
        within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1].astype(np.intp), counts)
        return Part(calls, np.repeat(starts, counts) + within, offsets)

    def take(self, places: NDArray[np.intp]) -> "Part":
        """Pick some of this part's calls, by place within it."""
        part = Part.of(places, self.row_offsets)
        return Part(self.calls[places], self.rows[part.rows], part.row_offsets)


@dataclass(slots=True)
class Batch:
    """C calls of one model, taken together, under one revision."""

    routes: Routes
    calls: Calls
    assignment: Assignment
    looked: Looked
    read_unix_ns: int
    """When its features were judged for staleness."""

    def whole(self) -> Part:
        """All of its calls."""
        offsets = self.calls.row_offsets
        rows, calls = np.arange(self.calls.rows), np.arange(self.calls.calls)
        return Part(calls, rows, offsets, whole=True)

    def part(self, calls: NDArray[np.intp]) -> Part:
        """Pick some of its calls."""
        return Part.of(calls, self.calls.row_offsets)

    def flags(self, part: Part) -> NDArray[np.uint32]:
        """Row flags of *part*: what the lookup found, and whether the call was sticky."""
        flags = self.looked.flags if part.whole else self.looked.flags[part.rows]
        by_call = self.assignment.flags
        if by_call is None:
            return flags
        return flags | np.repeat(by_call[part.calls], part.rows_per_call)


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


class IdWriter:
    """Names predictions: 64 bytes a call, unique for this worker's life."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._sequence = 0

    def write(self, batch: Batch, answer: Answer, at_unix_ms: int) -> bytes:
        """Return the ids of one answer's calls, joined, in order."""
        calls = answer.part.calls
        ids = np.zeros(len(calls), dtype=prediction_id.LAYOUT)
        ids["format"] = prediction_id.FORMAT
        held_out = batch.assignment.holdout[calls]
        ids["role"] = answer.role | (held_out * np.uint8(prediction_id.HOLDOUT_BIT))
        ids["slot"] = self._worker.slot
        sequences = np.arange(self._sequence, self._sequence + len(calls), dtype=np.uint64)
        ids["sequence"] = sequences & np.uint64(0xFFFFFFFF)
        ids["model"] = prediction_id.model_hash(batch.routes.model)
        ids["version"] = np.void(answer.version.id[:8])
        ids["revision"] = batch.routes.deployment.revision
        ids["at_ms"] = at_unix_ms
        ids["key_hash"] = batch.assignment.key_hash[calls]
        ids["boot_id"] = self._worker.boot_id
        self._sequence += len(calls)
        return prediction_id.seal(ids, self._worker.prediction_id_key)


def replies_of(batch: Batch, answer: Answer) -> Replies:
    """Lay an answer out as the door wants it."""
    calls = answer.part.calls
    return Replies(
        model=batch.routes.model,
        handles=batch.calls.handles[calls],
        versions=(answer.version.label,),
        version_index=np.zeros(len(calls), dtype=np.uint8),
        role=np.full(len(calls), answer.role, dtype=np.uint8),
        holdout=batch.assignment.holdout[calls],
        prediction_ids=answer.prediction_ids,
        row_offsets=answer.part.row_offsets,
        scores=answer.scores,
        row_flags=answer.flags,
    )


def fine(scored: Scored) -> NDArray[np.bool_]:
    """(C,) True where the version answered with finite scores."""
    good: NDArray[np.bool_] = scored.faults == NONE
    return good
