"""What happens after a reply: count, compare with shadows, keep. None of it can delay a caller."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Answer, Batch, Part, fine
from gateway.clock import Clock
from gateway.deployed import LoadedVersion, Routes
from gateway.lookup import Looked
from gateway.metrics import Metrics
from gateway.scoring import Fault, Scored
from gateway.shadows import Copies, Shadows
from gateway.status import Refusal
from gateway.windows import Told, Windows
from protos import predict_pb2, window_pb2
from protos.journal_pb2 import ServedBatch
from stats.latency import BINS, bins_of


class Tape(Protocol):
    """journal.writer.Writer, or a fake of it."""

    @property
    def healthy(self) -> bool:
        """False once the disk has refused."""
        ...

    def append(self, payload: bytes) -> None:
        """Queue one record; never blocks, drops and counts when it must."""
        ...


class Aside:
    """Everything that hears of a batch after its callers do."""

    def __init__(
        self,
        windows: Windows,
        metrics: Metrics,
        shadows: Shadows,
        served: Tape,
        clock: Clock,
        on_guard: Callable[[window_pb2.HardGuard], None],
    ) -> None:
        self._windows = windows
        self._metrics = metrics
        self._shadows = shadows
        self._served = served
        self._clock = clock
        self._on_guard = on_guard

    @property
    def journal_healthy(self) -> bool:
        """Whether served vectors can be written."""
        return self._served.healthy

    def looked(self, routes: Routes, looked: Looked) -> None:
        """Count one batch and how its features were read."""
        metrics, rows = self._metrics, len(looked.flags)
        metrics.count_batch(rows)
        if routes.reads:
            metrics.count_feature_reads(looked.unread or "ok")
        if looked.flags.any():
            for name in ("MISSING", "STALE", "DEFAULTED", "DEGRADED"):
                flagged = np.count_nonzero(looked.flags & predict_pb2.RowFlag.Value(name))
                if flagged:
                    metrics.count_feature_rows(routes.model, name.lower(), int(flagged))
        if looked.broken:
            metrics.count_feature_rows(routes.model, "broken", looked.broken)

    def refused(self, routes: Routes | None, model: str, refusal: Refusal, calls: int) -> None:
        """Count calls that the core refused before any version saw them."""
        self._metrics.refuse(model if routes else "other", refusal.code.name, "core", calls)
        if routes is not None:
            self._windows.refuse(routes, calls, self._clock.unix_ns())

    def failed(self, routes: Routes, refusal: Refusal, calls: int) -> None:
        """Count calls that no version could answer."""
        self._metrics.refuse(routes.model, refusal.code.name, "model", calls)

    def told(self, routes: Routes, version: LoadedVersion, arm: int, told: Told) -> None:
        """Count what one version did with its calls."""
        self._windows.tell(routes, version, arm, told, self._clock.unix_ns())
        role = window_pb2.Arm.Name(arm).removeprefix("ARM_").lower()
        kinds = np.bincount(told.faults, minlength=len(Fault)).tolist()
        for fault, calls in zip(Fault, kinds, strict=True):
            if calls:
                outcome = "answered" if fault is Fault.NONE else fault.name.lower()
                self._metrics.count_calls(routes.model, version.label, role, outcome, calls)
        good = told.latency_ns[told.faults == Fault.NONE]
        counts = np.bincount(bins_of(good), minlength=BINS)
        self._metrics.count_latency(routes.model, version.label, role, counts)

    def passed_over(self, routes: Routes, version: LoadedVersion, calls: int) -> None:
        """Count a canary's calls that the open breaker gave to production unasked."""
        self._windows.pass_over(routes, version, calls, self._clock.unix_ns())
        self._metrics.count_calls(routes.model, version.label, "canary", "passed_over", calls)

    def breaker_opened(self, routes: Routes, reason: str, unix_ns: int) -> None:
        """Say at once that this worker does not ask the canary any more."""
        assert routes.canary is not None
        self._on_guard(
            window_pb2.HardGuard(
                model=routes.model,
                version=routes.canary.version.label,
                revision=routes.deployment.revision,
                kind=window_pb2.HardGuard.BREAKER_OPEN,
                reason=reason,
                at_unix_ns=unix_ns,
                first_bad_unix_ns=routes.breaker.first_bad_unix_ns,
            )
        )

    def answered(self, batch: Batch, answer: Answer, matrix: NDArray[np.float32]) -> None:
        """Keep what was served: the vectors exactly as the version saw them, and its scores."""
        keep = batch.routes.budgets.journal_keep
        part, version = answer.part, answer.version
        if keep < 65_536:
            hashes = batch.assignment.key_hash[part.calls]
            places = np.flatnonzero((hashes & np.uint64(0xFFFF)) < keep)
            if not len(places):
                return
            rows = Part.of(places, part.row_offsets).rows
            ids = np.frombuffer(answer.prediction_ids, dtype="V64")[places].tobytes()
            part = part.take(places)
            answer = Answer(
                part, version, answer.role, answer.scores[rows], answer.flags[rows], ids
            )
            matrix = matrix[rows]
        self._served.append(_record(batch, answer, matrix).SerializeToString())

    def offer_shadows(self, batch: Batch, part: Part, scored: Scored) -> None:
        """Give the shadows copies of the rows that production scored."""
        for participant, sample_bp in batch.routes.shadows:
            good = np.flatnonzero(fine(scored))
            places = self._shadows.sample(batch, part, good, participant, sample_bp)
            if not len(places):
                continue
            taken = Part.of(places, part.row_offsets)
            rows = part.rows[taken.rows]
            self._shadows.offer(
                Copies(
                    routes=batch.routes,
                    version=participant.version,
                    matrix=participant.matrix(batch.looked.matrix)[rows],
                    row_offsets=taken.row_offsets,
                    key_hash=batch.assignment.key_hash[part.calls[places]],
                    expected=scored.scores[taken.rows, 0],
                    flags=batch.looked.flags[rows],
                )
            )


def _record(batch: Batch, answer: Answer, matrix: NDArray[np.float32]) -> ServedBatch:
    calls = answer.part.calls
    entities = batch.routes.shape.entities
    offsets = batch.calls.entity_offsets
    buffer = batch.calls.entity_ids
    items = (answer.part.rows[:, None] * entities + np.arange(entities)).ravel()
    starts, ends = offsets[items].tolist(), offsets[items + 1].tolist()
    return ServedBatch(
        model=batch.routes.model,
        version=answer.version.label,
        version_digest=answer.version.digest8,
        revision=batch.routes.deployment.revision,
        at_unix_ns=batch.read_unix_ns,
        role=np.full(len(calls), answer.role, dtype=np.uint8).tobytes(),
        row_count=np.diff(answer.part.row_offsets).astype("<u4").tobytes(),
        prediction_ids=answer.prediction_ids,
        key_hash=batch.assignment.key_hash[calls].astype("<u8").tobytes(),
        row_flags=answer.flags.astype("<u4").tobytes(),
        width=matrix.shape[1],
        vectors=np.ascontiguousarray(matrix, dtype="<f4").tobytes(),
        outputs=answer.scores.shape[1],
        scores=np.ascontiguousarray(answer.scores, dtype="<f4").tobytes(),
        entity_ids=[buffer[a:b].decode() for a, b in zip(starts, ends, strict=True)],
        model_contract=answer.version.bundle.contract.model_contract,
    )
