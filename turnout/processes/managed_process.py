"""A process of the system: it is started, restarted when it ends, and dies with this process."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from host.files import make_private_folder
from host.processes import start_ticks
from host.retry import Backoff
from turnout.errors import StartError

LOG_TAIL_LINES = 15
"""Lines of its log that an error message quotes."""
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
STABLE_S = 10.0
"""After a process has run for this long, its next restart waits for the first pause again."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run, and how to see that it is ready."""

    name: str
    command: Sequence[str]
    log: Path
    """File to which stdout and stderr are appended."""
    ready: Callable[[], Awaitable[bool]]
    """Returns True once the process answers; never raises."""
    ready_s_max: float
    """It must be ready this long after its start."""
    grace_s: float
    """Time between SIGTERM and SIGKILL."""


class ManagedProcess:
    """Runs one process spec; each restart makes a new operating system process.

    report  gets a line of text when the process ends or is back.
    """

    def __init__(self, spec: ProcessSpec, report: Callable[[str], None]) -> None:
        self.spec = spec
        self._report = report
        self._process: asyncio.subprocess.Process | None = None
        self.restarts = 0

    @property
    def pid(self) -> int:
        """Process id of the newest process; 0 before the first start."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises StartError, with the end of its log, when it ends or is not ready in time.
        """
        await self._spawn()
        deadline = asyncio.get_running_loop().time() + self.spec.ready_s_max
        while not await self.spec.ready():
            if self._process is None or self._process.returncode is not None:
                raise StartError(f"{self.spec.name} ended while starting.{self._tail()}")
            if asyncio.get_running_loop().time() > deadline:
                raise StartError(
                    f"{self.spec.name} did not answer within {self.spec.ready_s_max:g} s."
                    f"{self._tail()}"
                )
            await asyncio.sleep(0.05)

    async def restart_when_ended(self, on_restart: Callable[[], None]) -> None:
        """Restart the process whenever it ends; then call *on_restart*. Never returns."""
        loop, backoff = asyncio.get_running_loop(), Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        while True:
            assert self._process is not None
            started_s = loop.time()
            code = await self._process.wait()
            if loop.time() - started_s > STABLE_S:
                backoff.reset()
            pause_s = backoff.next_s()
            self._report(
                f"{self.spec.name} {_describe_exit(code)}; starting it again in {pause_s:g} s"
            )
            await asyncio.sleep(pause_s)
            self.restarts += 1
            try:
                await self.start()
            except StartError as error:
                self._report(str(error))
                await self.stop()
            else:
                self._report(f"{self.spec.name} is back (pid {self.pid})")
                on_restart()

    async def stop(self) -> None:
        """Send SIGTERM, and after the grace SIGKILL to its session; return when it has ended."""
        child = self._process
        if child is None or child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            child.terminate()
        try:
            async with asyncio.timeout(self.spec.grace_s):
                await child.wait()
        except TimeoutError:
            self._report(f"{self.spec.name} did not end within {self.spec.grace_s:g} s; killing it")
            with suppress(ProcessLookupError):
                os.killpg(
                    child.pid, signal.SIGKILL
                )  # it leads its own session, so its own group too
            await child.wait()

    async def _spawn(self) -> None:
        make_private_folder(self.spec.log.parent)
        with self.spec.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a folder of the working directory must not hide a room of the same name
                "-m",
                "turnout.processes.die_with_parent",
                str(os.getpid()),
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # this process alone gets Ctrl-C
            )

    def _tail(self) -> str:
        with suppress(OSError):
            lines = self.spec.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            return f" The end of {self.spec.log}:\n  " + "\n  ".join(lines)
        return f" Its log would be {self.spec.log}"


async def end_leftover_process(pid: int, ticks: int, grace_s: float) -> None:
    """End process *pid* of an earlier run, if it still is the process that started at *ticks*.

    grace_s  time between SIGTERM and SIGKILL.
    """
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if start_ticks(pid) != ticks:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
        deadline = asyncio.get_running_loop().time() + grace_s
        # It is no child of this process, so its end has to be polled.
        while start_ticks(pid) == ticks and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
