"""Time that jumps: an event loop that never waits, so that a minute takes milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from rollout.lifecycle.clock import ClockReading

NS = 1_000_000_000
WORLD_START_S = 1_790_000_000
"""Unix second at which every simulated world begins."""

Result = TypeVar("Result")


class StuckError(Exception):
    """Nothing is scheduled any more: the world would wait for ever."""


class _SkippingSelector(selectors.SelectSelector):
    """Moves the clock on instead of waiting; there is no I/O in a simulated world."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let *timeout* pass at once."""
        if timeout is None:
            raise StuckError("every task waits for another one")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time` starts at 0 and is the only clock of the simulation."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Seconds since the world began."""
        return self._skipping.now_s


class VirtualClock:
    """A controller's clocks; *skew_s*: how far its wall clock is off."""

    def __init__(self, loop: VirtualLoop, skew_s: float = 0.0) -> None:
        self._loop = loop
        self._skew_ns = round(skew_s * NS)

    def now(self) -> ClockReading:
        """Read both."""
        passed = round(self._loop.time() * NS)
        return ClockReading(
            unix_ns=WORLD_START_S * NS + passed + self._skew_ns, monotonic_ns=passed
        )


def run_virtual(world: Coroutine[Any, Any, Result], loop: VirtualLoop) -> Result:
    """Run *world* to its end on *loop* and close it, with every task it left behind."""
    try:
        return loop.run_until_complete(world)
    finally:
        while left := asyncio.all_tasks(loop):  # a task may be busy releasing its lease: ask again
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.close()
