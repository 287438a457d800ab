"""The circuit breaker of the online reader. It does no I/O and reads no clock.

Closed: reads are sent. Open: reads are refused at once. Half open: refused, with a probe under way.
"""

from typing import Literal, TypeAlias

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]


class StoreBreaker:
    """Opens after *failures_to_open* failures in a row, and closes when one probe succeeds.

    The reader sends the probes itself, so no caller waits for a store that may still be away.
    """

    def __init__(self, failures_to_open: int) -> None:
        self._failures_to_open = failures_to_open
        self._failures = 0
        self.state: BreakerState = "closed"
        self.opened = 0
        """How often the breaker opened. A probe that fails does not count again."""

    def succeeded(self) -> None:
        """Note an answer that came in time: the breaker closes, the count of failures is 0."""
        self._failures = 0
        self.state = "closed"

    def failed(self) -> None:
        """Count a timeout or a lost connection, and open if there were too many in a row."""
        self._failures += 1
        if self.state == "half_open":
            self.state = "open"
        elif self.state == "closed" and self._failures >= self._failures_to_open:
            self.state = "open"
            self.opened += 1

    def probing(self) -> None:
        """Note that a probe was sent: an open breaker becomes half open."""
        if self.state == "open":
            self.state = "half_open"
