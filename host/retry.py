"""How long to wait before the next try: pauses that double from failure to failure.

Nothing here sleeps or reads a clock. A loop sleeps for the pause it is given; a state machine
without a loop adds the pause to its own clock:

    backoff = Backoff(first_s=0.1, max_s=5.0)          # in a loop
    while True:
        if await connect():
            backoff.reset()
            await disconnected()
        await asyncio.sleep(backoff.next_s())

    retry_at_ns = now_ns + backoff.next_ns()           # in a state machine
"""

from host.clock import NS_PER_SECOND


class Backoff:
    """Pauses between failures in a row: *first_s*, twice that, and so on up to *max_s*.

    The pauses have no jitter: they are the same in every run.

    first_s  pause after the first failure since the last success, in seconds.
    max_s    no pause is longer, in seconds. When it is less than first_s, every pause is max_s.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._pause_s = first_s

    def next_s(self) -> float:
        """Count one failure more; return the pause before the next try, in seconds."""
        pause_s = min(self._pause_s, self._max_s)
        self._pause_s = min(2 * pause_s, self._max_s)
        return pause_s

    def next_ns(self) -> int:
        """Count one failure more; return the pause before the next try, in nanoseconds."""
        return round(self.next_s() * NS_PER_SECOND)

    def reset(self) -> None:
        """Forget the failures: the next pause is the first one again."""
        self._pause_s = self._first_s
