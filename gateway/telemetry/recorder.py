"""The recorder: counters, windows, journal records and shadow copies, after the replies.

Nothing here can delay a caller. The request path hands over reply records that only hold
references. Every 20 ms the recorder folds the records that wait, many at once, so that a small
batch does not pay for counting and encoding.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gateway.batch import Batch, BatchSlice, FeatureRows
from gateway.models.executor import Fault, Scored
from gateway.models.routes import LoadedVersion, Routes
from gateway.native_library import AnswerRecord
from gateway.status import Refusal
from gateway.telemetry.folding import ReplyRecord
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observations import ObservationCounts
from gateway.telemetry.shadow_copies import CopySink, copies_of_slice
from gateway.telemetry.windows import Windows
from host.clock import NS_PER_SECOND, Clock
from journal.errors import RecordSizeError
from protos import predict_pb2, window_pb2

FOLD_S = 0.02
"""How long a record waits for others, s. The journal of a killed worker lacks its last 20 ms, or up
to FOLD_AGE_NS_MAX if many models are busy."""
FOLD_EARLY_S = 0.005
"""How much earlier a fold may happen, s, if a reply to a single call was just sent."""
FOLD_TIME_BUDGET_NS = 1_500_000
"""Time that one turn of the event loop may spend on folding. A fold costs about .2 ms however few
calls it has, so 30 busy models folded 50 times a second took a third of a core. Records that are
left wait for the next turn, and the oldest go first."""
FOLD_AGE_NS_MAX = 250_000_000
"""If the oldest record waits longer than this, one turn folds all records."""
FOLD_ROWS = 4_096
"""A group of records with so many rows is folded at once."""
FOLD_VECTOR_BYTES = 1 << 19
"""So is a group whose input vectors have so many bytes. They are copied on the event loop, and 512
KiB stay in the processor's cache meanwhile. A journal record may have 32 times as many."""

FEATURE_FLAGS = [
    (name.lower(), predict_pb2.RowFlag.Value(name))
    for name in ("MISSING", "STALE", "DEFAULTED", "DEGRADED")
]
"""The label values of turnout_feature_rows_total, and the row flag that each one counts."""

ROLE_BY_ARM = {arm: name.removeprefix("ARM_").lower() for name, arm in window_pb2.Arm.items()}
CALL_OUTCOMES = ["answered", *(fault.name.lower() for fault in list(Fault)[1:])]


log = logging.getLogger(__name__)


class JournalWriter(Protocol):
    """Appends records to a journal: journal.writer.JournalAppender, or a fake of it in tests."""

    @property
    def healthy(self) -> bool:
        """False after the disk has refused a record."""
        ...

    def append(self, payload: bytes) -> None:
        """Queue one record. Never blocks; a record that finds the queue full is dropped."""
        ...

    def append_optional(self, payload: bytes) -> bool:
        """Queue one record if there is room to spare, and return whether there was."""
        ...


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """What waits in a recorder at one moment."""

    groups: int
    records: int
    rows: int
    oldest_ms: float
    """Age of the oldest record; 0 if none waits."""
    journal_healthy: bool


@dataclass(slots=True)
class _Group:
    """Records that will be folded together."""

    records: list[ReplyRecord]
    since_ns: int
    """Monotonic time of the first record."""
    rows_max: int
    """With so many rows the group is folded at once."""
    rows: int = 0


class Recorder:
    """Counts and keeps what happened to calls. Touched by the event loop's thread only.

    copy_sink       takes the shadow copies.
    served_journal  takes the served vectors and scores.
    on_guard        is called with each hard guard, which must be sent at once.
    """

    def __init__(
        self,
        windows: Windows,
        metrics: Metrics,
        copy_sink: CopySink,
        served_journal: JournalWriter,
        clock: Clock,
        on_guard: Callable[[window_pb2.HardGuard], None],
    ) -> None:
        self._windows = windows
        self._metrics = metrics
        self._copy_sink = copy_sink
        self._served_journal = served_journal
        self._clock = clock
        self._on_guard = on_guard
        self._groups: dict[Hashable, _Group] = {}
        """In the order of their first record, so the first group is the oldest."""
        self._timer: asyncio.Handle | None = None
        self._fold_due = False
        """Whether the records are folded after the next reply to a single call."""
        self.collect: Callable[[], None] = _collect_nothing
        """Calls `record` with the answers of the I/O thread, before each fold of all records."""

    @property
    def journal_healthy(self) -> bool:
        """Whether served vectors can be written to the journal."""
        return self._served_journal.healthy

    def statistics(self) -> RecorderStatistics:
        """Return a snapshot of what waits to be folded."""
        groups = self._groups.values()
        oldest_ns = self._clock.now_ns() - self._oldest_ns() if groups else 0
        return RecorderStatistics(
            groups=len(groups),
            records=sum(len(group.records) for group in groups),
            rows=sum(group.rows for group in groups),
            oldest_ms=oldest_ns / 1e6,
            journal_healthy=self.journal_healthy,
        )

    # Answered calls

    def record(self, record: ReplyRecord) -> None:
        """Take a reply record. It is folded together with its like within FOLD_S."""
        group = self._group(type(record), record.routes, record.group, record.at_unix_ns)
        group.records.append(record)
        group.rows += record.rows
        if group.rows >= group.rows_max:
            self.fold()

    def _group(self, kind: type, routes: Routes, group: Hashable, at_unix_ns: int) -> _Group:
        """Return the group for a record of this kind. The group is folded within FOLD_S."""
        key = (kind, id(routes), group, at_unix_ns // NS_PER_SECOND)
        found = self._groups.get(key)
        if found is None:
            rows_max = min(FOLD_ROWS, FOLD_VECTOR_BYTES // (4 * _widest(routes)))
            found = self._groups[key] = _Group([], self._clock.now_ns(), rows_max)
            self._fold_soon()
        return found

    def offer_shadow_copies(self, batch: Batch, batch_slice: BatchSlice, scored: Scored) -> None:
        """Offer copies of the rows that production scored to the shadows of the model."""
        for copies in copies_of_slice(batch, batch_slice, scored):
            self._copy_sink.offer(copies)

    # Calls that no version answered, and reads

    def record_feature_read(self, routes: Routes, features: FeatureRows) -> None:
        """Count one batch and how its features were read."""
        metrics = self._metrics
        metrics.count_batch(len(features.flags))
        if routes.reads:
            metrics.count_feature_reads(features.read_failure or "ok")
        flags = features.flags
        if flags.any():
            self._count_rows(
                routes, lambda flag: int(np.count_nonzero(flags & flag)), features.broken
            )

    def record_clean_reads(self, rows: Sequence[int], reads: int) -> None:
        """Count batches with these numbers of rows. *reads* of them were read without a fault."""
        for count, batches in Counter(rows).items():
            self._metrics.count_batch(count, batches)
        if reads:
            self._metrics.count_feature_reads("ok", reads)

    def record_thread_reads(self, routes: Routes, record: AnswerRecord) -> None:
        """Count groups of calls of a model that the I/O thread has read and answered."""
        late, flagged = record.late_groups, record.flagged
        reads = len(record.group_rows) - late if routes.reads else 0
        self.record_clean_reads(record.group_rows, reads)
        if late:
            self._metrics.count_feature_reads("timeout", late)
        self._count_rows(routes, lambda flag: flagged[flag.bit_length() - 1], record.broken)

    def _count_rows(self, routes: Routes, rows_with: Callable[[int], int], broken: int) -> None:
        """Count rows of a model by how they were read. A broken row has a flag, too."""
        for name, flag in FEATURE_FLAGS:
            rows = rows_with(flag)
            if rows:
                self._metrics.count_feature_rows(routes.model, name, rows)
        if broken:
            self._metrics.count_feature_rows(routes.model, "broken", broken)

    def record_single_read(
        self, routes: Routes, flags: int, broken: int, read_failure: str
    ) -> None:
        """Count one call of one row and how its features were read."""
        metrics = self._metrics
        metrics.count_batch(1)
        if routes.reads:
            metrics.count_feature_reads(read_failure or "ok")
        if flags:
            self._count_rows(routes, lambda flag: int(flags & flag > 0), broken)

    def record_refusals(
        self, routes: Routes | None, model: str, refusal: Refusal, calls: int, *, reason: str
    ) -> None:
        """Count calls that were refused before any version saw them.

        routes  None if the model is not deployed.
        reason  where they were refused: "ingress" or "pipeline".
        """
        self._metrics.count_refusals(model or "other", refusal.code.name, reason, calls)
        if routes is not None:
            self._windows.add_refusals(routes, calls, self._clock.unix_ns())

    def record_failures(
        self, routes: Routes, refusal: Refusal, calls: int, reason: str = "model"
    ) -> None:
        """Count calls that no version could answer: *reason* "model", or the caller's "input"."""
        self._metrics.count_refusals(routes.model, refusal.code.name, reason, calls)

    def record_canary_skipped(self, routes: Routes, version: LoadedVersion, calls: int) -> None:
        """Count calls of the canary's share that production answered without blame for the canary.

        That is so if the breaker is open, or if a caller's deadline was shorter than the budget.
        """
        self._windows.add_canary_skipped(routes, version, calls, self._clock.unix_ns())
        self._metrics.count_calls(routes.model, version.label, "canary", "skipped", calls)

    def report_breaker_open(self, routes: Routes, reason: str, unix_ns: int) -> None:
        """Send a hard guard: this worker does not ask the canary any more."""
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

    # Folding

    def fold(self) -> None:
        """Fold every record that waits, and send the copies on."""
        for _ in self.fold_steps():
            pass

    def fold_steps(self) -> Iterator[None]:
        """Fold as `fold` does, with a step for each group that waits when this begins."""
        self.collect()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._fold_due = None, False
        for _ in range(len(self._groups)):
            # Between two steps, a group that became full may have caused a fold of all groups.
            if self._groups:
                self._fold_oldest()
                yield
        if self._groups:
            self._fold_soon()
        self._copy_sink.send_pending()

    def fold_if_due(self) -> None:
        """Fold in the next callback if a fold is due within FOLD_EARLY_S.

        Call this after the reply to a single call. Its caller has to read the reply before it can
        call again, so a fold is least likely to delay a call now.
        """
        if self._fold_due and self._timer is not None:
            self._timer.cancel()
            self._fold_due = False
            self._timer = asyncio.get_running_loop().call_soon(self._fold_within_budget)

    def fold_collected(self) -> None:
        """Fold the answers of the I/O thread, which have waited for FOLD_S already."""
        self.collect()
        if self._timer is not None:
            self._timer.cancel()
        self._fold_within_budget()

    def _fold_soon(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(FOLD_S - FOLD_EARLY_S, self._await_a_reply)

    def _await_a_reply(self) -> None:
        """Fold after the next reply to a single call, or after FOLD_EARLY_S without one."""
        self._fold_due = True
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(FOLD_EARLY_S, self._fold_within_budget)

    def _fold_within_budget(self) -> None:
        """Fold the oldest groups until this turn's time is spent."""
        self._timer, self._fold_due = None, False
        started_ns = self._clock.now_ns()
        while self._groups:
            self._fold_oldest()
            now_ns = self._clock.now_ns()
            spent = now_ns - started_ns > FOLD_TIME_BUDGET_NS
            if spent and now_ns - self._oldest_ns() < FOLD_AGE_NS_MAX:
                break
        if self._groups:
            self._fold_soon()

    def _oldest_ns(self) -> int:
        """Return the monotonic time since which the oldest group waits; now if none waits."""
        for group in self._groups.values():
            return group.since_ns
        return self._clock.now_ns()

    def _fold_oldest(self) -> None:
        group = self._groups.pop(next(iter(self._groups)))
        first = group.records[0]
        folded = first.fold(group.records)
        for version, arm, counts in folded.counts:
            self._add_counts(first.routes, version, arm, counts, first.at_unix_ns)
        for payload in folded.journal_records:
            self._append(payload)
        for copies in folded.shadow_copies:
            self._copy_sink.offer(copies)

    def _append(self, payload: bytes) -> None:
        """Write a journal record, or count it as dropped if one batch alone is too large for it."""
        try:
            self._served_journal.append(payload)
        except RecordSizeError as error:
            log.warning("journal_dropped kind=served reason=%s", error)
            self._metrics.count_journal_dropped("served", 1)

    def _add_counts(
        self,
        routes: Routes,
        version: LoadedVersion,
        arm: int,
        counts: ObservationCounts,
        unix_ns: int,
    ) -> None:
        """Add what one version did to the open windows and to the metrics."""
        self._windows.add_counts(routes, version, arm, counts, unix_ns)
        metrics, role = self._metrics, ROLE_BY_ARM[arm]
        for outcome, calls in zip(CALL_OUTCOMES, counts.faults.tolist(), strict=True):
            if calls:
                metrics.count_calls(routes.model, version.label, role, outcome, calls)
        metrics.count_latency(routes.model, version.label, role, counts.latency)
        bins = counts.all_scores[: routes.scale.size + 3]
        metrics.count_scores(routes.model, version.label, role, bins)


def _collect_nothing() -> None:
    """Only the native server answers calls without the recorder."""


def _widest(routes: Routes) -> int:
    """Return the largest number of inputs of a version that answers calls, at least 1."""
    answering = (routes.production, routes.standby, routes.canary)
    widths = [part.version.bundle.contract.width for part in answering if part is not None]
    return max(1, *widths)
