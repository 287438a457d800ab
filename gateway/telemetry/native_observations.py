"""Batches without a fault: counted, journaled and copied by the native library in one pass each.

Nearly every batch has no fault: every version answered every call with finite scores, no call
pinned a version, and the canary, if there is one, was scored on the event loop. The library folds
many such batches at once, to the same bits as the reference path (slice_observations.py,
journal_records.py, shadow_copies.py), for a third of the time: numpy walks over the columns some
forty times, and most of them have left the processor's cache by then.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Batch
from gateway.key_column import KeyColumn
from gateway.models.executor import Fault, Scored
from gateway.models.routes import LoadedVersion, Participant, Routes
from gateway.native_library import load_native_library
from gateway.telemetry.folding import FoldedReplies
from gateway.telemetry.journal_records import served_batch_header
from gateway.telemetry.observations import ObservationCounts, evidence_sampled
from gateway.telemetry.shadow_copies import ShadowCopies, sample_prefix
from protos.predict_pb2 import CANARY, PRODUCTION
from protos.window_pb2 import (
    ARM_CANARY,
    ARM_PRODUCTION,
    METRIC_LATENCY,
    METRIC_SCORE,
    METRIC_TIMEOUT,
)
from stats.latency import EDGES_NS
from stats.score_scale import ScoreScale


class NativeBatches(Protocol):
    """The class of the native library that folds batches (ingress/src/python)."""

    def count_observations(
        self, canary: bool, latencies: object, scale: object, sampled: int | None
    ) -> tuple[Any, ...] | None:
        """Count the calls of one arm. None if the arm has no calls."""
        ...

    def record(
        self, canary: bool, header: bytes, role: int, sampled: int, columns: list[int] | None
    ) -> bytes | None:
        """Return the answers of one arm as a ServedBatch. None if no call is sampled."""
        ...

    def copies(
        self, prefix: bytes, sample_bp: int, columns: list[int] | None
    ) -> tuple[bytes, ...] | None:
        """Return what a shadow copies, as the columns of ShadowCopies.

        The entity ids are two of them: their bytes, and where each begins and the last ends.
        """
        ...


_LIBRARY: Any = load_native_library()
NATIVE_BATCHES: Any = getattr(_LIBRARY, "FaultFreeBatches", None)
"""None if the library is not built. Then every batch takes the reference path."""
NATIVE_SINGLE_ANSWERS: Any = getattr(_LIBRARY, "SingleAnswers", None)
"""None if the library is not built. Then single answers are folded in Python."""
LATENCY_BINS = None if NATIVE_BATCHES is None else _LIBRARY.LatencyBins(EDGES_NS)


@lru_cache(maxsize=256)
def native_scale(scale: ScoreScale) -> object:
    """Return *scale* as the library takes it. A baseline has one for as long as it is loaded."""
    edges = [edges.tobytes() for edges in scale.edges]
    units = (scale.centers.tobytes(), scale.spreads.tobytes()) if scale.scaled else None
    return _LIBRARY.ScoreScale(edges, scale.first_bins.tolist(), scale.size, units)


class VersionResult(NamedTuple):
    """What one version did in a batch without a fault."""

    scored: Scored
    """Production: every row of the batch in order. The canary: the rows of its own calls."""
    answered_ns: int
    """Monotonic time at which its callers were answered."""
    prediction_ids: bytes
    """64 bytes for each of its own calls. Empty if it has none."""

    def compared_end_ns(self, batch: Batch) -> int:
        """Return the time by which arms are compared: start of scoring plus processor time."""
        if self.scored.elapsed_ns:
            return batch.scoring_started_ns + self.scored.cpu_ns
        return self.answered_ns


class FaultFreeBatch(NamedTuple):
    """A reply record: one batch whose calls are all answered, without a fault in any."""

    batch: Batch
    flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits of every row."""
    at_unix_ns: int
    production: VersionResult
    canary: VersionResult | None
    """None if the canary has no calls in this batch."""

    @property
    def routes(self) -> Routes:
        """The routes under which the calls were answered."""
        return self.batch.routes

    @property
    def group(self) -> None:
        """Return the same group for all batches, so that those of one model are folded together."""
        return

    @property
    def rows(self) -> int:
        """R, the number of rows in the batch."""
        return len(self.flags)

    @staticmethod
    def fold(records: "Sequence[FaultFreeBatch]") -> FoldedReplies:
        """Fold batches of one model at one revision in the native library."""
        return _Batches(
            records[0].routes,
            [native_columns(batch) for batch in records],
            outputs=records[0].production.scored.scores.shape[1],
            width=records[0].batch.features.matrix.shape[1],
            broken=sum(
                record.batch.features.broken
                for record in records
                if record.production.prediction_ids
            ),
        ).folded()


class AnsweredGroup(NamedTuple):
    """A reply record: calls of one model that were answered in a pass over many models."""

    routes: Routes
    at_unix_ns: int
    columns: object
    """turnout_ingress.AnsweredGroup, which the library takes in place of a batch's columns."""
    rows: int
    """R, the number of rows."""
    width: int
    """W, the number of columns of the matrix."""
    broken: int
    """Stored rows with a wrong hash or id."""

    @property
    def group(self) -> None:
        """Return the same group for all, so that those of one model are folded together."""
        return

    @staticmethod
    def fold(records: "Sequence[AnsweredGroup]") -> FoldedReplies:
        """Fold groups of one model at one revision in the native library."""
        routes = records[0].routes
        return _Batches(
            routes,
            [record.columns for record in records],
            outputs=routes.production.version.executor.outputs,
            width=records[0].width,
            broken=sum(record.broken for record in records),
        ).folded()


class SingleAnswers:
    """Calls of one model at one revision that were answered alone, added one by one to be folded.

    routes  those of all of the calls.
    width   W, the number of columns of a row.
    """

    __slots__ = ("_columns", "_routes", "_width", "add", "broken")

    def __init__(self, routes: Routes, width: int) -> None:
        self._routes = routes
        self._width = width
        self._columns: Any = NATIVE_SINGLE_ANSWERS()
        self.add: Callable[..., None] = self._columns.add
        """turnout_ingress.SingleAnswers.add."""
        self.broken = 0

    def folded(self) -> FoldedReplies:
        """Fold the calls in the native library."""
        return _Batches(
            self._routes,
            [self._columns.take()],
            outputs=self._routes.production.version.executor.outputs,
            width=self._width,
            broken=self.broken,
        ).folded()


class _Batches:
    """Several batches of one model at one revision, in the library.

    columns  of each batch, as `native_columns` returns them, or turnout_ingress.AnsweredGroup.
    outputs  K, the number of outputs.
    width    W, the number of columns of a batch's matrix.
    broken   stored rows with a wrong hash or id, in batches that production answered.
    """

    def __init__(
        self, routes: Routes, columns: Sequence[object], *, outputs: int, width: int, broken: int
    ) -> None:
        self._routes = routes
        self._outputs = outputs
        self._width = width
        self._broken = broken
        entities = routes.shape.entities
        self._native: NativeBatches = NATIVE_BATCHES(columns, outputs, entities, width)

    def folded(self) -> FoldedReplies:
        return FoldedReplies(
            counts=list(self.counts_by_arm()),
            journal_records=list(self.journal_records()),
            shadow_copies=list(self.shadow_copies()),
        )

    def counts_by_arm(self) -> Iterator[tuple[LoadedVersion, int, ObservationCounts]]:
        scale = native_scale(self._routes.scale)
        for participant, arm, _ in self._arms():
            sampled = evidence_sampled(self._routes, arm)
            counts = self._native.count_observations(
                arm == ARM_CANARY, LATENCY_BINS, scale, sampled
            )
            if counts is not None:
                yield participant.version, arm, self._observation_counts(arm, *counts)

    def journal_records(self) -> Iterator[bytes]:
        sampled = self._routes.limits.journal_sampled
        for participant, arm, role in self._arms():
            columns = _column_list(participant)
            width = self._width if columns is None else len(columns)
            header = served_batch_header(self._routes, participant.version, width, self._outputs)
            payload = self._native.record(
                arm == ARM_CANARY, header.SerializeToString(), role, sampled, columns
            )
            if payload is not None:
                yield payload

    def shadow_copies(self) -> Iterator[ShadowCopies]:
        for participant, sample_bp in self._routes.shadows:
            columns = _column_list(participant)
            prefix = sample_prefix(self._routes, participant)
            copied = self._native.copies(prefix, sample_bp, columns)
            if copied is None:
                continue
            matrix, row_offsets, key_hash, scores, flags, read_ns, ids, entities, ends = copied
            entity_offsets = np.frombuffer(ends, np.uint32)
            width = self._width if columns is None else len(columns)
            yield ShadowCopies(
                routes=self._routes,
                version=participant.version,
                matrix=np.frombuffer(matrix, np.float32).reshape(-1, width),
                row_offsets=np.frombuffer(row_offsets, np.uint32),
                key_hash=np.frombuffer(key_hash, np.uint64),
                production_scores=np.frombuffer(scores, np.float32).reshape(-1, self._outputs),
                flags=np.frombuffer(flags, np.uint32),
                read_unix_ns=np.frombuffer(read_ns, np.int64),
                prediction_ids=ids,
                entity_ids=KeyColumn(entities, entity_offsets[:-1], entity_offsets[1:]),
            )

    def _arms(self) -> Iterator[tuple[Participant, int, int]]:
        """Yield (participant, turnout.v1.Arm, turnout.v1.Role) of each arm."""
        yield self._routes.production, ARM_PRODUCTION, PRODUCTION
        if self._routes.canary is not None:
            yield self._routes.canary, ARM_CANARY, CANARY

    def _observation_counts(
        self,
        arm: int,
        calls: int,
        holdout: int,
        rows: int,
        flags: list[int],
        latency: bytes,
        scores: bytes,
        records: list[bytes],
    ) -> ObservationCounts:
        faults = np.zeros(len(Fault), dtype=np.int64)
        faults[Fault.NONE] = calls
        histogram = np.frombuffer(scores, np.int64)
        metrics = (METRIC_SCORE, METRIC_LATENCY, METRIC_TIMEOUT)
        return ObservationCounts(
            faults=faults,
            rows=rows,
            flags=tuple(flags),
            latency=np.frombuffer(latency, np.int64),
            scores=histogram,
            all_scores=histogram,
            holdout=holdout,
            broken=self._broken if arm == ARM_PRODUCTION else 0,
            records={m: fields for m, fields in zip(metrics, records, strict=True) if fields},
        )


def _column_list(participant: Participant) -> list[int] | None:
    columns: NDArray[np.intp] | None = participant.columns
    return None if columns is None else columns.tolist()


def native_columns(record: FaultFreeBatch) -> tuple[Any, ...]:
    """Return one batch as the library takes it. Bytes cost a third of arrays that are lent."""
    batch = record.batch
    calls, assignment, features = batch.calls, batch.assignment, batch.features
    entities, keys = calls.entity_offsets, assignment.keys
    return (
        (
            None if assignment.arm is None else assignment.arm.tobytes(),
            assignment.key_hash.tobytes(),
            calls.arrived_ns.tobytes(),
            calls.row_offsets.tobytes(),
            None if assignment.holdout is None else assignment.holdout.tobytes(),
        ),
        (
            record.flags.tobytes(),
            features.matrix.tobytes(),
            batch.read_unix_ns,
        ),
        (calls.entity_ids, entities[:-1].tobytes(), entities[1:].tobytes()),
        (keys.buffer, keys.starts.tobytes(), keys.ends.tobytes()),
        _native_result(batch, record.production),
        None if record.canary is None else _native_result(batch, record.canary),
    )


def _native_result(batch: Batch, result: VersionResult) -> tuple[Any, ...]:
    routes, scored = batch.routes, result.scored
    overdue = routes.compared and scored.overdue(routes.limits.canary_ns)
    end_ns = result.compared_end_ns(batch) if routes.compared else result.answered_ns
    return scored.scores.tobytes(), result.answered_ns, end_ns, overdue, result.prediction_ids
