"""One timer for many waits."""

import asyncio
from collections.abc import Callable
from math import inf


class DeadlineTimer:
    """Calls back when the soonest of many waits is over.

    A timer each, made and thrown away for what hardly ever happens, cost a lone call a tenth of
    its wait for the store.
    """

    def __init__(self, expire: Callable[[float], float]) -> None:
        """expire: ends what is over at this loop time; returns when the next is, or infinity."""
        self._expire = expire
        self._when = inf
        self._timer: asyncio.TimerHandle | None = None

    def run_by(self, when: float) -> None:
        """Have the timer run at *when*, loop time, if it would not run before."""
        if when < self._when:
            self.cancel()
            self._when = when
            self._timer = asyncio.get_running_loop().call_at(when, self._run)

    def cancel(self) -> None:
        """Let the timer go."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._when = None, inf

    def _run(self) -> None:
        self._timer, self._when = None, inf
        self.run_by(self._expire(asyncio.get_running_loop().time()))
