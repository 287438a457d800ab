"""The batch delay: whether a batch waits for more calls, learned from earlier waits. Pure.

grpc.aio delivers one call in each turn of its loop. A saturated server that scores each call at
once has batches of one call and pays a batch's fixed cost for each. If it waits a millisecond while
calls keep coming, batches have 10 to 30 calls. That delays no call, because at saturation the calls
would have queued for longer; a core then answers 3.4 times as many calls a second (measured).
A caller that is alone must not pay for it: after a wait that brought no call, up to 256 batches do
not wait.
"""

DELAY_STEP_S = 0.001
"""One step of waiting. uvloop's timers have whole milliseconds; a shorter one would not wait."""
DELAY_STEPS_MAX = 6
"""A batch waits for this many steps at most."""
NEWCOMERS_MIN = 3
"""With fewer new calls in a step the burst is over, and the batch is scored."""
SKIPS_MAX = 256
"""Batches without a wait, at most. While one caller calls alone, one call in 256 is answered 1 ms
later, to find out whether that is still so."""


class BatchDelay:
    """Remembers for one server whether waiting brought more calls."""

    def __init__(self) -> None:
        self._skips = 1
        self._skips_left = 0

    def should_wait(self, calls_waiting: int) -> bool:
        """Return whether this batch should wait a step; called once a batch."""
        if calls_waiting > 1:
            return True
        if self._skips_left > 0:
            self._skips_left -= 1
            return False
        return True

    def record_newcomers(self, newcomers: int) -> None:
        """Learn from one wait: *newcomers* calls came while the batch waited."""
        if newcomers > 0:
            self._skips, self._skips_left = 1, 0
        else:
            self._skips = min(2 * self._skips, SKIPS_MAX)
            self._skips_left = self._skips
