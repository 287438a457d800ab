"""The gateway's only source of time, so that tests own it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time for deadlines and latencies; wall time for what is written down."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary start; never goes back."""
        ...

    def unix_ns(self) -> int:
        """Nanoseconds since 1970, as this host believes."""
        ...


class SystemClock:
    """The clocks of this host."""

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def unix_ns(self) -> int:
        """CLOCK_REALTIME."""
        return time.time_ns()
