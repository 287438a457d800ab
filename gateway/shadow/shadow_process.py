"""A shadow's process as its worker sees it: started when copies come, ended when it hangs.

Nothing here waits for it, and nothing that happens to it is more than copies without an answer. A
version whose process dies twice while it runs a copy is condemned: it gets no third.
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

from gateway.clock import Clock
from gateway.isolation.child_process import ChildProcess, ResourceLimits, describe_exit
from gateway.isolation.packed_files import pack_files
from gateway.models.executor import Scored
from gateway.models.routes import LoadedVersion
from gateway.settings import Settings
from gateway.shadow.protocol import ScoresDecoder, ShadowProtocolError, encode_copy

log = logging.getLogger(__name__)

DEATHS_TO_QUARANTINE = 2
"""Processes of one shadow that died of a copy; then this worker runs it no more, and says so."""
POLL_INTERVAL_S = 0.25
"""Between looks at a run that is not back."""
RESTART_BACKOFF_S_MIN = 0.1
NS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowLimits:
    """What one shadow's process may take."""

    resources: ResourceLimits
    run_cpu_s: float
    """CPU time in one run; then it hangs."""
    silent_s: float
    """A run not back for this long without that CPU time: it is stopped, or starved."""
    restart_backoff_s_max: float
    """Between a process that ended and the next, at most; begins at .1 s and doubles."""


def shadow_limits_of(settings: Settings) -> ShadowLimits:
    """Return the limits that the settings ask for."""
    return ShadowLimits(
        resources=ResourceLimits(memory_mb=settings.shadow_memory_mb_max),
        run_cpu_s=settings.shadow_run_cpu_ms_max / 1e3,
        silent_s=settings.shadow_run_timeout_ms / 1e3,
        restart_backoff_s_max=settings.restart_backoff_ms_max / 1e3,
    )


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How one process ended."""

    cause: str
    """In a word: crashed, hung, bad_reply, silent, killed, not_opened, closed."""
    description: str
    blamed: bool
    """Whether the version did it: its copy was being run, and nothing outside explains the end."""


def classify_end(code: int, cause: str, *, opened: bool, copy_pending: bool) -> ProcessEnd:
    """Say how a process ended, and whether its version did it. Pure.

    code    as Program.ended.
    cause   why we ended it; empty: we did not.
    opened  it had opened the version; asked: a copy was not answered.
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
    """A copy that is not answered yet."""

    calls: int
    rows: int
    answer: "asyncio.Future[Scored | None]"


class ShadowProcess(asyncio.Protocol):
    """One process of a shadow, from exec to its end."""

    def __init__(
        self,
        version: LoadedVersion,
        limits: ShadowLimits,
        clock: Clock,
        on_ended: Callable[[ProcessEnd], None],
        on_answer: Callable[[], None],
    ) -> None:
        """Exec it: milliseconds, and on the loop's thread (child_process.Program). OSError when the
        host has no process, descriptor or memory to give.
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
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            self.child = _start_process(version, limits.resources, theirs.fileno())
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self.exit_task = asyncio.get_running_loop().create_task(self._wait_for_exit())
        self._on_oldest_started()

    async def connect(self) -> None:
        """Lay the line; copies may be asked for from then on."""
        with contextlib.suppress(OSError, ValueError):  # it has ended already, and its line with it
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: self, sock=self._socket)

    async def score(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]
    ) -> Scored | None:
        """Score a copy; None when the process could not."""
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
        """End it, for *cause*."""
        self._cause = self._cause or cause
        self.child.kill()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)
        if self.exit_task.done():
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand each answer to whoever asked."""
        expected = [(one.calls, one.rows) for one in self._pending]
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
            asked = self._pending.popleft()
            if not asked.answer.done():
                asked.answer.set_result(scored)
            self._on_answer()
        self._on_oldest_started()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process let go of the line; it is over when it is dead."""
        del exc
        self._transport = None

    # How it does

    def _on_oldest_started(self) -> None:
        """From now on the oldest copy is being run."""
        self._oldest_started_ns, self._oldest_started_cpu_s = (
            self._clock.now_ns(),
            self.child.cpu_s(),
        )

    def _schedule_check(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(POLL_INTERVAL_S, self._check_oldest)

    def _check_oldest(self) -> None:
        """End a process that does not come back with the oldest copy."""
        self._timer = None
        if not self._pending or self._cause:
            return
        if (
            self._opened
            and self.child.cpu_s() - self._oldest_started_cpu_s > self._limits.run_cpu_s
        ):
            self.kill("hung")
        elif self._clock.now_ns() - self._oldest_started_ns > self._limits.silent_s * NS_PER_SECOND:
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


def _start_process(version: LoadedVersion, bounds: ResourceLimits, line_fd: int) -> ChildProcess:
    parcel = pack_files(version.files)
    try:
        own = [
            f"--files-fd={parcel}",
            f"--channel-fd={line_fd}",
            f"--digest={version.bundle.digest}",
        ]
        return ChildProcess(
            "gateway.shadow.scorer", [*bounds.to_arguments(), *own], (parcel, line_fd)
        )
    finally:
        os.close(parcel)


class ShadowExecutor:
    """One shadow version of one worker, through all its processes. The loop's thread only."""

    def __init__(
        self,
        version: LoadedVersion,
        limits: ShadowLimits,
        clock: Clock,
        on_end: Callable[[str], None] = lambda _: None,
    ) -> None:
        """on_end: told in a word how a process ended."""
        self._version = version
        self._limits = limits
        self._clock = clock
        self._on_end = on_end
        self._process: ShadowProcess | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._ends_in_a_row = 0
        """In a row, without an answer between."""
        self._deaths = 0
        self._backoff_until_ns = 0
        self.first_bad_unix_ns = 0
        """When a process first died of a copy; 0: never."""
        self.quarantined = ""
        """Why it is run no more; empty: it is."""

    @property
    def label(self) -> str:
        """The version's."""
        return self._version.label

    @property
    def pid(self) -> int:
        """Of its process; 0 while there is none."""
        return self._process.child.pid if self._process is not None else 0

    async def score(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]
    ) -> Scored | None:
        """Score a copy; None when it cannot be, whatever the reason.

        How much may wait is the caller's business: what is written is kept until it is read.
        """
        if self._closed or self.quarantined or self._clock.now_ns() < self._backoff_until_ns:
            return None
        if self._process is None:
            try:
                self._process = ShadowProcess(
                    self._version, self._limits, self._clock, self._on_process_end, self._on_answer
                )
            except OSError as error:
                self._on_process_end(
                    ProcessEnd("not_opened", f"it cannot be started: {error}", blamed=False)
                )
                return None
            self._connecting = asyncio.create_task(self._process.connect())
        process, connecting = self._process, self._connecting
        if connecting is not None and not connecting.done():
            await asyncio.shield(connecting)
        return await process.score(matrix, row_offsets)

    def close(self) -> None:
        """End the process; copies it still has are answered None."""
        self._closed = True
        if self._process is not None:
            self._process.kill("closed")

    async def wait_closed(self) -> None:
        """Close, and return when the process is gone."""
        process = self._process
        self.close()
        if process is not None:
            await process.exit_task

    def _on_answer(self) -> None:
        self._ends_in_a_row = 0

    def _on_process_end(self, end: ProcessEnd) -> None:
        self._process = None
        if end.cause == "closed":
            return
        self._on_end(end.cause)
        self._ends_in_a_row += 1
        rest_s = min(
            RESTART_BACKOFF_S_MIN * 2 ** (self._ends_in_a_row - 1),
            self._limits.restart_backoff_s_max,
        )
        self._backoff_until_ns = self._clock.now_ns() + int(rest_s * NS_PER_SECOND)
        log.warning(
            "shadow_ended model=%s version=%s cause=%s description=%s blamed=%s",
            self._version.bundle.model,
            self._version.label,
            end.cause,
            end.description,
            end.blamed,
        )
        if not end.blamed:
            return
        self._deaths += 1
        self.first_bad_unix_ns = self.first_bad_unix_ns or self._clock.unix_ns()
        words = (
            end.description
            if end.cause != "hung"
            else (f"a run that used {self._limits.run_cpu_s:g} s of CPU and did not come back")
        )
        if self._deaths >= DEATHS_TO_QUARANTINE:
            self.quarantined = f"its shadow process died {self._deaths} times, the last by {words}"
