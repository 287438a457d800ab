"""Runs a shadow version in a process of its own, which is started for the first copy.

The worker never waits for the process. Whatever happens to it, the only effect is that copies are
not scored. A process that hangs is killed. A version whose process dies twice while it scores a
copy is quarantined: this worker runs it no more.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Scored
from gateway.models.routes import LoadedVersion
from gateway.settings import Settings
from gateway.shadow.protocol import ScoresDecoder, ShadowProtocolError, encode_copy
from host.child_process import ChildProcess, ResourceLimits, describe_exit
from host.clock import NS_PER_SECOND, Clock
from host.files import pack_files
from host.retry import Backoff

log = logging.getLogger(__name__)

DEATHS_TO_QUARANTINE = 2
"""A shadow is quarantined when this many of its processes died while they scored a copy."""
POLL_INTERVAL_S = 0.25
"""Pause between checks on a copy that is not answered yet."""
RESTART_BACKOFF_S_MIN = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowLimits:
    """Limits on one shadow process."""

    resources: ResourceLimits
    run_cpu_s: float
    """CPU seconds of one run; after that the process counts as hung."""
    run_timeout_s: float
    """Seconds of one run; after that the process counts as stopped or starved."""
    restart_backoff_s_max: float
    """Longest pause before the next start of a process; it begins at .1 s and doubles."""


def shadow_limits_of(settings: Settings) -> ShadowLimits:
    """Return the limits in the settings shadow_* and restart_backoff_ms_max."""
    return ShadowLimits(
        resources=ResourceLimits(memory_mb=settings.shadow_memory_mb_max),
        run_cpu_s=settings.shadow_run_cpu_ms_max / 1e3,
        run_timeout_s=settings.shadow_run_timeout_ms / 1e3,
        restart_backoff_s_max=settings.restart_backoff_ms_max / 1e3,
    )


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How and why a shadow process ended."""

    cause: str
    """One of crashed, hung, bad_reply, silent, killed, not_opened, closed."""
    description: str
    blamed: bool
    """Whether the version caused the end: it was scoring a copy, and no outside cause is known."""


def classify_end(code: int, cause: str, *, opened: bool, copy_pending: bool) -> ProcessEnd:
    """Tell how a process ended, and whether its version caused it. Pure.

    code          as ChildProcess.exited.
    cause         why the worker killed it; empty when it did not.
    opened        whether it had opened the version.
    copy_pending  whether a copy was not answered yet.
    """
    if cause:
        return ProcessEnd(cause, cause, blamed=cause in ("hung", "bad_reply"))
    if not opened:
        return ProcessEnd(
            "not_opened", f"{describe_exit(code)} before it had opened the version", blamed=False
        )
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        return ProcessEnd("killed", f"{describe_exit(code)}, from outside", blamed=False)
    return ProcessEnd(
        "crashed", f"{describe_exit(code)} in the middle of a run", blamed=copy_pending
    )


@dataclass(slots=True)
class _PendingCopy:
    """A copy that is sent and not answered yet."""

    calls: int
    rows: int
    answer: "asyncio.Future[Scored | None]"


class ShadowProcess(asyncio.Protocol):
    """One process of a shadow, from exec to exit.

    on_ended   called once, when the process has exited.
    on_answer  called for each answer.
    """

    def __init__(
        self,
        version: LoadedVersion,
        limits: ShadowLimits,
        clock: Clock,
        on_ended: Callable[[ProcessEnd], None],
        on_answer: Callable[[], None],
    ) -> None:
        """Start the process, which takes some ms; on the loop's thread, as ChildProcess says.

        Raises OSError when the host has no process, descriptor or memory to give.
        """
        self._limits = limits
        self._clock = clock
        self._on_ended = on_ended
        self._on_answer = on_answer
        self._pending: deque[_PendingCopy] = deque()
        self._decoder = ScoresDecoder(version.executor.outputs)
        self._transport: asyncio.Transport | None = None
        self._opened = False
        self._cause = ""
        self._timer: asyncio.TimerHandle | None = None
        # The process inherits one end of a socket pair.
        self._socket, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            self.child = _start_process(version, limits.resources, child_end.fileno())
        except OSError:
            self._socket.close()
            raise
        finally:
            child_end.close()
        # Watch it from now on, also before it is connected.
        self.exit_task = asyncio.get_running_loop().create_task(self._wait_for_exit())
        self._on_oldest_started()

    async def connect(self) -> None:
        """Connect to the process; `score` works from then on."""
        # The socket is closed when the process has ended already.
        with contextlib.suppress(OSError, ValueError):
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: self, sock=self._socket)

    async def score(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]
    ) -> Scored | None:
        """Score one copy; None when the process could not.

        matrix       (R, F) float32.
        row_offsets  (C + 1,) uint32: call i has the rows from offset i to offset i + 1.
        """
        if self._transport is None:
            return None
        if not self._pending:
            self._on_oldest_started()
        answer: asyncio.Future[Scored | None] = asyncio.get_running_loop().create_future()
        self._pending.append(_PendingCopy(len(row_offsets) - 1, len(matrix), answer))
        self._transport.write(encode_copy(matrix, row_offsets))
        if self._timer is None:
            self._schedule_check()
        return await answer

    def kill(self, cause: str) -> None:
        """Kill the process; *cause* becomes ProcessEnd.cause unless one is set already."""
        self._cause = self._cause or cause
        self.child.kill()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for sending (asyncio.Protocol)."""
        self._transport = cast("asyncio.Transport", transport)
        if self.exit_task.done():
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass each answer to the copy that waits for it (asyncio.Protocol)."""
        expected = [(copy.calls, copy.rows) for copy in self._pending]
        if not self._opened:
            expected.insert(0, (0, 0))
        try:
            answers = self._decoder.feed(data, expected)
        except ShadowProtocolError as error:
            log.warning("shadow_bad_reply pid=%d error=%s", self.child.pid, error)
            self.kill("bad_reply")
            return
        if answers and not self._opened:
            answers, self._opened = answers[1:], True
        for scored in answers:
            copy = self._pending.popleft()
            if not copy.answer.done():
                copy.answer.set_result(scored)
            self._on_answer()
        self._on_oldest_started()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the transport; the exit of the process does the rest (asyncio.Protocol)."""
        del exc
        self._transport = None

    # Time limits on the oldest copy

    def _on_oldest_started(self) -> None:
        """Take the time: from now on the process scores the oldest copy."""
        self._oldest_started_ns = self._clock.now_ns()
        self._oldest_started_cpu_s = self.child.cpu_s()

    def _schedule_check(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(POLL_INTERVAL_S, self._check_oldest)

    def _check_oldest(self) -> None:
        """Kill a process that has not answered the oldest copy within its limits."""
        self._timer = None
        if not self._pending or self._cause:
            return
        run_cpu_s = self.child.cpu_s() - self._oldest_started_cpu_s
        run_ns = self._clock.now_ns() - self._oldest_started_ns
        if self._opened and run_cpu_s > self._limits.run_cpu_s:
            self.kill("hung")
        elif run_ns > self._limits.run_timeout_s * NS_PER_SECOND:
            self.kill("silent")
        else:
            self._schedule_check()

    async def _wait_for_exit(self) -> None:
        code = await self.child.exited
        end = classify_end(code, self._cause, opened=self._opened, copy_pending=bool(self._pending))
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        else:
            self._socket.close()
        self._on_ended(end)
        while self._pending:
            answer = self._pending.popleft().answer
            if not answer.done():
                answer.set_result(None)


def _start_process(version: LoadedVersion, limits: ResourceLimits, channel_fd: int) -> ChildProcess:
    files_fd = pack_files(version.files)
    try:
        arguments = [
            f"--files-fd={files_fd}",
            f"--channel-fd={channel_fd}",
            f"--digest={version.bundle.digest}",
        ]
        return ChildProcess(
            "gateway.shadow.scorer", [*limits.to_arguments(), *arguments], (files_fd, channel_fd)
        )
    finally:
        os.close(files_fd)


class ShadowExecutor:
    """Scores copies with one shadow version of one worker, through all its processes.

    Touched by the event loop's thread only.
    """

    def __init__(
        self,
        version: LoadedVersion,
        limits: ShadowLimits,
        clock: Clock,
        on_end: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start no process yet.

        on_end  called with ProcessEnd.cause of each process, except `closed`.
        """
        self._version = version
        self._limits = limits
        self._clock = clock
        self._on_end = on_end
        self._process: ShadowProcess | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._backoff = Backoff(RESTART_BACKOFF_S_MIN, limits.restart_backoff_s_max)
        """Counts processes that ended without an answer between."""
        self._deaths = 0
        """Processes that the version is blamed for."""
        self._backoff_until_ns = 0
        self.first_bad_unix_ns = 0
        """Unix ns of the first death that the version is blamed for; 0: there was none."""
        self.quarantined = ""
        """Why the version is quarantined; empty when it is not."""

    @property
    def label(self) -> str:
        """The version's label."""
        return self._version.label

    @property
    def pid(self) -> int:
        """The process id of the present process; 0 while there is none."""
        return self._process.child.pid if self._process is not None else 0

    async def score(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]
    ) -> Scored | None:
        """Score one copy, of (R, F) rows and (C + 1,) row offsets; None when that is impossible.

        The number of waiting copies is not bounded here; the caller must bound it.
        """
        if self._closed or self.quarantined or self._clock.now_ns() < self._backoff_until_ns:
            return None
        if self._process is None:
            try:
                self._process = ShadowProcess(
                    self._version, self._limits, self._clock, self._on_process_end, self._on_answer
                )
            except OSError as error:
                end = ProcessEnd("not_opened", f"it cannot be started: {error}", blamed=False)
                self._on_process_end(end)
                return None
            self._connecting = asyncio.create_task(self._process.connect())
        process, connecting = self._process, self._connecting
        if connecting is not None and not connecting.done():
            await asyncio.shield(connecting)
        return await process.score(matrix, row_offsets)

    def close(self) -> None:
        """Kill the process; copies that it has not answered are answered None."""
        self._closed = True
        if self._process is not None:
            self._process.kill("closed")

    async def wait_closed(self) -> None:
        """Close, and return when the process has exited."""
        process = self._process
        self.close()
        if process is not None:
            await process.exit_task

    def _on_answer(self) -> None:
        self._backoff.reset()

    def _on_process_end(self, end: ProcessEnd) -> None:
        self._process = None
        if end.cause == "closed":
            return
        self._on_end(end.cause)
        # The next process is started for the first copy after the pause.
        self._backoff_until_ns = self._clock.now_ns() + self._backoff.next_ns()
        log.warning(
            "shadow_ended model=%s version=%s cause=%s description=%s blamed=%s",
            self._version.bundle.model,
            self._version.label,
            end.cause,
            end.description,
            end.blamed,
        )
        # Two deaths for which the version is blamed quarantine it.
        if not end.blamed:
            return
        self._deaths += 1
        self.first_bad_unix_ns = self.first_bad_unix_ns or self._clock.unix_ns()
        if end.cause == "hung":
            last = f"a run that used {self._limits.run_cpu_s:g} s of CPU and did not come back"
        else:
            last = end.description
        if self._deaths >= DEATHS_TO_QUARANTINE:
            self.quarantined = f"its shadow process died {self._deaths} times, the last by {last}"
