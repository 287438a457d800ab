"""What happens after a reply: count, compare with shadows, keep. None of it can delay a caller.

A batch only notes references here; counting and writing happen for many batches at once, every
20 ms, so that a small batch does not pay for them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.key_column import KEY_SAMPLE_ALL, in_key_sample
from gateway.models.executor import Fault, Scored
from gateway.models.routes import LoadedVersion, Routes
from gateway.predict.batch import Answer, Batch, BatchSlice, answered_mask
from gateway.predict.feature_lookup import FeatureRows
from gateway.shadow.shadows import Copies, Shadows, sample_keys
from gateway.status import Refusal
from gateway.telemetry.fault_free import FaultFreeBatch
from gateway.telemetry.journal_records import (
    ServedAnswer,
    SingleCallAnswer,
    SingleCallRow,
    encode_served_answers,
    single_call_observations,
    single_call_record,
)
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.native_observations import combine_batches
from gateway.telemetry.observations import ObservationCounts, Observations, count_observations
from gateway.telemetry.windows import NS_PER_SECOND, Windows, evidence_sampled
from protos import predict_pb2, window_pb2

FOLD_S = 0.02
"""How long counts and served vectors wait: the most a killed worker's journal loses, where a few
models are busy."""
FOLD_TIME_BUDGET_NS = 1_500_000
"""Of FOLD_S. One version's fold costs some .2 ms however few its calls: 30 of them, 50 times a
second, took a third of a core. What is left waits for the next turn, oldest first."""
FOLD_AGE_NS_MAX = 250_000_000
"""No longer: then all is folded at once."""
FOLD_ROWS = 4_096

FEATURE_FLAGS = [
    (name.lower(), predict_pb2.RowFlag.Value(name))
    for name in ("MISSING", "STALE", "DEFAULTED", "DEGRADED")
]
"""Those that say how a row was read, by the names of turnout_feature_rows_total's kinds."""

ROLE_BY_ARM = {arm: name.removeprefix("ARM_").lower() for name, arm in window_pb2.Arm.items()}
CALL_OUTCOMES = ["answered", *(fault.name.lower() for fault in list(Fault)[1:])]


class JournalWriter(Protocol):
    """journal.writer.Writer, or a fake of it."""

    @property
    def healthy(self) -> bool:
        """False once the disk has refused."""
        ...

    def append(self, payload: bytes) -> None:
        """Queue one record; never blocks, drops and counts when it must."""
        ...


class Recorder:
    """Everything that hears of a batch after its callers do."""

    def __init__(
        self,
        windows: Windows,
        metrics: Metrics,
        shadows: Shadows,
        served_journal: JournalWriter,
        clock: Clock,
        on_guard: Callable[[window_pb2.HardGuard], None],
    ) -> None:
        self._windows = windows
        self._metrics = metrics
        self.shadows = shadows
        self._served_journal = served_journal
        self._clock = clock
        self._on_guard = on_guard
        self._pending_observations: dict[tuple[int, str, int, int], _PendingObservations] = {}
        self._pending_served: dict[tuple[int, str], _PendingServed] = {}
        self._pending_fault_free: dict[tuple[int, int], _PendingFaultFree] = {}
        self._pending_single_calls: list[SingleCallAnswer] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def journal_healthy(self) -> bool:
        """Whether served vectors can be written."""
        return self._served_journal.healthy

    def record_feature_read(self, routes: Routes, features: FeatureRows) -> None:
        """Count one batch and how its features were read."""
        metrics, rows = self._metrics, len(features.flags)
        metrics.count_batch(rows)
        if routes.reads:
            metrics.count_feature_reads(features.read_failure or "ok")
        if features.flags.any():
            for name, flag in FEATURE_FLAGS:
                flagged = np.count_nonzero(features.flags & flag)
                if flagged:
                    metrics.count_feature_rows(routes.model, name, int(flagged))
        if features.broken:
            metrics.count_feature_rows(routes.model, "broken", features.broken)

    def record_single_feature_read(self, routes: Routes, row: SingleCallRow) -> None:
        """Count how the row of a lone call was read."""
        metrics = self._metrics
        metrics.count_batch(1)
        if routes.reads:
            metrics.count_feature_reads(row.read_failure or "ok")
        for name, flag in FEATURE_FLAGS if row.flags else ():
            if row.flags & flag:
                metrics.count_feature_rows(routes.model, name, 1)
        if row.broken:
            metrics.count_feature_rows(routes.model, "broken", row.broken)

    def record_single_call(self, answer: SingleCallAnswer) -> None:
        """Note one answer to a lone call; counted and kept with its neighbours, in a moment."""
        self._pending_single_calls.append(answer)
        if self._timer is None:
            self._fold_soon()
        if len(self._pending_single_calls) >= FOLD_ROWS:
            self.fold()

    def record_refusals(
        self, routes: Routes | None, model: str, refusal: Refusal, calls: int
    ) -> None:
        """Count calls that the core refused before any version saw them."""
        self._metrics.count_refusals(model if routes else "other", refusal.code.name, "core", calls)
        if routes is not None:
            self._windows.add_refusals(routes, calls, self._clock.unix_ns())

    def record_failures(self, routes: Routes, refusal: Refusal, calls: int) -> None:
        """Count calls that no version could answer."""
        self._metrics.count_refusals(routes.model, refusal.code.name, "model", calls)

    def record_fault_free_batch(self, fault_free: FaultFreeBatch) -> None:
        """Note a batch without a fault: counted, kept and copied with its neighbours, soon."""
        key = (id(fault_free.batch.routes), fault_free.at_unix_ns // NS_PER_SECOND)
        noted = self._pending_fault_free.get(key)
        if noted is None:
            noted = self._pending_fault_free[key] = _PendingFaultFree(self._clock.now_ns(), [])
            self._fold_soon()
        noted.batches.append(fault_free)
        noted.rows += len(fault_free.flags)
        if noted.rows >= FOLD_ROWS:
            self.fold()

    def record_observations(
        self, routes: Routes, version: LoadedVersion, arm: int, observations: Observations
    ) -> None:
        """Note what one version did with its calls; counted with its neighbours, in a moment."""
        unix_ns = self._clock.unix_ns()
        key = (id(routes), version.label, arm, unix_ns // NS_PER_SECOND)
        noted = self._pending_observations.get(key)
        if noted is None:
            now_ns = self._clock.now_ns()
            noted = self._pending_observations[key] = _PendingObservations(
                routes, version, arm, unix_ns, [], now_ns
            )
            self._fold_soon()
        noted.observations.append(observations)
        noted.rows += len(observations.scores)
        if noted.rows >= FOLD_ROWS:
            self.fold()

    def _fold_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FOLD_S, self._fold_within_budget)

    def fold(self) -> None:
        """Count and keep everything noted so far: a few numpy calls for many batches."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._has_pending:
            self._fold_oldest()
        if self._pending_single_calls:
            self._fold_single_calls()
        self.shadows.send_pending()

    @property
    def _has_pending(self) -> bool:
        return bool(self._pending_fault_free or self._pending_observations or self._pending_served)

    def _fold_within_budget(self) -> None:
        """The oldest, as long as this turn's time lasts."""
        self._timer = None
        began_ns = self._clock.now_ns()
        if self._pending_single_calls:
            self._fold_single_calls()
        while self._has_pending:
            self._fold_oldest()
            now_ns = self._clock.now_ns()
            if (
                now_ns - began_ns > FOLD_TIME_BUDGET_NS
                and now_ns - self._oldest_pending_ns() < FOLD_AGE_NS_MAX
            ):
                break
        if self._has_pending:
            self._fold_soon()

    def _fold_oldest(self) -> None:
        """Of each kind one: a model's clean batches, what one version did, and what it served."""
        if self._pending_fault_free:
            self._fold_fault_free(
                self._pending_fault_free.pop(next(iter(self._pending_fault_free))).batches
            )
        if self._pending_observations:
            noted = self._pending_observations.pop(next(iter(self._pending_observations)))
            told = Observations.concatenated(noted.observations)
            self._count_observations(noted.routes, noted.version, noted.arm, told, noted.unix_ns)
        if self._pending_served:
            answers = self._pending_served.pop(next(iter(self._pending_served)))
            self._served_journal.append(encode_served_answers(answers.answers))

    def _oldest_pending_ns(self) -> int:
        """Monotonic: since when the oldest waits."""
        oldest: list[_PendingFaultFree | _PendingObservations | _PendingServed] = [
            *islice(self._pending_fault_free.values(), 1)
        ]
        oldest += islice(self._pending_observations.values(), 1)
        oldest += islice(self._pending_served.values(), 1)
        return min((one.first_noted_ns for one in oldest), default=self._clock.now_ns())

    def _fold_fault_free(self, fault_free: list[FaultFreeBatch]) -> None:
        batches = combine_batches(fault_free)
        routes, unix_ns = fault_free[0].batch.routes, fault_free[0].at_unix_ns
        for participant, arm, counted in batches.counts_by_arm():
            self._add_counts(routes, participant.version, arm, counted, unix_ns)
        for record in batches.served_records(routes.limits.journal_sampled):
            self._served_journal.append(record)
        for copies in batches.shadow_copies():
            self.shadows.offer(copies)

    def _fold_single_calls(self) -> None:
        groups: dict[tuple[int, int], list[SingleCallAnswer]] = {}
        for one in self._pending_single_calls:
            groups.setdefault((id(one.routes), one.at_unix_ns // NS_PER_SECOND), []).append(one)
        self._pending_single_calls = []
        for alike in groups.values():
            first = alike[0]
            routes, version, unix_ns = first.routes, first.version, first.at_unix_ns
            for one in alike:
                self.record_single_feature_read(routes, one.row)
            arm = window_pb2.ARM_PRODUCTION
            self._count_observations(routes, version, arm, single_call_observations(alike), unix_ns)
            keep = routes.limits.journal_sampled
            remembered = [one for one in alike if one.key_hash % KEY_SAMPLE_ALL < keep]
            if remembered:
                self._served_journal.append(single_call_record(remembered).SerializeToString())

    def _count_observations(
        self,
        routes: Routes,
        version: LoadedVersion,
        arm: int,
        observations: Observations,
        unix_ns: int,
    ) -> None:
        counted = count_observations(
            observations, routes.score_edges, evidence_sampled(routes, arm)
        )
        self._add_counts(routes, version, arm, counted, unix_ns)

    def _add_counts(
        self,
        routes: Routes,
        version: LoadedVersion,
        arm: int,
        counted: ObservationCounts,
        unix_ns: int,
    ) -> None:
        self._windows.add_counts(routes, version, arm, counted, unix_ns)
        metrics, role = self._metrics, ROLE_BY_ARM[arm]
        for outcome, calls in zip(CALL_OUTCOMES, counted.faults.tolist(), strict=True):
            if calls:
                metrics.count_calls(routes.model, version.label, role, outcome, calls)
        metrics.count_latency(routes.model, version.label, role, counted.latency)
        bins = counted.all_scores[: len(routes.score_edges) + 4]
        metrics.count_scores(routes.model, version.label, role, bins)

    def record_canary_skipped(self, routes: Routes, version: LoadedVersion, calls: int) -> None:
        """Count a canary's calls that the open breaker gave to production unasked."""
        self._windows.add_canary_skipped(routes, version, calls, self._clock.unix_ns())
        self._metrics.count_calls(routes.model, version.label, "canary", "passed_over", calls)

    def report_breaker_open(self, routes: Routes, reason: str, unix_ns: int) -> None:
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

    def record_served(self, batch: Batch, answer: Answer, matrix: NDArray[np.float32]) -> None:
        """Keep what was served: the vectors exactly as the version saw them, and its scores."""
        keep = batch.routes.limits.journal_sampled
        part, version = answer.part, answer.version
        if keep < KEY_SAMPLE_ALL:
            places = np.flatnonzero(
                in_key_sample(batch.assignment.key_hash[part.call_indexes], keep)
            )
            if not len(places):
                return
            rows = BatchSlice.from_calls(places, part.row_offsets).row_indexes
            ids = np.frombuffer(answer.prediction_ids, dtype="V64")[places].tobytes()
            answer = Answer(
                part.subset(places),
                version,
                answer.role,
                answer.scores[rows],
                answer.flags[rows],
                ids,
            )
            matrix = matrix[rows]
        key = (id(batch.routes), version.label)
        answers = self._pending_served.get(key)
        if answers is None:
            answers = self._pending_served[key] = _PendingServed(self._clock.now_ns(), [])
            self._fold_soon()
        answers.answers.append(ServedAnswer(batch, answer, matrix))

    def offer_shadow_copies(self, batch: Batch, batch_slice: BatchSlice, scored: Scored) -> None:
        """Give the shadows copies of the rows that production scored."""
        for participant, sample_bp in batch.routes.shadows:
            good = np.flatnonzero(answered_mask(scored))
            keys = batch.assignment.keys.select(batch_slice.call_index_array()[good])
            places = good[sample_keys(keys, batch.routes, participant, sample_bp)]
            if not len(places):
                continue
            taken = BatchSlice.from_calls(places, batch_slice.row_offsets)
            rows = (
                taken.row_indexes
                if isinstance(batch_slice.row_indexes, slice)
                else batch_slice.row_indexes[taken.row_indexes]
            )
            self.shadows.offer(
                Copies(
                    routes=batch.routes,
                    version=participant.version,
                    matrix=participant.matrix(batch.features.matrix)[rows],
                    row_offsets=taken.row_offsets,
                    key_hash=batch.assignment.key_hash[batch_slice.call_index_array()[places]],
                    expected=scored.scores[taken.row_indexes, 0],
                    flags=batch.features.flags[rows],
                )
            )


@dataclass(slots=True)
class _PendingFaultFree:
    """Clean batches of one model, in one second: not counted yet."""

    first_noted_ns: int
    """Monotonic: when the first was noted."""
    batches: list[FaultFreeBatch]
    rows: int = 0


@dataclass(slots=True)
class _PendingObservations:
    """What one version did, in one second, of one arm: batches not counted yet."""

    routes: Routes
    version: LoadedVersion
    arm: int
    unix_ns: int
    observations: list[Observations]
    first_noted_ns: int
    """Monotonic: when the first was noted."""
    rows: int = 0


@dataclass(slots=True)
class _PendingServed:
    """What one version served: answers not written yet."""

    first_noted_ns: int
    """Monotonic: when the first was noted."""
    answers: list[ServedAnswer]
