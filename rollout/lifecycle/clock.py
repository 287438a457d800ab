"""Where the rollout room reads the time, so that tests own it."""

import time
from typing import Protocol

from rollout.lifecycle.rollout import ClockReading


class ControllerClock(Protocol):
    """Two clocks read at one instant."""

    def now(self) -> ClockReading:
        """Unix ns for people and gateways, monotonic ns for waiting."""
        ...


class SystemControllerClock:
    """The machine's."""

    def now(self) -> ClockReading:
        """Read both."""
        return ClockReading(unix_ns=time.time_ns(), monotonic_ns=time.monotonic_ns())
