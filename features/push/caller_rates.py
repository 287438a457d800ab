"""Bounds the rows that one caller pushes in a second, and the calls that it has open."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from host.clock import NS_PER_SECOND, Clock

ROWS_S = 20_000
"""Rows of one caller in a second, unless the operator says otherwise."""
CALLER_CALLS_MAX = 32
"""Calls of one caller that are open at once."""
CALLS_MAX = 128
"""Calls of all callers. Each holds at most a message of 4 MiB."""
PUSHBACK_MS_MIN, PUSHBACK_MS_MAX = 10, 5_000
CALLS_PUSHBACK_MS = 100
CALLERS_MAX = 1_000
"""Callers of which is remembered what they pushed. Beyond it, those are forgotten that have pushed
nothing for FORGET_AFTER_S; they are below their rate by then."""
FORGET_AFTER_S = 3


class AboveRateError(Exception):
    """A caller is above a bound. `wait_ms` is how long it should wait before it calls again."""

    def __init__(self, text: str, wait_ms: int) -> None:
        super().__init__(text)
        self.wait_ms = wait_ms


@dataclass(slots=True)
class _Pushed:
    """Rows that were pushed and are not paid off yet, at the rate."""

    rows: float = 0.0
    at_ns: int = 0


class CallerRates:
    """What each caller has pushed. Touched by the event loop's thread only.

    rows_s  rows of one caller in a second. A burst of a second's rows is let through.
    """

    def __init__(self, rows_s: int, clock: Clock) -> None:
        self._rows_s = rows_s
        self._clock = clock
        self._pushed: dict[str, _Pushed] = {}
        self._open: Counter[str] = Counter()

    @contextmanager
    def call(self, caller: str) -> Iterator[None]:
        """Count an open call while the block runs. AboveRateError beyond a bound."""
        # What is known before the request is read is refused before it is read.
        if self._open[caller] >= CALLER_CALLS_MAX:
            raise AboveRateError(
                f"caller {caller!r} has {CALLER_CALLS_MAX} calls open, all that it may have; wait "
                "for one, and send more rows in each",
                CALLS_PUSHBACK_MS,
            )
        if self._open.total() >= CALLS_MAX:
            raise AboveRateError(
                f"{CALLS_MAX} calls are open, all that this server takes; call again",
                CALLS_PUSHBACK_MS,
            )
        self._check(caller, self._settled(caller))
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    def take(self, caller: str, rows: int) -> None:
        """Count the rows of a call. AboveRateError if the caller is above its rate already."""
        pushed = self._settled(caller)
        self._check(caller, pushed)
        pushed.rows += rows

    def _settled(self, caller: str) -> _Pushed:
        """Return what a caller has pushed, without what the time since then has paid off."""
        now_ns = self._clock.now_ns()
        if caller not in self._pushed and len(self._pushed) >= CALLERS_MAX:
            since_ns = now_ns - FORGET_AFTER_S * NS_PER_SECOND
            self._pushed = {
                name: item for name, item in self._pushed.items() if item.at_ns > since_ns
            }
        pushed = self._pushed.setdefault(caller, _Pushed(at_ns=now_ns))
        elapsed_s = max(0, now_ns - pushed.at_ns) / NS_PER_SECOND
        pushed.rows = max(0.0, pushed.rows - elapsed_s * self._rows_s)
        pushed.at_ns = now_ns
        return pushed

    def _check(self, caller: str, pushed: _Pushed) -> None:
        if pushed.rows >= self._rows_s:
            wait_ms = int(1_000 * (pushed.rows - self._rows_s) / self._rows_s)
            raise AboveRateError(
                f"caller {caller!r} is above its rate of {self._rows_s} rows a second; wait and "
                "call again",
                min(max(wait_ms, PUSHBACK_MS_MIN), PUSHBACK_MS_MAX),
            )
