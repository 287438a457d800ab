"""Shadows: versions that score copies of answered calls, each in a process of its own.

Shadow work is dropped first under load, and no call waits for it but those that pinned a shadow.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scored
from gateway.models.routes import LoadedVersion, Routes
from gateway.shadow.shadow_process import ShadowExecutor, ShadowLimits
from gateway.telemetry.journal_records import encode_shadow_scores
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observations import Observations
from gateway.telemetry.recorder import JournalWriter
from gateway.telemetry.shadow_copies import ShadowCopies
from gateway.telemetry.windows import Windows
from host.clock import Clock
from protos import window_pb2

ROWS_PER_SEND = 256
"""So many rows are sent to a shadow's process without waiting for more."""
OFFER_WAIT_S_MAX = 0.1
"""Fewer rows wait this long for others. No caller waits for them, and windows are a second long."""


class Shadows:
    """One process for each shadow version, and one bound on the rows that wait for all of them.

    on_guard     is called once if a version's process died twice while it scored copies.
    quarantined  RouteTable.quarantined. Its versions get no copy; that version is added to it.
    journal      takes what shadows scored, while it has room to spare.
    """

    def __init__(
        self,
        windows: Windows,
        clock: Clock,
        rows_waiting_max: int,
        limits: ShadowLimits,
        on_guard: Callable[[window_pb2.HardGuard], None],
        metrics: Metrics,
        quarantined: dict[str, tuple[str, int]],
        journal: JournalWriter,
    ) -> None:
        self._journal = journal
        self._quarantined = quarantined
        self._windows = windows
        self._clock = clock
        self._rows_waiting_max = rows_waiting_max
        self._limits = limits
        self._on_guard = on_guard
        self._metrics = metrics
        self._executors: dict[bytes, ShadowExecutor] = {}
        self._quarantine_reported: set[bytes] = set()
        """Ids of versions whose quarantine was reported."""
        self._running: set[asyncio.Task[None]] = set()
        self._offered: dict[tuple[bytes, int], list[ShadowCopies]] = {}
        """(version id, id of routes) -> copies that are not sent to a process yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._active_versions: frozenset[bytes] | None = None
        """Ids of versions that are shadows now. None until `set_active_versions` is called."""
        self.rows_waiting = 0

    def offer(self, copies: ShadowCopies) -> None:
        """Take copies, or drop and count them if too many rows wait already."""
        rows = len(copies.matrix)
        active = self._active_versions is None or copies.version.id in self._active_versions
        active = active and copies.version.bundle.digest not in self._quarantined
        if self._closed or not active or self.rows_waiting + rows > self._rows_waiting_max:
            self._drop(copies)
            return
        self.rows_waiting += rows
        key = (copies.version.id, id(copies.routes))
        offered = self._offered.setdefault(key, [])
        offered.append(copies)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(OFFER_WAIT_S_MAX, self.send_pending)
        if sum(len(waiting.matrix) for waiting in offered) >= ROWS_PER_SEND:
            self._start_scoring(self._offered.pop(key))

    def send_pending(self) -> None:
        """Send what was offered so far, the copies of many batches at once.

        Writing, waking the process, reading and comparing cost the same for one row as for a
        hundred.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        offered, self._offered = self._offered, {}
        for waiting in offered.values():
            self._start_scoring(waiting)

    async def score_pinned(
        self,
        routes: Routes,
        version: LoadedVersion,
        matrix: NDArray[np.float32],
        row_offsets: NDArray[np.uint32],
    ) -> Scored | None:
        """Score calls that pinned a shadow in its process, which is started if there is none.

        matrix       (R, F) the shadow's inputs.
        row_offsets  (C + 1,) where the rows of each call begin.

        None: too many rows wait already, or the process has ended.
        """
        rows = len(matrix)
        if self._closed or self.rows_waiting + rows > self._rows_waiting_max:
            return None
        executor = self._executor(version)
        self.rows_waiting += rows
        try:
            scored = await executor.score(matrix, row_offsets)
        finally:
            self.rows_waiting -= rows
        if scored is None and executor.quarantined:
            self._report_quarantine(routes, executor, version)
        return scored

    def _start_scoring(self, offered: Sequence[ShadowCopies]) -> None:
        task = asyncio.get_running_loop().create_task(
            self._score(ShadowCopies.concatenated(offered))
        )
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _drop(self, copies: ShadowCopies) -> None:
        calls = len(copies.key_hash)
        self._windows.add_dropped(copies.routes, copies.version, calls, self._clock.unix_ns())
        self._metrics.count_shadow(copies.routes.model, copies.version.label, "dropped", calls)

    def _drop_all(self, offered: Sequence[ShadowCopies]) -> None:
        for copies in offered:
            self.rows_waiting -= len(copies.matrix)
            self._drop(copies)

    async def _score(self, copies: ShadowCopies) -> None:
        started_ns = self._clock.now_ns()
        executor = self._executor(copies.version)
        try:
            scored = await executor.score(copies.matrix, copies.row_offsets)
        finally:
            self.rows_waiting -= len(copies.matrix)
        if scored is None:
            self._drop(copies)
            if executor.quarantined:
                self._report_quarantine(copies.routes, executor, copies.version)
            return
        self._compare(copies, scored, started_ns)
        self._keep_scores(copies, scored)

    def _report_quarantine(
        self, routes: Routes, executor: ShadowExecutor, version: LoadedVersion
    ) -> None:
        """Report once that this worker does not run the shadow any more."""
        if version.id in self._quarantine_reported:
            return
        self._quarantine_reported.add(version.id)
        cause = (executor.quarantined, executor.first_bad_unix_ns)
        self._quarantined.setdefault(version.bundle.digest, cause)
        self._on_guard(
            window_pb2.HardGuard(
                model=routes.model,
                version=version.label,
                revision=routes.deployment.revision,
                kind=window_pb2.HardGuard.PROCESS_DIED,
                reason=executor.quarantined,
                at_unix_ns=self._clock.unix_ns(),
                first_bad_unix_ns=executor.first_bad_unix_ns,
            )
        )

    def _compare(self, copies: ShadowCopies, scored: Scored, started_ns: int) -> None:
        calls = len(copies.key_hash)
        self._metrics.count_shadow(copies.routes.model, copies.version.label, "compared", calls)
        observations = Observations(
            key_hash=copies.key_hash,
            faults=scored.faults,
            holdout=None,
            latency_ns=np.full(calls, self._clock.now_ns() - started_ns, dtype=np.int64),
            scores=scored.scores,
            expected=copies.production_scores,
            row_offsets=copies.row_offsets,
            flags=copies.flags,
        )
        self._windows.add_shadow_pairs(
            copies.routes, copies.version, observations, self._clock.unix_ns()
        )

    def _keep_scores(self, copies: ShadowCopies, scored: Scored) -> None:
        """Write what the shadow scored to the journal, or count the calls that are not kept."""
        record = encode_shadow_scores(copies, scored)
        if record is None:
            return
        payload, calls = record
        outcome = "journaled" if self._journal.append_optional(payload) else "dropped"
        model, label = copies.routes.model, copies.version.label
        self._metrics.count_shadow_record(model, label, outcome, calls)

    def _executor(self, version: LoadedVersion) -> ShadowExecutor:
        executor = self._executors.get(version.id)
        if executor is None:
            on_end = partial(self._metrics.count_shadow_end, version.bundle.model, version.label)
            executor = ShadowExecutor(version, self._limits, self._clock, on_end)
            self._executors[version.id] = executor
        return executor

    def pids(self) -> dict[str, int]:
        """Return version label -> pid of its process; 0 if it has none now."""
        return {executor.label: executor.pid for executor in self._executors.values()}

    def set_active_versions(self, version_ids: set[bytes]) -> None:
        """End the processes of versions that are not shadows any more."""
        self._active_versions = frozenset(version_ids)
        for key in [key for key in self._offered if key[0] not in version_ids]:
            self._drop_all(self._offered.pop(key))
        for version_id in set(self._executors) - version_ids:
            self._executors.pop(version_id).close()
            self._quarantine_reported.discard(version_id)

    async def wait_closed(self) -> None:
        """End every process and return when all have exited."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._offered.values():
            self._drop_all(waiting)
        self._offered.clear()
        executors, self._executors = list(self._executors.values()), {}
        await asyncio.gather(*(executor.wait_closed() for executor in executors))
