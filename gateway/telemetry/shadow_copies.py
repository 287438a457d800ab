"""Shadow copies: rows of answered calls, with production's scores, for one shadow to score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Batch, BatchSlice, Index
from gateway.columns import row_counts
from gateway.key_column import KeyColumn
from gateway.models.executor import Scored
from gateway.models.routes import LoadedVersion, Participant, Routes
from registry.types import ALL_BP, SHADOW_DOMAIN


@dataclass(slots=True)
class ShadowCopies:
    """C calls with R rows, copied for one shadow after their replies were sent."""

    routes: Routes
    version: LoadedVersion
    matrix: NDArray[np.float32]
    """(R, F) the shadow's own inputs."""
    row_offsets: NDArray[np.uint32]
    """(C + 1,) where the rows of each call begin."""
    key_hash: NDArray[np.uint64]
    """(C,) evidence keys."""
    production_scores: NDArray[np.float32]
    """(R, K) production's scores, always finite."""
    flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits."""
    read_unix_ns: NDArray[np.int64]
    """(C,) when the age of the call's features was judged."""
    prediction_ids: bytes
    """64 bytes a call: the id of the answer that its caller got. Zeros if it got none."""
    entity_ids: KeyColumn
    """(R x E,) entity ids, row by row."""

    @staticmethod
    def concatenated(offered: "Sequence[ShadowCopies]") -> "ShadowCopies":
        """Return several copies for one shadow at one revision as one."""
        if len(offered) == 1:
            return offered[0]
        counts = np.concatenate([row_counts(copies.row_offsets) for copies in offered])
        return ShadowCopies(
            routes=offered[0].routes,
            version=offered[0].version,
            matrix=np.concatenate([copies.matrix for copies in offered]),
            row_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32),
            key_hash=np.concatenate([copies.key_hash for copies in offered]),
            production_scores=np.concatenate([copies.production_scores for copies in offered]),
            flags=np.concatenate([copies.flags for copies in offered]),
            read_unix_ns=np.concatenate([copies.read_unix_ns for copies in offered]),
            prediction_ids=b"".join([copies.prediction_ids for copies in offered]),
            entity_ids=KeyColumn.concatenated([copies.entity_ids for copies in offered]),
        )


class CopySink(Protocol):
    """What takes shadow copies: gateway.shadow.shadows.Shadows, or a fake of it in tests."""

    def offer(self, copies: ShadowCopies) -> None:
        """Take *copies*, or drop them and count the drop. Never blocks."""
        ...

    def send_pending(self) -> None:
        """Send what was offered so far to the shadows' processes."""
        ...


def copies_of_slice(
    batch: Batch, batch_slice: BatchSlice, scored: Scored
) -> Iterator[ShadowCopies]:
    """Yield what each shadow copies of the calls that production scored without a fault.

    The calls are answered already, so that they have prediction ids.

    scored  production's result for *batch_slice*.
    """
    ids = KeyColumn.from_entity_ids(batch.calls)
    for participant, sample_bp in batch.routes.shadows:
        # The calls of sampled keys, and their rows.
        answered = np.flatnonzero(scored.answered)
        keys = batch.assignment.keys.select(batch_slice.call_index_array()[answered])
        sampled = answered[sample_keys(keys, batch.routes, participant, sample_bp)]
        if not len(sampled):
            continue
        within = BatchSlice.from_calls(sampled, batch_slice.row_offsets)
        rows = within.row_indexes
        if not isinstance(batch_slice.row_indexes, slice):
            rows = batch_slice.row_indexes[rows]
        # Copy the rows and what names them.
        calls = batch_slice.call_index_array()[sampled]
        yield ShadowCopies(
            routes=batch.routes,
            version=participant.version,
            matrix=participant.matrix(batch.features.matrix)[rows],
            row_offsets=within.row_offsets,
            key_hash=batch.assignment.key_hash[calls],
            production_scores=scored.scores[within.row_indexes],
            flags=batch.flags(batch.all_calls())[rows],
            read_unix_ns=np.full(len(calls), batch.read_unix_ns, dtype=np.int64),
            prediction_ids=batch.answer_ids[calls].tobytes(),
            entity_ids=select_entity_ids(ids, batch.routes, rows),
        )


def select_entity_ids(ids: KeyColumn, routes: Routes, rows: Index) -> KeyColumn:
    """Return every entity id of *rows*, row by row, from the ids of the whole batch."""
    if isinstance(rows, slice):
        return ids
    entities = routes.shape.entities
    return ids.select((rows[:, None] * entities + np.arange(entities)).ravel())


def sample_keys(
    keys: KeyColumn, routes: Routes, participant: Participant, sample_bp: int
) -> NDArray[np.intp]:
    """Return the indexes of the keys that a shadow copies.

    The sample is drawn by key, so either all calls of a key are copied or none.
    """
    if sample_bp >= ALL_BP:
        return np.arange(len(keys))
    return np.flatnonzero(keys.hashes(sample_prefix(routes, participant)) % ALL_BP < sample_bp)


def sample_prefix(routes: Routes, participant: Participant) -> bytes:
    """Return the bytes that are hashed in front of each key to draw a shadow's sample."""
    return routes.deployment.split_salt + SHADOW_DOMAIN + participant.version.id
