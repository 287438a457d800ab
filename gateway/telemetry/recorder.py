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

from gateway.batch_keys import KEEP_ALL, kept
from gateway.clock import Clock
from gateway.models.executor import Fault, Scored
from gateway.models.routes import LoadedVersion, Routes
from gateway.predict.batch import Answer, Batch, Part, fine
from gateway.predict.feature_lookup import Looked
from gateway.shadow.shadows import Copies, Shadows, sampled
from gateway.status import Refusal
from gateway.telemetry.fault_free import Clean
from gateway.telemetry.journal_records import (
    LoneAnswer,
    LoneRow,
    Served,
    record_alone,
    record_of,
    told_alone,
)
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.native_observations import together
from gateway.telemetry.observations import Tally, Told, tally
from gateway.telemetry.windows import NS, Windows, evidence_keep
from protos import predict_pb2, window_pb2

FOLD_S = 0.02
"""How long counts and served vectors wait: the most a killed worker's journal loses, where a few
models are busy."""
FOLD_SPENT_NS = 1_500_000
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

ROLES = {arm: name.removeprefix("ARM_").lower() for name, arm in window_pb2.Arm.items()}
OUTCOMES = ["answered", *(fault.name.lower() for fault in list(Fault)[1:])]


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
        self.shadows = shadows
        self._served = served
        self._clock = clock
        self._on_guard = on_guard
        self._noted: dict[tuple[int, str, int, int], _Noted] = {}
        self._answers: dict[tuple[int, str], _Kept] = {}
        self._clean: dict[tuple[int, int], _Several] = {}
        self._alone: list[LoneAnswer] = []
        self._timer: asyncio.TimerHandle | None = None

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
            for name, flag in FEATURE_FLAGS:
                flagged = np.count_nonzero(looked.flags & flag)
                if flagged:
                    metrics.count_feature_rows(routes.model, name, int(flagged))
        if looked.broken:
            metrics.count_feature_rows(routes.model, "broken", looked.broken)

    def looked_alone(self, routes: Routes, row: LoneRow) -> None:
        """Count how the row of a lone call was read."""
        metrics = self._metrics
        metrics.count_batch(1)
        if routes.reads:
            metrics.count_feature_reads(row.unread or "ok")
        for name, flag in FEATURE_FLAGS if row.flags else ():
            if row.flags & flag:
                metrics.count_feature_rows(routes.model, name, 1)
        if row.broken:
            metrics.count_feature_rows(routes.model, "broken", row.broken)

    def answered_alone(self, answer: LoneAnswer) -> None:
        """Note one answer to a lone call; counted and kept with its neighbours, in a moment."""
        self._alone.append(answer)
        if self._timer is None:
            self._fold_soon()
        if len(self._alone) >= FOLD_ROWS:
            self.fold()

    def refused(self, routes: Routes | None, model: str, refusal: Refusal, calls: int) -> None:
        """Count calls that the core refused before any version saw them."""
        self._metrics.refuse(model if routes else "other", refusal.code.name, "core", calls)
        if routes is not None:
            self._windows.refuse(routes, calls, self._clock.unix_ns())

    def failed(self, routes: Routes, refusal: Refusal, calls: int) -> None:
        """Count calls that no version could answer."""
        self._metrics.refuse(routes.model, refusal.code.name, "model", calls)

    def clean(self, one: Clean) -> None:
        """Note a batch without a fault: counted, kept and copied with its neighbours, soon."""
        key = (id(one.batch.routes), one.at_unix_ns // NS)
        noted = self._clean.get(key)
        if noted is None:
            noted = self._clean[key] = _Several(self._clock.now_ns(), [])
            self._fold_soon()
        noted.batches.append(one)
        noted.rows += len(one.flags)
        if noted.rows >= FOLD_ROWS:
            self.fold()

    def told(self, routes: Routes, version: LoadedVersion, arm: int, told: Told) -> None:
        """Note what one version did with its calls; counted with its neighbours, in a moment."""
        unix_ns = self._clock.unix_ns()
        key = (id(routes), version.label, arm, unix_ns // NS)
        noted = self._noted.get(key)
        if noted is None:
            now_ns = self._clock.now_ns()
            noted = self._noted[key] = _Noted(routes, version, arm, unix_ns, [], now_ns)
            self._fold_soon()
        noted.told.append(told)
        noted.rows += len(told.scores)
        if noted.rows >= FOLD_ROWS:
            self.fold()

    def _fold_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FOLD_S, self._fold_some)

    def fold(self) -> None:
        """Count and keep everything noted so far: a few numpy calls for many batches."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waits:
            self._fold_oldest()
        if self._alone:
            self._fold_alone()
        self.shadows.send()

    @property
    def _waits(self) -> bool:
        return bool(self._clean or self._noted or self._answers)

    def _fold_some(self) -> None:
        """The oldest, as long as this turn's time lasts."""
        self._timer = None
        began_ns = self._clock.now_ns()
        if self._alone:
            self._fold_alone()
        while self._waits:
            self._fold_oldest()
            now_ns = self._clock.now_ns()
            if now_ns - began_ns > FOLD_SPENT_NS and now_ns - self._since_ns() < FOLD_AGE_NS_MAX:
                break
        if self._waits:
            self._fold_soon()

    def _fold_oldest(self) -> None:
        """Of each kind one: a model's clean batches, what one version did, and what it served."""
        if self._clean:
            self._fold_clean(self._clean.pop(next(iter(self._clean))).batches)
        if self._noted:
            noted = self._noted.pop(next(iter(self._noted)))
            told = Told.joined(noted.told)
            self._count(noted.routes, noted.version, noted.arm, told, noted.unix_ns)
        if self._answers:
            answers = self._answers.pop(next(iter(self._answers)))
            self._served.append(record_of(answers.several))

    def _since_ns(self) -> int:
        """Monotonic: since when the oldest waits."""
        oldest: list[_Several | _Noted | _Kept] = [*islice(self._clean.values(), 1)]
        oldest += islice(self._noted.values(), 1)
        oldest += islice(self._answers.values(), 1)
        return min((one.since_ns for one in oldest), default=self._clock.now_ns())

    def _fold_clean(self, several: list[Clean]) -> None:
        batches = together(several)
        routes, unix_ns = several[0].batch.routes, several[0].at_unix_ns
        for participant, arm, counted in batches.tallies():
            self._add(routes, participant.version, arm, counted, unix_ns)
        for record in batches.records(routes.budgets.journal_keep):
            self._served.append(record)
        for copies in batches.copies():
            self.shadows.offer(copies)

    def _fold_alone(self) -> None:
        groups: dict[tuple[int, int], list[LoneAnswer]] = {}
        for one in self._alone:
            groups.setdefault((id(one.routes), one.at_unix_ns // NS), []).append(one)
        self._alone = []
        for alike in groups.values():
            first = alike[0]
            routes, version, unix_ns = first.routes, first.version, first.at_unix_ns
            for one in alike:
                self.looked_alone(routes, one.row)
            arm = window_pb2.ARM_PRODUCTION
            self._count(routes, version, arm, told_alone(alike), unix_ns)
            keep = routes.budgets.journal_keep
            remembered = [one for one in alike if one.key_hash % KEEP_ALL < keep]
            if remembered:
                self._served.append(record_alone(remembered).SerializeToString())

    def _count(
        self, routes: Routes, version: LoadedVersion, arm: int, told: Told, unix_ns: int
    ) -> None:
        counted = tally(told, routes.score_edges, evidence_keep(routes, arm))
        self._add(routes, version, arm, counted, unix_ns)

    def _add(
        self, routes: Routes, version: LoadedVersion, arm: int, counted: Tally, unix_ns: int
    ) -> None:
        self._windows.add(routes, version, arm, counted, unix_ns)
        metrics, role = self._metrics, ROLES[arm]
        for outcome, calls in zip(OUTCOMES, counted.faults.tolist(), strict=True):
            if calls:
                metrics.count_calls(routes.model, version.label, role, outcome, calls)
        metrics.count_latency(routes.model, version.label, role, counted.latency)
        bins = counted.every[: len(routes.score_edges) + 4]
        metrics.count_scores(routes.model, version.label, role, bins)

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
        if keep < KEEP_ALL:
            places = np.flatnonzero(kept(batch.assignment.key_hash[part.calls], keep))
            if not len(places):
                return
            rows = Part.of(places, part.row_offsets).rows
            ids = np.frombuffer(answer.prediction_ids, dtype="V64")[places].tobytes()
            answer = Answer(
                part.take(places),
                version,
                answer.role,
                answer.scores[rows],
                answer.flags[rows],
                ids,
            )
            matrix = matrix[rows]
        key = (id(batch.routes), version.label)
        answers = self._answers.get(key)
        if answers is None:
            answers = self._answers[key] = _Kept(self._clock.now_ns(), [])
            self._fold_soon()
        answers.several.append(Served(batch, answer, matrix))

    def offer_shadows(self, batch: Batch, part: Part, scored: Scored) -> None:
        """Give the shadows copies of the rows that production scored."""
        for participant, sample_bp in batch.routes.shadows:
            good = np.flatnonzero(fine(scored))
            keys = batch.assignment.keys.at(part.indexes()[good])
            places = good[sampled(keys, batch.routes, participant, sample_bp)]
            if not len(places):
                continue
            taken = Part.of(places, part.row_offsets)
            rows = taken.rows if isinstance(part.rows, slice) else part.rows[taken.rows]
            self.shadows.offer(
                Copies(
                    routes=batch.routes,
                    version=participant.version,
                    matrix=participant.matrix(batch.looked.matrix)[rows],
                    row_offsets=taken.row_offsets,
                    key_hash=batch.assignment.key_hash[part.indexes()[places]],
                    expected=scored.scores[taken.rows, 0],
                    flags=batch.looked.flags[rows],
                )
            )


@dataclass(slots=True)
class _Several:
    """Clean batches of one model, in one second: not counted yet."""

    since_ns: int
    """Monotonic: when the first was noted."""
    batches: list[Clean]
    rows: int = 0


@dataclass(slots=True)
class _Noted:
    """What one version did, in one second, of one arm: batches not counted yet."""

    routes: Routes
    version: LoadedVersion
    arm: int
    unix_ns: int
    told: list[Told]
    since_ns: int
    """Monotonic: when the first was noted."""
    rows: int = 0


@dataclass(slots=True)
class _Kept:
    """What one version served: answers not written yet."""

    since_ns: int
    """Monotonic: when the first was noted."""
    several: list[Served]
