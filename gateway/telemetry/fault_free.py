"""Batches in which nothing went wrong: answered at once, counted and kept many at a time.

That is nearly all of them: no version failed on a row, nobody named a version, and the canary, if
there is one, was asked on the loop. While callers wait such a batch is only cut for its replies.
What is told of either arm, written to the journal and copied for shadows is laid out afterwards for
all batches of 20 ms together, arm by arm, and is what it would have been batch by batch.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.key_column import KEY_SAMPLE_ALL, KeyColumn, in_key_sample
from gateway.models.executor import NO_FAULT, Scored
from gateway.models.routes import Participant
from gateway.predict.batch import ALL, Batch, BatchSlice
from gateway.rows import counts_of
from gateway.shadow.shadows import Copies, sample_keys
from gateway.telemetry.journal_records import ServedColumns, encode_served_batch, select_entity_ids
from gateway.telemetry.observations import ObservationCounts, Observations, count_observations
from gateway.telemetry.windows import evidence_sampled
from protos.predict_pb2 import CANARY, PRODUCTION
from protos.window_pb2 import ARM_CANARY, ARM_PRODUCTION


class VersionResult(NamedTuple):
    """What one version did in a batch."""

    scored: Scored
    """Production: every row of the batch, in its order. The canary: its own calls."""
    answered_ns: int
    """Monotonic: when its callers were answered."""
    prediction_ids: bytes
    """Of its own calls; empty where it has none."""

    def compared_end_ns(self, batch: Batch) -> int:
        """Return by what arms are compared: when it was asked, and the processor time it took."""
        if self.scored.elapsed_ns:
            return batch.scoring_started_ns + self.scored.cpu_ns
        return self.answered_ns


class FaultFreeBatch(NamedTuple):
    """One batch whose calls are all answered, without a fault in any."""

    batch: Batch
    flags: NDArray[np.uint32]
    """(R,) of all rows."""
    at_unix_ns: int
    """When its callers were answered."""
    production: VersionResult
    canary: VersionResult | None
    """None: it has no calls here."""


def count_broken_rows(batches: Sequence[FaultFreeBatch]) -> int:
    """Return the stored rows that were damaged, where production answered."""
    return sum(one.batch.features.broken for one in batches if one.production.prediction_ids)


class CleanBatches:
    """Several, of one model at one revision, as if they had been one."""

    def __init__(self, several: Sequence[FaultFreeBatch]) -> None:
        self._several = several
        self._batches = batches = [one.batch for one in several]
        self.routes = batches[0].routes
        self._calls = [batch.calls.calls for batch in batches]
        self._key_hash = np.concatenate([batch.assignment.key_hash for batch in batches])
        self._flags = np.concatenate([one.flags for one in several])
        self._scores = np.concatenate([one.production.scored.scores for one in several])
        self._row_offsets = self._offsets()

    def __len__(self) -> int:
        """C, of all of them."""
        return len(self._key_hash)

    def _offsets(self) -> NDArray[np.uint32]:
        if len(self._scores) == len(self._key_hash):  # a row each: no call has less
            return np.arange(len(self._key_hash) + 1, dtype=np.uint32)
        counts = [counts_of(batch.calls.row_offsets) for batch in self._batches]
        return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.uint32)

    def _part(self, arm: int) -> BatchSlice:
        arms = [batch.assignment.arm for batch in self._batches]
        drawn = [one for one in arms if one is not None]
        if not drawn:  # the deployment divides nothing, so no batch of it is divided
            return BatchSlice(ALL, ALL, self._row_offsets)
        return BatchSlice.from_calls(
            np.flatnonzero(np.concatenate(drawn) == arm), self._row_offsets
        )

    @cached_property
    def _production(self) -> BatchSlice:
        return self._part(ARM_PRODUCTION)

    @cached_property
    def _canary(self) -> BatchSlice:
        return self._part(ARM_CANARY)

    @cached_property
    def _arrived_ns(self) -> NDArray[np.int64]:
        return np.concatenate([batch.calls.arrived_ns for batch in self._batches])

    @cached_property
    def _matrix(self) -> NDArray[np.float32]:
        return np.concatenate([batch.features.matrix for batch in self._batches])

    @cached_property
    def _ids(self) -> KeyColumn:
        return KeyColumn.concatenated(
            [KeyColumn.from_entity_ids(batch.calls) for batch in self._batches]
        )

    @cached_property
    def _theirs(self) -> list[VersionResult]:
        """What the canary did, batch by batch, where it had calls."""
        return [one.canary for one in self._several if one.canary is not None]

    @cached_property
    def _canary_scores(self) -> NDArray[np.float32]:
        """(rows of its part, K)."""
        return np.concatenate([done.scored.scores for done in self._theirs])

    @cached_property
    def _batch(self) -> NDArray[np.intp]:
        """(C,) which batch each call came in."""
        return np.repeat(np.arange(len(self._calls)), self._calls)

    def _each(self, by_batch: Sequence[int], batch_slice: BatchSlice) -> NDArray[np.int64]:
        """(P,) what is one number for all calls of a batch."""
        every = np.array(by_batch, dtype=np.int64)
        if isinstance(batch_slice.call_indexes, slice):
            return every.repeat(self._calls)
        return every[self._batch[batch_slice.call_indexes]]

    # Counts

    def counts_by_arm(self) -> Iterator[tuple[Participant, int, ObservationCounts]]:
        """Yield (who, which arm, what was counted of it) of each arm that had calls."""
        routes = self.routes
        for participant, arm, told in self._arms():
            keep = evidence_sampled(routes, arm)
            yield participant, arm, count_observations(told, routes.score_edges, keep)

    def _arms(self) -> Iterator[tuple[Participant, int, Observations]]:
        several, routes = self._several, self.routes
        if len(self._production):
            done = [one.production for one in several]
            told = self._told(self._production, done, self._scores[self._production.row_indexes])
            told.broken = count_broken_rows(several)
            yield routes.production, ARM_PRODUCTION, told
        if self._theirs and routes.canary is not None:
            done = [one.production if one.canary is None else one.canary for one in several]
            told = self._told(self._canary, done, self._canary_scores)
            told.expected = self._scores[self._canary.row_indexes, 0]
            yield routes.canary, ARM_CANARY, told

    def _told(
        self, batch_slice: BatchSlice, done: Sequence[VersionResult], scores: NDArray[np.float32]
    ) -> Observations:
        """Lay out what one arm did. *done* is its own in every batch where it has calls."""
        batches, routes = self._batches, self.routes
        arrived_ns = self._arrived_ns[batch_slice.call_indexes]
        told = Observations(
            key_hash=self._key_hash[batch_slice.call_indexes],
            faults=np.full(len(batch_slice), NO_FAULT, dtype=np.uint8),
            holdout=self._held_out(batch_slice),
            latency_ns=self._each([one.answered_ns for one in done], batch_slice) - arrived_ns,
            scores=scores[:, 0],
            expected=None,
            row_offsets=batch_slice.row_offsets,
            flags=self._flags[batch_slice.row_indexes],
        )
        if not routes.compared:
            return told
        told.batch_calls = self._each(self._calls, batch_slice)
        done_ns = [one.compared_end_ns(batch) for batch, one in zip(batches, done, strict=True)]
        told.compared_latency_ns = self._each(done_ns, batch_slice) - arrived_ns
        overdue = [one.scored.overdue(routes.limits.canary_ns) for one in done]
        if any(overdue):
            told.overdue = self._each(overdue, batch_slice) != 0
        return told

    def _held_out(self, batch_slice: BatchSlice) -> NDArray[np.bool_] | None:
        held_out = [batch.assignment.holdout for batch in self._batches]
        drawn = [one for one in held_out if one is not None]
        return np.concatenate(drawn)[batch_slice.call_indexes] if drawn else None

    # The journal

    def served_records(self, sampled: int) -> Iterator[bytes]:
        """Yield each version's answers as a ServedBatch, of keys whose hash ends below *keep*."""
        routes, part = self.routes, self._production
        ids = b"".join([one.production.prediction_ids for one in self._several])
        if ids:
            yield from self._record(
                part, routes.production, PRODUCTION, ids, self._scores[part.row_indexes], sampled
            )
        if self._theirs and routes.canary is not None:
            ids = b"".join([done.prediction_ids for done in self._theirs])
            yield from self._record(
                self._canary, routes.canary, CANARY, ids, self._canary_scores, sampled
            )

    def _record(
        self,
        batch_slice: BatchSlice,
        participant: Participant,
        role: int,
        ids: bytes,
        scores: NDArray[np.float32],
        keep: int,
    ) -> Iterator[bytes]:
        if keep < KEY_SAMPLE_ALL:
            places = np.flatnonzero(in_key_sample(self._key_hash[batch_slice.call_indexes], keep))
            if not len(places):
                return
            ids = np.frombuffer(ids, dtype="V64")[places].tobytes()
            scores = scores[BatchSlice.from_calls(places, batch_slice.row_offsets).row_indexes]
            batch_slice = batch_slice.subset(places)
        yield encode_served_batch(
            ServedColumns(
                routes=self.routes,
                version=participant.version,
                read_unix_ns=self._each(
                    [batch.read_unix_ns for batch in self._batches], batch_slice
                ),
                role=np.full(len(batch_slice), role, dtype=np.uint8),
                row_count=batch_slice.rows_per_call,
                prediction_ids=ids,
                key_hash=self._key_hash[batch_slice.call_indexes],
                row_flags=self._flags[batch_slice.row_indexes],
                vectors=participant.matrix(self._matrix)[batch_slice.row_indexes],
                scores=scores,
                entity_ids=select_entity_ids(
                    self._ids, self.routes, batch_slice.row_indexes
                ).to_entity_ids_field(),
            )
        )

    # Shadows

    def shadow_copies(self) -> Iterator[Copies]:
        """Yield what each shadow is to score."""
        routes = self.routes
        if not routes.shadows:
            return
        keys = KeyColumn.concatenated([batch.assignment.keys for batch in self._batches])
        looked_flags = np.concatenate([batch.features.flags for batch in self._batches])
        for participant, sample_bp in routes.shadows:
            places = sample_keys(keys, routes, participant, sample_bp)
            if not len(places):
                continue
            taken = BatchSlice.from_calls(places, self._row_offsets)
            yield Copies(
                routes=routes,
                version=participant.version,
                matrix=participant.matrix(self._matrix)[taken.row_indexes],
                row_offsets=taken.row_offsets,
                key_hash=self._key_hash[places],
                expected=self._scores[taken.row_indexes, 0],
                flags=looked_flags[taken.row_indexes],
            )
