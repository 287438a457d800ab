"""The process that makes the demo's customer calls, and its newest line of output."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from turnout.demo.checklist import StepFailedError

FINAL_S_MAX = 15.0
"""The longest wait for the final line after SIGTERM."""


class TrafficProcess:
    """Runs turnout.demo.traffic and keeps its newest line of output.

    rate         calls a second.
    subscribers  number of customers that calls are drawn from.
    """

    def __init__(self, gateway: str, model: str, rate: float, subscribers: int) -> None:
        self._command = [
            *(sys.executable, "-P", "-m", "turnout.processes.die_with_parent", str(os.getpid())),
            *(sys.executable, "-P", "-m", "turnout.demo.traffic", "--gateway", gateway),
            *("--model", model, "--rate", str(rate), "--subscribers", str(subscribers)),
        ]
        self._process: asyncio.subprocess.Process | None = None
        self._read_task: asyncio.Task[None] | None = None
        self.newest_line: dict[str, Any] = {}

    async def start(self, on_line: Callable[[dict[str, Any]], None]) -> None:
        """Start the process; *on_line* gets each line of its output."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        self._read_task = asyncio.create_task(self._read(self._process, on_line))

    async def stop(self) -> dict[str, Any]:
        """Stop calling, wait for the calls in flight, and return the final totals.

        StepFailedError when the process does not report them: the last calls are then unknown.
        """
        if self._process is None or self._read_task is None:
            return self.newest_line
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(FINAL_S_MAX):
                await self._read_task
                await self._process.wait()
        except TimeoutError as error:
            raise StepFailedError(f"the callers did not end within {FINAL_S_MAX:g} s") from error
        if not self.newest_line.get("final"):
            raise StepFailedError(
                f"the callers ended early, after {self.newest_line.get('sent', 0)} calls"
            )
        return self.newest_line

    async def end(self) -> None:
        """Kill the process, if it still runs, and wait until it has ended."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._read_task is not None:
            await self._read_task

    async def _read(
        self, running: asyncio.subprocess.Process, on_line: Callable[[dict[str, Any]], None]
    ) -> None:
        assert running.stdout is not None
        async for line in running.stdout:
            self.newest_line = json.loads(line)
            on_line(self.newest_line)
