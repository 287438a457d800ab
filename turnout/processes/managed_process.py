"""One part of the system as a process: started, tethered to us, restarted when it dies."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from turnout.errors import StartError
from turnout.processes.system_file import started_ticks

LOG_TAIL_LINES = 15
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 5.0
CALM_S = 10.0
"""A part that lived this long before it died starts its backoff afresh."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is to run, and how one sees that it does."""

    name: str
    command: Sequence[str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    """True once it answers; never raises."""
    ready_s_max: float
    grace_s: float
    """Between SIGTERM and SIGKILL."""


class Child:
    """One part's process; a new one each time it dies, until `stop`."""

    def __init__(self, part: Part, say: Callable[[str], None]) -> None:
        self.part = part
        self._say = say
        self._running: asyncio.subprocess.Process | None = None
        self.restarts = 0

    @property
    def pid(self) -> int:
        """Of the newest process; 0 before the first."""
        return self._running.pid if self._running else 0

    async def start(self) -> None:
        """Start and wait until it answers. StartError with the end of its log when it does not."""
        await self._spawn()
        deadline = asyncio.get_running_loop().time() + self.part.ready_s_max
        while not await self.part.ready():
            if self._running is None or self._running.returncode is not None:
                raise StartError(f"{self.part.name} ended while starting.{self._tail()}")
            if asyncio.get_running_loop().time() > deadline:
                raise StartError(
                    f"{self.part.name} did not answer within {self.part.ready_s_max:g} s."
                    f"{self._tail()}"
                )
            await asyncio.sleep(0.05)

    async def keep(self, changed: Callable[[], None]) -> None:
        """Start it again whenever it dies; tell *changed* once it answers. Runs for ever."""
        loop, wait = asyncio.get_running_loop(), BACKOFF_FIRST_S
        while True:
            assert self._running is not None
            born = loop.time()
            code = await self._running.wait()
            wait = BACKOFF_FIRST_S if loop.time() - born > CALM_S else wait
            self._say(f"{self.part.name} {_ended(code)}; starting it again in {wait:g} s")
            await asyncio.sleep(wait)
            wait = min(2 * wait, BACKOFF_LAST_S)
            self.restarts += 1
            try:
                await self.start()
            except StartError as error:
                self._say(str(error))
                await self.stop()
            else:
                self._say(f"{self.part.name} is back (pid {self.pid})")
                changed()

    async def stop(self) -> None:
        """SIGTERM, the part's grace, SIGKILL to its whole session; returns when it is gone."""
        child = self._running
        if child is None or child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            child.terminate()
        try:
            async with asyncio.timeout(self.part.grace_s):
                await child.wait()
        except TimeoutError:
            self._say(f"{self.part.name} did not end within {self.part.grace_s:g} s; killing it")
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # its own session, so its own group
            await child.wait()

    async def _spawn(self) -> None:
        self.part.log.parent.mkdir(parents=True, exist_ok=True)
        with self.part.log.open("ab") as log:
            self._running = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "turnout.processes.die_with_parent",
                str(os.getpid()),
                *self.part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours: we stop them in order
            )

    def _tail(self) -> str:
        with suppress(OSError):
            lines = self.part.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            return f" The end of {self.part.log}:\n  " + "\n  ".join(lines)
        return f" Its log would be {self.part.log}"


async def end_stranger(pid: int, ticks: int, grace_s: float) -> None:
    """Stop process *pid* of an earlier run, if it is still the one that started at *ticks*."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if started_ticks(pid) != ticks:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
        deadline = asyncio.get_running_loop().time() + grace_s
        # Nobody tells of a stranger's end, so it is looked at.
        while started_ticks(pid) == ticks and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
