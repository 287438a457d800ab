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
from gateway.isolation.child_process import Bounds, Program, ending
from gateway.isolation.packed_files import pack
from gateway.models.executor import Scored
from gateway.models.routes import LoadedVersion
from gateway.settings import Settings
from gateway.shadow.protocol import Answers, ShadowLineError, copy_frame

log = logging.getLogger(__name__)

DEATHS_MAX = 2
"""Processes of one shadow that died of a copy; then this worker runs it no more, and says so."""
LOOK_S = 0.25
"""Between looks at a run that is not back."""
REST_S_MIN = 0.1
NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowLimits:
    """What one shadow's process may take."""

    bounds: Bounds
    run_cpu_s: float
    """CPU time in one run; then it hangs."""
    silent_s: float
    """A run not back for this long without that CPU time: it is stopped, or starved."""
    rest_s_max: float
    """Between a process that ended and the next, at most; begins at .1 s and doubles."""


def shadow_limits_of(settings: Settings) -> ShadowLimits:
    """Return the limits that the settings ask for."""
    return ShadowLimits(
        bounds=Bounds(memory_mb=settings.shadow_memory_mb_max),
        run_cpu_s=settings.shadow_run_cpu_ms_max / 1e3,
        silent_s=settings.shadow_silent_ms_max / 1e3,
        rest_s_max=settings.restart_backoff_ms_max / 1e3,
    )


@dataclass(frozen=True, slots=True)
class End:
    """How one process ended."""

    cause: str
    """In a word: crashed, hung, nonsense, silent, killed, unopened, closed."""
    words: str
    blamed: bool
    """Whether the version did it: its copy was being run, and nothing outside explains the end."""


def ended(code: int, cause: str, *, opened: bool, asked: bool) -> End:
    """Say how a process ended, and whether its version did it. Pure.

    code    as Program.ended.
    cause   why we ended it; empty: we did not.
    opened  it had opened the version; asked: a copy was not answered.
    """
    if cause:
        return End(cause, cause, blamed=cause in ("hung", "nonsense"))
    if not opened:
        return End("unopened", f"{ending(code)} before it had opened the version", blamed=False)
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        return End("killed", f"{ending(code)}, from outside", blamed=False)
    return End("crashed", f"{ending(code)} in the middle of a run", blamed=asked)


@dataclass(slots=True)
class _Asked:
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
        on_ended: Callable[[End], None],
        on_answer: Callable[[], None],
    ) -> None:
        """Exec it: milliseconds, and on the loop's thread (child_process.Program). OSError when the
        host has no process, descriptor or memory to give.
        """
        self._limits = limits
        self._clock = clock
        self._on_ended = on_ended
        self._on_answer = on_answer
        self._asked: deque[_Asked] = deque()
        self._answers = Answers(version.lane.outputs)
        self._transport: asyncio.Transport | None = None
        self._opened = False
        self._cause = ""
        self._timer: asyncio.TimerHandle | None = None
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        try:
            self.program = _exec(version, limits.bounds, theirs.fileno())
        except OSError:
            self._ours.close()
            raise
        finally:
            theirs.close()
        self.over = asyncio.get_running_loop().create_task(self._until_end())
        self._head_begins()

    async def connect(self) -> None:
        """Lay the line; copies may be asked for from then on."""
        with contextlib.suppress(OSError, ValueError):  # it has ended already, and its line with it
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: self, sock=self._ours)

    async def score(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]
    ) -> Scored | None:
        """Score a copy; None when the process could not."""
        if self._transport is None:
            return None
        if not self._asked:
            self._head_begins()
        answer: asyncio.Future[Scored | None] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(len(row_offsets) - 1, len(matrix), answer))
        self._transport.write(copy_frame(matrix, row_offsets))
        if self._timer is None:
            self._look_later()
        return await answer

    def end(self, cause: str) -> None:
        """End it, for *cause*."""
        self._cause = self._cause or cause
        self.program.kill()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)
        if self.over.done():
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand each answer to whoever asked."""
        expected = [(one.calls, one.rows) for one in self._asked]
        if not self._opened:
            expected.insert(0, (0, 0))
        try:
            answers = self._answers.feed(data, expected)
        except ShadowLineError as error:
            log.warning("shadow_nonsense pid=%d error=%s", self.program.pid, error)
            self.end("nonsense")
            return
        if answers and not self._opened:
            answers, self._opened = answers[1:], True
        for scored in answers:
            asked = self._asked.popleft()
            if not asked.answer.done():
                asked.answer.set_result(scored)
            self._on_answer()
        self._head_begins()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process let go of the line; it is over when it is dead."""
        del exc
        self._transport = None

    # How it does

    def _head_begins(self) -> None:
        """From now on the oldest copy is being run."""
        self._since_ns, self._since_cpu_s = self._clock.now_ns(), self.program.cpu_s()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """End a process that does not come back with the oldest copy."""
        self._timer = None
        if not self._asked or self._cause:
            return
        if self._opened and self.program.cpu_s() - self._since_cpu_s > self._limits.run_cpu_s:
            self.end("hung")
        elif self._clock.now_ns() - self._since_ns > self._limits.silent_s * NS:
            self.end("silent")
        else:
            self._look_later()

    async def _until_end(self) -> None:
        code = await self.program.ended
        end = ended(code, self._cause, opened=self._opened, asked=bool(self._asked))
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        else:
            self._ours.close()
        self._on_ended(end)
        while self._asked:
            answer = self._asked.popleft().answer
            if not answer.done():
                answer.set_result(None)


def _exec(version: LoadedVersion, bounds: Bounds, line_fd: int) -> Program:
    parcel = pack(version.files)
    try:
        own = [f"--parcel-fd={parcel}", f"--line-fd={line_fd}", f"--digest={version.bundle.digest}"]
        return Program("gateway.shadow.scorer", [*bounds.arguments(), *own], (parcel, line_fd))
    finally:
        os.close(parcel)


class ShadowLane:
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
        self._ends = 0
        """In a row, without an answer between."""
        self._deaths = 0
        self._rest_until_ns = 0
        self.first_bad_unix_ns = 0
        """When a process first died of a copy; 0: never."""
        self.condemned = ""
        """Why it is run no more; empty: it is."""

    @property
    def label(self) -> str:
        """The version's."""
        return self._version.label

    @property
    def pid(self) -> int:
        """Of its process; 0 while there is none."""
        return self._process.program.pid if self._process is not None else 0

    async def score(
        self, matrix: NDArray[np.float32], row_offsets: NDArray[np.uint32]
    ) -> Scored | None:
        """Score a copy; None when it cannot be, whatever the reason.

        How much may wait is the caller's business: what is written is kept until it is read.
        """
        if self._closed or self.condemned or self._clock.now_ns() < self._rest_until_ns:
            return None
        if self._process is None:
            try:
                self._process = ShadowProcess(
                    self._version, self._limits, self._clock, self._ended, self._answered
                )
            except OSError as error:
                self._ended(End("unopened", f"it cannot be started: {error}", blamed=False))
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
            self._process.end("closed")

    async def closed(self) -> None:
        """Close, and return when the process is gone."""
        process = self._process
        self.close()
        if process is not None:
            await process.over

    def _answered(self) -> None:
        self._ends = 0

    def _ended(self, end: End) -> None:
        self._process = None
        if end.cause == "closed":
            return
        self._on_end(end.cause)
        self._ends += 1
        rest_s = min(REST_S_MIN * 2 ** (self._ends - 1), self._limits.rest_s_max)
        self._rest_until_ns = self._clock.now_ns() + int(rest_s * NS)
        log.warning(
            "shadow_ended model=%s version=%s cause=%s words=%s blamed=%s",
            self._version.bundle.model,
            self._version.label,
            end.cause,
            end.words,
            end.blamed,
        )
        if not end.blamed:
            return
        self._deaths += 1
        self.first_bad_unix_ns = self.first_bad_unix_ns or self._clock.unix_ns()
        words = (
            end.words
            if end.cause != "hung"
            else (f"a run that used {self._limits.run_cpu_s:g} s of CPU and did not come back")
        )
        if self._deaths >= DEATHS_MAX:
            self.condemned = f"its shadow process died {self._deaths} times, the last by {words}"
