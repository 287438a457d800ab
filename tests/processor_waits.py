"""A clock that leaves out what threads wait for a processor: the machine's time, not the product's.

Linux counts for each thread how long it was ready to run and did not (the second number of
/proc/PID/task/TID/schedstat, in ns). With this clock the bound of a test on the time of a call
holds on a machine that has other work, too.
"""

import time
from contextlib import suppress
from pathlib import Path

NS_A_SECOND = 1e9


class ProcessorClock:
    """A clock in seconds that stands while a thread waits for a processor.

    These are the calling thread and the threads of *pids*, the processes that serve it. Waits of
    several threads at once are added up, so the clock may go back between two readings.
    """

    def __init__(self, *pids: int) -> None:
        self._folders = [Path(f"/proc/{pid}/task") for pid in pids]
        self._waits_s: dict[Path, float] = {}
        """What each thread has waited. A thread that has ended waits no more, and still counts."""

    def __call__(self) -> float:
        """Return the time; only differences have a meaning."""
        threads = [Path("/proc/thread-self")]
        for folder in self._folders:
            with suppress(OSError):  # the process has ended
                threads += folder.iterdir()
        for thread in threads:
            with suppress(OSError, IndexError):  # the thread has ended; the kernel counts nothing
                counts = (thread / "schedstat").read_bytes().split()
                self._waits_s[thread] = int(counts[1]) / NS_A_SECOND
        return time.perf_counter() - sum(self._waits_s.values())
