"""Shadows: versions that score copies of answered calls. Dropped first, awaited by no one."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gateway.clock import Clock
from gateway.key_column import KeyColumn
from gateway.models.executor import Scored
from gateway.models.routes import LoadedVersion, Participant, Routes
from gateway.rows import counts_of
from gateway.shadow.shadow_process import ShadowExecutor, ShadowLimits
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.observations import Observations
from gateway.telemetry.windows import Windows
from protos import window_pb2
from registry.types import ALL_BP, SHADOW_DOMAIN

ROWS_PER_SEND = 256
"""Sent to a process at once; so many do not wait."""
OFFER_WAIT_S_MAX = 0.1
"""Fewer wait so long for others: nobody awaits them, and windows are a second long."""


@dataclass(slots=True)
class Copies:
    """Some calls' rows, copied for one shadow after their replies were sent."""

    routes: Routes
    version: LoadedVersion
    matrix: NDArray[np.float32]
    """(R, F) as the shadow wants it."""
    row_offsets: NDArray[np.uint32]
    """(C + 1,)."""
    key_hash: NDArray[np.uint64]
    """(C,)."""
    expected: NDArray[np.float32]
    """(R,) production's first output, finite."""
    flags: NDArray[np.uint32]
    """(R,)."""


def sample_keys(
    keys: KeyColumn, routes: Routes, participant: Participant, sample_bp: int
) -> NDArray[np.intp]:
    """Return which of *keys* this shadow copies: by key, so a key is in or out whole."""
    if sample_bp >= ALL_BP:
        return np.arange(len(keys))
    return np.flatnonzero(keys.hashes(sample_prefix(routes, participant)) % ALL_BP < sample_bp)


def sample_prefix(routes: Routes, participant: Participant) -> bytes:
    """Return what a shadow's sample hashes before each key."""
    return routes.deployment.split_salt + SHADOW_DOMAIN + participant.version.id


def concatenate_copies(offered: Sequence[Copies]) -> Copies:
    """Return copies for one shadow, at one revision, as if they had been one batch's."""
    if len(offered) == 1:
        return offered[0]
    counts = np.concatenate([counts_of(copies.row_offsets) for copies in offered])
    return Copies(
        routes=offered[0].routes,
        version=offered[0].version,
        matrix=np.concatenate([copies.matrix for copies in offered]),
        row_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32),
        key_hash=np.concatenate([copies.key_hash for copies in offered]),
        expected=np.concatenate([copies.expected for copies in offered]),
        flags=np.concatenate([copies.flags for copies in offered]),
    )


class Shadows:
    """A process a shadow version, and a bound on the rows that wait for all of them."""

    def __init__(
        self,
        windows: Windows,
        clock: Clock,
        rows_waiting_max: int,
        limits: ShadowLimits,
        on_guard: Callable[[window_pb2.HardGuard], None],
        metrics: Metrics,
    ) -> None:
        """on_guard: told once when a version's process died twice of its copies."""
        self._windows = windows
        self._clock = clock
        self._rows_waiting_max = rows_waiting_max
        self._limits = limits
        self._on_guard = on_guard
        self._metrics = metrics
        self._executors: dict[bytes, ShadowExecutor] = {}
        self._quarantine_reported: set[bytes] = set()
        """Condemned, and said so."""
        self._running: set[asyncio.Task[None]] = set()
        self._offered: dict[tuple[bytes, int], list[Copies]] = {}
        """By version id and routes: not sent to a process yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._active_versions: frozenset[bytes] | None = None
        """Versions that shadow something; None: nobody said yet."""
        self.rows_waiting = 0

    def offer(self, copies: Copies) -> None:
        """Keep copies for a moment, or drop them when too many rows wait already."""
        rows = len(copies.matrix)
        wanted = self._active_versions is None or copies.version.id in self._active_versions
        if self._closed or not wanted or self.rows_waiting + rows > self._rows_waiting_max:
            self._drop(copies)
            return
        self.rows_waiting += rows
        offered = self._offered.setdefault((copies.version.id, id(copies.routes)), [])
        offered.append(copies)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(OFFER_WAIT_S_MAX, self.send_pending)
        if sum(len(one.matrix) for one in offered) >= ROWS_PER_SEND:
            self._start_scoring(self._offered.pop((copies.version.id, id(copies.routes))))

    def send_pending(self) -> None:
        """Have scored what was offered since: many batches' copies at once.

        To write, wake, read and compare costs the same for one copy as for a hundred.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        offered, self._offered = self._offered, {}
        for several in offered.values():
            self._start_scoring(several)

    def _start_scoring(self, offered: Sequence[Copies]) -> None:
        task = asyncio.get_running_loop().create_task(self._score(concatenate_copies(offered)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _drop(self, copies: Copies) -> None:
        calls = len(copies.key_hash)
        self._windows.add_dropped(copies.routes, copies.version, calls, self._clock.unix_ns())
        self._metrics.count_shadow(copies.routes.model, copies.version.label, "dropped", calls)

    def _drop_all(self, offered: Sequence[Copies]) -> None:
        for copies in offered:
            self.rows_waiting -= len(copies.matrix)
            self._drop(copies)

    async def _score(self, copies: Copies) -> None:
        started_ns = self._clock.now_ns()
        lane = self._executor(copies.version)
        try:
            scored = await lane.score(copies.matrix, copies.row_offsets)
        finally:
            self.rows_waiting -= len(copies.matrix)
        if scored is None:
            self._drop(copies)
            if lane.quarantined:
                self._report_quarantine(copies, lane)
            return
        self._compare(copies, scored, started_ns)

    def _report_quarantine(self, copies: Copies, executor: ShadowExecutor) -> None:
        """Say once that this worker does not run the shadow any more."""
        if copies.version.id in self._quarantine_reported:
            return
        self._quarantine_reported.add(copies.version.id)
        self._on_guard(
            window_pb2.HardGuard(
                model=copies.routes.model,
                version=copies.version.label,
                revision=copies.routes.deployment.revision,
                kind=window_pb2.HardGuard.PROCESS_DIED,
                reason=executor.quarantined,
                at_unix_ns=self._clock.unix_ns(),
                first_bad_unix_ns=executor.first_bad_unix_ns,
            )
        )

    def _compare(self, copies: Copies, scored: Scored, started_ns: int) -> None:
        calls = len(copies.key_hash)
        self._metrics.count_shadow(copies.routes.model, copies.version.label, "compared", calls)
        told = Observations(
            key_hash=copies.key_hash,
            faults=scored.faults,
            holdout=None,
            latency_ns=np.full(calls, self._clock.now_ns() - started_ns, dtype=np.int64),
            scores=scored.scores[:, 0],
            expected=copies.expected,
            row_offsets=copies.row_offsets,
            flags=copies.flags,
        )
        threshold = copies.routes.deployment.policy.decision_threshold or 0.5
        self._windows.add_shadow_pairs(
            copies.routes, copies.version, told, self._clock.unix_ns(), threshold
        )

    def _executor(self, version: LoadedVersion) -> ShadowExecutor:
        lane = self._executors.get(version.id)
        if lane is None:
            ended = partial(self._metrics.count_shadow_end, version.bundle.model, version.label)
            lane = ShadowExecutor(version, self._limits, self._clock, ended)
            self._executors[version.id] = lane
        return lane

    def pids(self) -> dict[str, int]:
        """Label -> the process that scores for it now; 0: none does."""
        return {lane.label: lane.pid for lane in self._executors.values()}

    def set_active_versions(self, version_ids: set[bytes]) -> None:
        """Let go of the processes of versions that shadow nothing any more."""
        self._active_versions = frozenset(version_ids)
        for key in [key for key in self._offered if key[0] not in version_ids]:
            self._drop_all(self._offered.pop(key))
        for version_id in set(self._executors) - version_ids:
            self._executors.pop(version_id).close()
            self._quarantine_reported.discard(version_id)

    async def wait_closed(self) -> None:
        """End every process, and return when they are gone."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for several in self._offered.values():
            self._drop_all(several)
        self._offered.clear()
        lanes, self._executors = list(self._executors.values()), {}
        await asyncio.gather(*(lane.wait_closed() for lane in lanes))
