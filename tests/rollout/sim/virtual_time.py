"""Virtual time: an event loop that never waits, so that a minute takes milliseconds."""

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
    """Nothing is scheduled, so the world would wait for ever."""


class _SkippingSelector(selectors.SelectSelector):
    """A selector that moves the clock on instead of waiting. A simulated world has no I/O."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Move the clock on by *timeout*."""
        if timeout is None:
            raise StuckError("every task waits for another one")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` starts at 0. It is the only clock of the simulation."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the seconds since the world began."""
        return self._skipping.now_s


class VirtualClock:
    """A controller's clock. Its wall clock is wrong by *skew_s* seconds."""

    def __init__(self, loop: VirtualLoop, skew_s: float = 0.0) -> None:
        self._loop = loop
        self._skew_ns = round(skew_s * NS)

    def now(self) -> ClockReading:
        """Return the virtual time on both clocks."""
        passed = round(self._loop.time() * NS)
        return ClockReading(
            unix_ns=WORLD_START_S * NS + passed + self._skew_ns, monotonic_ns=passed
        )


def run_virtual(world: Coroutine[Any, Any, Result], loop: VirtualLoop) -> Result:
    """Run *world* to its end on *loop*, cancel the remaining tasks, and close the loop."""
    try:
        return loop.run_until_complete(world)
    finally:
        # A cancelled task may still release its lease, so tasks are cancelled until none is left.
        while remaining := asyncio.all_tasks(loop):
            for task in remaining:
                task.cancel()
            loop.run_until_complete(asyncio.wait(remaining, timeout=1.0))
        loop.close()
