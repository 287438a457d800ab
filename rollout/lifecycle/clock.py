"""The clocks that the controller reads. Tests put clocks of their own in their place."""

from dataclasses import dataclass

from host.clock import Clock


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One instant on two clocks.

    unix_ns       wall clock, for people and for comparing with the gateways' clocks.
    monotonic_ns  monotonic clock, for durations.
    """

    unix_ns: int
    monotonic_ns: int


class ControllerClock:
    """Reads the wall clock and the monotonic clock of *clock* together."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> ClockReading:
        """Return both clocks, read at one instant."""
        return ClockReading(unix_ns=self._clock.unix_ns(), monotonic_ns=self._clock.now_ns())
