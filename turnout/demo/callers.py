"""The demo's customers: the traffic process, and what it last said."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from turnout.demo.checklist import NotHeldError

FINAL_S_MAX = 15.0


class Callers:
    """Runs turnout.demo.traffic and keeps its newest line."""

    def __init__(self, gateway: str, model: str, rate: float, subscribers: int) -> None:
        self._command = [
            *(sys.executable, "-m", "turnout.processes.die_with_parent", str(os.getpid())),
            *(sys.executable, "-m", "turnout.demo.traffic", "--gateway", gateway),
            *("--model", model, "--rate", str(rate), "--subscribers", str(subscribers)),
        ]
        self._running: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.newest: dict[str, Any] = {}

    async def start(self, changed: Callable[[dict[str, Any]], None]) -> None:
        """Start calling; *changed* gets each line."""
        self._running = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        self._reading = asyncio.create_task(self._read(self._running, changed))

    async def stop(self) -> dict[str, Any]:
        """Stop calling, wait for what is inside, and return the final totals.

        NotHeldError when they do not come: then nobody knows what became of the last calls.
        """
        if self._running is None or self._reading is None:
            return self.newest
        with suppress(ProcessLookupError):
            self._running.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(FINAL_S_MAX):
                await self._reading
                await self._running.wait()
        except TimeoutError as error:
            raise NotHeldError(f"the callers did not end within {FINAL_S_MAX:g} s") from error
        if not self.newest.get("final"):
            raise NotHeldError(f"the callers ended early, after {self.newest.get('sent', 0)} calls")
        return self.newest

    async def end(self) -> None:
        """End the callers whatever they are doing; nothing happens when they have ended."""
        if self._running is not None and self._running.returncode is None:
            with suppress(ProcessLookupError):
                self._running.kill()
            await self._running.wait()
        if self._reading is not None:
            await self._reading

    async def _read(
        self, running: asyncio.subprocess.Process, changed: Callable[[dict[str, Any]], None]
    ) -> None:
        assert running.stdout is not None
        async for line in running.stdout:
            self.newest = json.loads(line)
            changed(self.newest)
