"""How long threads were ready to run and had no processor: the machine's time, not the product's.

Linux counts it for each thread (/proc/PID/task/TID/schedstat). A test that bounds the time of a
call takes it off, so that its bound holds on a machine that has other work.
"""

from pathlib import Path

NS_A_SECOND = 1e9


def own_wait_s() -> float:
    """Return how long the calling thread has waited for a processor since it began, in s."""
    return _wait_s(Path("/proc/thread-self/schedstat"))


def process_wait_s(pid: int) -> float:
    """Return how long the threads of process *pid* have waited for a processor, added up, in s."""
    return sum(_wait_s(task / "schedstat") for task in Path(f"/proc/{pid}/task").iterdir())


def _wait_s(counts: Path) -> float:
    """Return the second of the counts, or 0 where the thread has ended or nothing is counted."""
    try:
        return int(counts.read_bytes().split()[1]) / NS_A_SECOND
    except (OSError, IndexError):
        return 0.0
