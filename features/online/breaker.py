"""When to stop asking a store that does not answer, and when to start again. No I/O, no clock."""

from typing import Literal, TypeAlias

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]


class StoreBreaker:
    """Opens after *failures_to_open* failures in a row; closes when one probe succeeds.

    Probes are the reader's own PINGs, so no caller ever waits for one.
    """

    def __init__(self, failures_to_open: int) -> None:
        self._failures_to_open = failures_to_open
        self._failures = 0
        self.state: BreakerState = "closed"
        self.opened = 0
        """How often it opened, since the start."""

    def succeeded(self) -> None:
        """Count an answer that came in time."""
        self._failures = 0
        self.state = "closed"

    def failed(self) -> None:
        """Count a timeout or a broken connection."""
        self._failures += 1
        if self.state == "half_open":
            self.state = "open"
        elif self.state == "closed" and self._failures >= self._failures_to_open:
            self.state = "open"
            self.opened += 1

    def probing(self) -> None:
        """Note that a probe is under way."""
        if self.state == "open":
            self.state = "half_open"
