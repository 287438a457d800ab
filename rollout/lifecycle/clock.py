"""Where the rollout room reads the time, so that tests own it."""

from host.clock import Clock
from rollout.lifecycle.rollout import ClockReading


class ControllerClock:
    """Reads the wall clock, for people and gateways, and the monotonic clock, for waiting."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> ClockReading:
        """Read both clocks at one instant, in nanoseconds."""
        return ClockReading(unix_ns=self._clock.unix_ns(), monotonic_ns=self._clock.now_ns())
