"""Where the rollout room reads the time, so that tests own it."""

import time
from typing import Protocol

from rollout.lifecycle.rollout import Now


class Clock(Protocol):
    """Two clocks read at one instant."""

    def now(self) -> Now:
        """Unix ns for people and gateways, monotonic ns for waiting."""
        ...


class SystemClock:
    """The machine's."""

    def now(self) -> Now:
        """Read both."""
        return Now(unix_ns=time.time_ns(), monotonic_ns=time.monotonic_ns())
