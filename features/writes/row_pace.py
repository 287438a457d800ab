"""Bounds how many rows are written in a second, so that a store can serve its readers meanwhile."""

import time
from collections import deque
from collections.abc import Callable

SECOND_S = 1.0
PARTS_OF_A_SECOND = 10
"""Rows are written in this many parts a second, so that readers never wait for all of them."""


class RowPace:
    """At most *rows_per_second* rows in any second, over all that is written with one pace.

    Call `begin` before the rows of a part are written, and `end` when they are.

    rows_per_second  1 or more; None: no bound.
    clock, sleep     monotonic seconds, and how to wait for some.
    """

    def __init__(
        self,
        rows_per_second: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rows_per_second = rows_per_second
        self._clock, self._sleep = clock, sleep
        self._written: deque[tuple[float, int]] = deque()
        """(end, rows) of each part that ended less than a second ago."""
        self._next_at = -SECOND_S

    def begin(self, rows: int) -> int:
        """Wait until a part may be written; return how many of *rows* it may have."""
        bound = self._rows_per_second
        if bound is None:
            return rows
        part = min(rows, max(1, bound // PARTS_OF_A_SECOND))
        while True:
            # A part counts for a second after its last row was written.
            now = self._clock()
            while self._written and now - self._written[0][0] >= SECOND_S:
                self._written.popleft()
            if self._written and sum(count for _, count in self._written) + part > bound:
                self._sleep(max(self._written[0][0] + SECOND_S - now, 1e-4))
            elif now < self._next_at:
                self._sleep(self._next_at - now)
            else:
                self._next_at = now + part / bound
                return part

    def end(self, rows: int) -> None:
        """Note that *rows* rows have been written."""
        if self._rows_per_second is not None:
            self._written.append((self._clock(), rows))
