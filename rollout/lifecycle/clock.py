"""The clocks that the controller reads. Tests put clocks of their own in their place."""

import time
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One instant on two clocks.

    unix_ns       wall clock, for people and for comparing with the gateways' clocks.
    monotonic_ns  monotonic clock, for durations.
    """

    unix_ns: int
    monotonic_ns: int


class ControllerClock(Protocol):
    """A source of clock readings."""

    def now(self) -> ClockReading:
        """Return both clocks, read at one instant."""
        ...


class SystemControllerClock:
    """The clocks of this machine."""

    def now(self) -> ClockReading:
        """Return the machine's wall clock and monotonic clock."""
        return ClockReading(unix_ns=time.time_ns(), monotonic_ns=time.monotonic_ns())
