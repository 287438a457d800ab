"""Where the time comes from, so that a test can own it.

A part that needs the time takes a `Clock` instead of calling `time` itself. In production it gets
a `SystemClock`, in a test a `ManualClock`.
"""

import time
from typing import Protocol

NS_PER_SECOND = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
DAY_S, HOUR_S = 86_400, 3_600
DAY_MS, HOUR_MS = 1_000 * DAY_S, 1_000 * HOUR_S
DAY_NS, HOUR_NS = DAY_S * NS_PER_SECOND, HOUR_S * NS_PER_SECOND
"""One day and one hour, by unit. No other module defines them."""


class Clock(Protocol):
    """Monotonic time for deadlines and latencies; wall time for what is written down."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary start. Never goes back."""
        ...

    def unix_ns(self) -> int:
        """Nanoseconds since 1970 as this host believes. May jump when the host's clock is set."""
        ...


class SystemClock:
    """The clocks of this host."""

    def now_ns(self) -> int:
        """Read CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def unix_ns(self) -> int:
        """Read CLOCK_REALTIME."""
        return time.time_ns()


class ManualClock:
    """A clock for tests: it stands still until the test moves it.

        clock = ManualClock(unix_s=1_700_000_000)
        clock.advance_s(2.5)

    monotonic_s  where the monotonic clock starts.
    unix_s       where the wall clock starts.
    """

    def __init__(self, monotonic_s: float = 0.0, unix_s: float = 0.0) -> None:
        self._now_ns = round(monotonic_s * NS_PER_SECOND)
        self._unix_ns = round(unix_s * NS_PER_SECOND)

    def now_ns(self) -> int:
        """Where the test has moved the monotonic clock."""
        return self._now_ns

    def unix_ns(self) -> int:
        """Where the test has moved the wall clock."""
        return self._unix_ns

    def advance_s(self, seconds: float) -> None:
        """Move both clocks forward; ValueError when *seconds* is negative."""
        self.advance_ns(round(seconds * NS_PER_SECOND))

    def advance_ns(self, nanoseconds: int) -> None:
        """Move both clocks forward; ValueError when *nanoseconds* is negative."""
        if nanoseconds < 0:
            raise ValueError("a monotonic clock never goes back; set_unix_s moves the wall clock")
        self._now_ns += nanoseconds
        self._unix_ns += nanoseconds

    def set_unix_s(self, unix_s: float) -> None:
        """Set the wall clock alone, back or forward, as an operator or NTP does."""
        self._unix_ns = round(unix_s * NS_PER_SECOND)
