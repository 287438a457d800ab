"""Batches without a fault, counted, kept and copied in the native library: in one pass each.

What `gateway.telemetry.fault_free.CleanBatches` says of them, to the same bits, for a third of the
time: numpy walks over columns some forty times, and most of it has left the processor's cache by
then.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Fault
from gateway.models.routes import Participant, Routes
from gateway.native_library import load_native_library
from gateway.predict.batch import Batch
from gateway.shadow.shadows import Copies, sample_prefix
from gateway.telemetry.fault_free import (
    CleanBatches,
    FaultFreeBatch,
    VersionResult,
    count_broken_rows,
)
from gateway.telemetry.journal_records import served_batch_header
from gateway.telemetry.observations import ObservationCounts
from gateway.telemetry.windows import evidence_sampled
from protos.predict_pb2 import CANARY, PRODUCTION
from protos.window_pb2 import (
    ARM_CANARY,
    ARM_PRODUCTION,
    METRIC_LATENCY,
    METRIC_SCORE,
    METRIC_TIMEOUT,
)
from stats.latency import EDGES_NS


class ObservationBatches(Protocol):
    """What is told, kept and copied of several batches of one model at one revision."""

    def counts_by_arm(self) -> Iterator[tuple[Participant, int, ObservationCounts]]:
        """Yield (who, which arm, what was counted of it) of each arm that had calls."""
        ...

    def served_records(self, sampled: int) -> Iterator[bytes]:
        """Yield each version's answers as a ServedBatch, of keys whose hash ends below *keep*."""
        ...

    def shadow_copies(self) -> Iterator[Copies]:
        """Yield what each shadow is to score."""
        ...


class IngressFaultFreeBatches(Protocol):
    """turnout_ingress.CleanBatches (ingress/src/python_clean.rs)."""

    def tally(
        self, canary: bool, latencies: object, edges: object, evidence_sampled: int | None
    ) -> tuple[Any, ...] | None:
        """Count the calls of one version."""
        ...

    def record(
        self, canary: bool, head: bytes, role: int, sampled: int, columns: list[int] | None
    ) -> bytes | None:
        """Return its answers as a ServedBatch's bytes."""
        ...

    def copies(
        self, before: bytes, sample_bp: int, columns: list[int] | None
    ) -> tuple[bytes, ...] | None:
        """Return what a shadow is to score: matrix, offsets, keys' hashes, expected, flags."""
        ...


_LIBRARY: Any = load_native_library()
NATIVE_BATCHES: Any = getattr(_LIBRARY, "CleanBatches", None)
"""None: everything is done by numpy."""
LATENCY_BINS = None if NATIVE_BATCHES is None else _LIBRARY.LatencyBins(EDGES_NS)


def combine_batches(batches: Sequence[FaultFreeBatch]) -> ObservationBatches:
    """Return *several*, of one model at one revision, as if they had been one."""
    return CleanBatches(batches) if NATIVE_BATCHES is None else NativeFaultFreeBatches(batches)


class NativeFaultFreeBatches:
    """`gateway.telemetry.fault_free.CleanBatches`, in the library."""

    def __init__(self, batches: Sequence[FaultFreeBatch]) -> None:
        first = batches[0].batch
        self._batches = batches
        self.routes: Routes = first.routes
        self._outputs = batches[0].production.scored.scores.shape[1]
        self._width = first.features.matrix.shape[1]
        entities = self.routes.shape.entities
        laid = [_native_columns(one) for one in batches]
        self._native: IngressFaultFreeBatches = NATIVE_BATCHES(
            laid, self._outputs, entities, self._width
        )

    def counts_by_arm(self) -> Iterator[tuple[Participant, int, ObservationCounts]]:
        """Yield (who, which arm, what was counted of it) of each arm that had calls."""
        for participant, arm, _ in self._arms():
            keep = evidence_sampled(self.routes, arm)
            edges = self.routes.score_edges
            told = self._native.tally(arm == ARM_CANARY, LATENCY_BINS, edges, keep)
            if told is not None:
                yield participant, arm, self._observation_counts(arm, *told)

    def _arms(self) -> Iterator[tuple[Participant, int, int]]:
        yield self.routes.production, ARM_PRODUCTION, PRODUCTION
        if self.routes.canary is not None:
            yield self.routes.canary, ARM_CANARY, CANARY

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
        counted = np.frombuffer(scores, np.int64)
        metrics = (METRIC_SCORE, METRIC_LATENCY, METRIC_TIMEOUT)
        return ObservationCounts(
            faults=faults,
            rows=rows,
            flags=tuple(flags),
            latency=np.frombuffer(latency, np.int64),
            scores=counted,
            all_scores=counted,
            holdout=holdout,
            broken=count_broken_rows(self._batches) if arm == ARM_PRODUCTION else 0,
            records={metric: told for metric, told in zip(metrics, records, strict=True) if told},
        )

    def served_records(self, sampled: int) -> Iterator[bytes]:
        """Yield each version's answers as a ServedBatch, of keys whose hash ends below *keep*."""
        for participant, arm, role in self._arms():
            columns = _columns(participant)
            width = self._width if columns is None else len(columns)
            begins = served_batch_header(self.routes, participant.version, width, self._outputs)
            said = begins.SerializeToString()
            told = self._native.record(arm == ARM_CANARY, said, role, sampled, columns)
            if told is not None:
                yield told

    def shadow_copies(self) -> Iterator[Copies]:
        """Yield what each shadow is to score."""
        routes = self.routes
        for participant, sample_bp in routes.shadows:
            columns = _columns(participant)
            before = sample_prefix(routes, participant)
            copied = self._native.copies(before, sample_bp, columns)
            if copied is None:
                continue
            matrix, row_offsets, key_hash, expected, flags = copied
            width = self._width if columns is None else len(columns)
            yield Copies(
                routes=routes,
                version=participant.version,
                matrix=np.frombuffer(matrix, np.float32).reshape(-1, width),
                row_offsets=np.frombuffer(row_offsets, np.uint32),
                key_hash=np.frombuffer(key_hash, np.uint64),
                expected=np.frombuffer(expected, np.float32),
                flags=np.frombuffer(flags, np.uint32),
            )


def _columns(participant: Participant) -> list[int] | None:
    columns: NDArray[np.intp] | None = participant.columns
    return None if columns is None else columns.tolist()


def _native_columns(fault_free: FaultFreeBatch) -> tuple[Any, ...]:
    """One batch as `ingress/src/python_clean.rs` takes it: bytes cost a third of lent arrays."""
    batch = fault_free.batch
    calls, drawn, looked = batch.calls, batch.assignment, batch.features
    entities, keys = calls.entity_offsets, drawn.keys
    return (
        (
            None if drawn.arm is None else drawn.arm.tobytes(),
            drawn.key_hash.tobytes(),
            calls.arrived_ns.tobytes(),
            calls.row_offsets.tobytes(),
            None if drawn.holdout is None else drawn.holdout.tobytes(),
        ),
        (
            fault_free.flags.tobytes(),
            looked.flags.tobytes(),
            looked.matrix.tobytes(),
            batch.read_unix_ns,
        ),
        (calls.entity_ids, entities[:-1].tobytes(), entities[1:].tobytes()),
        (keys.buffer, keys.starts.tobytes(), keys.ends.tobytes()),
        _native_result(batch, fault_free.production),
        None if fault_free.canary is None else _native_result(batch, fault_free.canary),
    )


def _native_result(batch: Batch, result: VersionResult) -> tuple[Any, ...]:
    routes, scored = batch.routes, result.scored
    overdue = routes.compared and scored.overdue(routes.limits.canary_ns)
    done_ns = result.compared_end_ns(batch) if routes.compared else result.answered_ns
    return scored.scores.tobytes(), result.answered_ns, done_ns, overdue, result.prediction_ids
