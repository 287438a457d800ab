"""Whether a waiting call should wait for company: learned from whether company came. Pure.

grpc.aio hands over one call a turn of its loop, so a saturated door that serves each call at once
serves batches of one, and pays a batch's fixed cost for each call. Waiting a millisecond while
calls keep coming makes batches of 10 to 30 and costs nobody anything, because at saturation they
would have queued for longer; measured here, a core answered 3.4 times as many calls a second.
A lone caller must not pay for that: where waiting brought nobody, it is not tried again for up
to 256 batches.
"""

DELAY_STEP_S = 0.001
"""uvloop's timers count whole milliseconds; a shorter one would not wait at all."""
DELAY_STEPS_MAX = 6
"""No call waits for company longer than this many quanta."""
NEWCOMERS_MIN = 3
"""Fewer newcomers in a quantum than this: the burst is over, serve it."""
SKIPS_MAX = 256
"""Lone calls: one in 256 finds out whether that is still so, and is answered 1 ms later."""


class BatchDelay:
    """One door's memory of whether waiting was worth it."""

    def __init__(self) -> None:
        self._skips = 1
        self._skips_left = 0

    def should_wait(self, calls_waiting: int) -> bool:
        """Whether this batch should wait a quantum; asked once a batch."""
        if calls_waiting > 1:
            return True
        if self._skips_left > 0:
            self._skips_left -= 1
            return False
        return True

    def record_newcomers(self, newcomers: int) -> None:
        """Say how many calls came while one batch waited."""
        if newcomers > 0:
            self._skips, self._skips_left = 1, 0
        else:
            self._skips = min(2 * self._skips, SKIPS_MAX)
            self._skips_left = self._skips
