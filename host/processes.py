"""Figures of processes from the kernel, such as their memory, and how this process ends.

Most of it is read from /proc, which Linux has and macOS has not. Each function says what it returns
where there is no /proc.
"""

import asyncio
import ctypes
import logging
import os
import re
import resource
import signal
import sys
from pathlib import Path

PART_FAILED = 70
"""Exit code of a process that ended because a part of it failed (EX_SOFTWARE of sysexits.h)."""
_PR_SET_PDEATHSIG = 1
"""Option of prctl(2), from linux/prctl.h."""

log = logging.getLogger(__name__)


def die_with_parent(signum: int = signal.SIGTERM, parent: int | None = None) -> bool:
    """Ask the kernel to send *signum* to this process when its parent dies. Linux only.

    The request survives exec, so a program can be started through a small one that calls this.
    "Parent" is the *thread* that started this process: a thread of a pool may end before its
    process does.

    parent  the pid that must still be this process's parent. Give it whenever the parent may die
            before this call: the kernel sends nothing for a death in the past.

    Returns False when the parent is another process by now, and the caller should end. Elsewhere
    than on Linux this does nothing and returns True.
    """
    if sys.platform != "linux":
        return True
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    return parent is None or os.getppid() == parent


def raise_descriptor_limit(needed: int) -> int:
    """Let this process and its children have *needed* open files; return how many they may have.

    Most systems start a program with 1,024 and allow it to raise that up to a hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return needed


def is_alive(pid: int) -> bool:
    """Whether process *pid* runs. A zombie does not: it holds no memory, file or port any more.

    Without /proc a zombie counts as alive.
    """
    if Path("/proc/self").exists():
        return start_ticks(pid) is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs as another user
        return True
    return True


def start_ticks(pid: int) -> int | None:
    """When process *pid* started, in clock ticks since the host's boot.

    A pid together with its start names one process for ever; a pid alone is used again.

    None when there is no such process, when it is a zombie, and where there is no /proc.
    """
    fields = _stat_fields(pid)
    return None if not fields or fields[0] == "Z" else int(fields[19])


def cpu_seconds(pid: int) -> float:
    """User and system time of process *pid* so far, all threads together, in seconds.

    0 when there is no such process and where there is no /proc.
    """
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def process_ids_of_session(session: int) -> list[int]:
    """Return the processes of a session that run, whose leader may have ended.

    None where there is no /proc.
    """
    folder = Path("/proc")
    if not folder.is_dir():
        return []
    ids = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]
    return [pid for pid in ids if _session_of(pid) == session]


def _session_of(pid: int) -> int:
    fields = _stat_fields(pid)
    return int(fields[3]) if fields and fields[0] != "Z" else 0


def rss_bytes(pid: int) -> int:
    """Resident memory of process *pid*, in bytes.

    0 when there is no such process and where there is no /proc.
    """
    # A supervisor reads it 20 times a second for each worker; Path.read_text takes longer.
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:  # noqa: PTH123
            pages = file.read().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def peak_rss_bytes() -> int:
    """Most resident memory that this process has had, in bytes; 0 where there is no /proc."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    line = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(line[1]) * 1024 if line else 0


def open_descriptors() -> list[int]:
    """Return the open file descriptors of this process; none where there is no /proc.

    One of them is the listing's own, which is closed when this returns.
    """
    folder = Path("/proc/self/fd")
    return [int(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; empty when it cannot be read.

    The second field is the program's name in brackets, which may itself hold spaces and brackets.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()


def platform_refusal() -> str:
    """Return why no gateway can run on this operating system; empty on Linux."""
    if sys.platform == "linux":
        return ""
    return (
        f"a gateway runs on Linux, and this is {sys.platform}: its journal and its workers need "
        "what Linux alone has. Run it in a container or on a Linux host (docs/surroundings.md); "
        "callers, and commands that call a system elsewhere, run here"
    )


def fail_fast(task: "asyncio.Task[None]") -> "asyncio.Task[None]":
    """End this process with PART_FAILED when *task* raises. Return *task*.

    What starts the process starts it again, and counts that. A task that ends well, or that is
    cancelled, changes nothing.
    """
    task.add_done_callback(_on_done)
    return task


def _on_done(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("task_failed error=%r; this process ends", error, exc_info=error)
        logging.shutdown()
        os._exit(PART_FAILED)
