"""Children of a worker: programs whose crash, hang or hunger must cost nobody but themselves.

Started by vfork and exec: subprocess.Popen without preexec_fn, which runs no fork handlers. grpcio
1.85's handlers, run by a plain fork while its threads poll, killed 48 of 200 children before their
exec (grpc#43055); of 200 started this way under the same load, none. So never preexec_fn here: what
a child must do to itself (`confined`) it does itself, first thing.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_INTERVAL_S = 0.05
"""Between looks at a child where the system cannot tell its end (no pidfd)."""

CRASH_SIGNALS = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGBUS", "SIGSYS", "SIGTRAP")
)
"""Ends that a program brings on itself. SIGKILL is not among them: it comes from outside."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimits:
    """What a child may take. 0: no bound of ours."""

    memory_mb: int
    """Address space: past it an allocation fails inside the child."""
    cpu_s: int = 0
    """Then the kernel ends it with SIGXCPU."""

    def to_arguments(self) -> list[str]:
        """Return them for the child's command line, with who its parent is."""
        return [f"--parent={os.getpid()}", f"--memory-mb={self.memory_mb}", f"--cpu-s={self.cpu_s}"]


def parse_and_confine(
    program: str, description: str | None, channel_option: str, nice: int
) -> argparse.Namespace:
    """Read a child's command line, first thing, and bound it as that says.

    program, does  for --help: `gateway.isolation.probe`, and its docstring.
    line           the option with the descriptor it talks over.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    for name in ("parent", "memory-mb", "cpu-s", "files-fd", channel_option):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--digest", required=True)
    asked = parser.parse_args()
    _confine(ResourceLimits(memory_mb=asked.memory_mb, cpu_s=asked.cpu_s), asked.parent, nice)
    return asked


def _confine(bounds: ResourceLimits, parent: int, nice: int) -> None:
    """Bound this very process: memory, CPU, no files, no core; it ends with *parent*."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if bounds.memory_mb:
        most = bounds.memory_mb * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if bounds.cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (bounds.cpu_s, bounds.cpu_s + 1))
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    if sys.platform == "linux":
        # The first to go when the host is out of memory; and gone when the worker is.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            raise SystemExit(1)


class ChildProcess:
    """One child and its end, noticed by the loop. Build it on the loop's thread.

    The kernel ends a child when the *thread* that started it ends, so no pool's thread may.
    """

    def __init__(self, module: str, arguments: Sequence[str], pass_fds: Sequence[int]) -> None:
        """Start `python -m module`, with *pass_fds* and no other descriptor of ours."""
        self._popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
            # One row after another: a pool of numpy's own would only take address space.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Resolves to the exit code; minus the signal's number where one ended it."""
        self._pidfd = -1
        if sys.platform == "linux":
            self._pidfd = os.pidfd_open(self.pid)
            self._loop.add_reader(self._pidfd, self._check_exit)
        else:
            self._loop.call_later(POLL_INTERVAL_S, self._check_exit)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def kill(self) -> None:
        """SIGKILL; nothing happens when it has ended."""
        self._popen.kill()

    def cpu_s(self) -> float:
        """CPU time it has had so far, in seconds; 0 where the system has no /proc."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return 0.0
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _check_exit(self) -> None:
        code = self._popen.poll()
        if code is None:
            if self._pidfd < 0:
                self._loop.call_later(POLL_INTERVAL_S, self._check_exit)
            return
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if not self.exited.done():
            self.exited.set_result(code)


def describe_exit(code: int) -> str:
    """Say in words how a process with this exit code ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
