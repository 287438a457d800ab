"""Child processes for foreign models: their crash, hang or hunger harms only themselves.

They are started by vfork and exec: subprocess.Popen without preexec_fn, which runs no fork
handlers. A plain fork runs the handlers of grpcio 1.85 while its threads poll, and 48 of 200
children died before their exec (grpc#43055). Of 200 children started this way under the same load
none died. So preexec_fn is never used here; a child sets its own limits first
(`parse_and_confine`).
"""

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from host.processes import cpu_seconds, die_with_parent

POLL_INTERVAL_S = 0.05
"""Pause between checks whether a child has ended, where pidfd_open is missing or refused."""

ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # joblib would warn that a child which may write no file has no semaphores.
    "JOBLIB_MULTIPROCESSING": "0",
}
"""Variables of a child: it works on one thread, and pools would only take address space."""

OPEN_FILES_MAX = 64
"""Descriptors of a child. An interpreter, numpy and ONNX Runtime need some 20."""

SECRETS_PREFIX = "TURNOUT_"
"""A child runs what an author wrote, so it gets no variable of this name, such as a token."""

CRASH_SIGNALS = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGBUS", "SIGSYS", "SIGTRAP")
)
"""Signals by which a program crashes. SIGKILL is not one of them: it comes from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimits:
    """Bounds on a child's memory and CPU time; 0: no bound."""

    memory_mb: int
    """Address space in MB; an allocation past it fails inside the child."""
    cpu_s: int = 0
    """CPU seconds; past them the kernel ends the child with SIGXCPU."""

    def to_arguments(self) -> list[str]:
        """Return the child's options for these limits, with the pid of its parent."""
        return [f"--parent={os.getpid()}", f"--memory-mb={self.memory_mb}", f"--cpu-s={self.cpu_s}"]


def parse_and_confine(
    program: str, description: str | None, channel_option: str, nice: int
) -> argparse.Namespace:
    """Parse a child's command line and apply its limits; called before anything else.

    program         for --help, such as `registry.probe`.
    description     for --help, the program's docstring.
    channel_option  name of the option with the descriptor that the child reports over.
    nice            priority of the process, 0 to 19.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    for name in ("parent", "memory-mb", "cpu-s", "files-fd", channel_option):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--digest", required=True)
    arguments = parser.parse_args()
    limits = ResourceLimits(memory_mb=arguments.memory_mb, cpu_s=arguments.cpu_s)
    confine(limits, arguments.parent, nice)
    return arguments


def confine(limits: ResourceLimits, parent: int, nice: int) -> None:
    """Limit this process: memory, CPU time, files, no core dump; it ends with *parent*.

    It can create no file that is not empty.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_MAX, OPEN_FILES_MAX))
    if limits.memory_mb:
        lower_limit(resource.RLIMIT_AS, limits.memory_mb * 1024 * 1024)
    if limits.cpu_s:
        lower_limit(resource.RLIMIT_CPU, limits.cpu_s, grace=1)
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    if sys.platform == "linux":
        # When the host is out of memory, the kernel kills this process first.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if not die_with_parent(signal.SIGKILL, parent):
        raise SystemExit(1)


def lower_limit(kind: int, most: int, grace: int = 0) -> None:
    """Set a limit of this process and of what it starts, unless it has a lower one already.

    kind   resource.RLIMIT_AS, RLIMIT_CPU, ...
    grace  what the kernel allows between its warning and its last word.
    """
    _, hard = resource.getrlimit(kind)
    highest = most + grace if hard == resource.RLIM_INFINITY else min(hard, most + grace)
    resource.setrlimit(kind, (min(most, highest), highest))


class ChildProcess:
    """One child process; the event loop notices its end.

    Build it on the loop's thread: the kernel kills the child when the *thread* that started it
    ends, so a thread of a pool must not start it.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        pass_fds: Sequence[int],
        *,
        without: Collection[str] = (),
    ) -> None:
        """Start `python -P -m module`, which inherits *pass_fds* and no other descriptor.

        without  variables of the environment that the child must not have, beside SECRETS_PREFIX.

        Raises OSError when the host has no process, descriptor or memory to give.
        """
        # The child gets no secret, and starts no pool of threads.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(SECRETS_PREFIX) and name not in without
        }
        self._popen = subprocess.Popen(
            # -P: a folder of the working directory must not hide a room of the same name.
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
            env={**environment, **ONE_THREAD},
        )
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Resolves to the exit code, or to minus the number of the signal that ended the child."""
        self._pidfd = -1
        if sys.platform == "linux":
            # Old kernels lack the call, and seccomp filters of containers may refuse it.
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(self.pid)
        if self._pidfd >= 0:
            self._loop.add_reader(self._pidfd, self._check_exit)
        else:
            self._loop.call_later(POLL_INTERVAL_S, self._check_exit)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def terminate(self) -> None:
        """Send SIGTERM; nothing happens when the child has ended."""
        self._popen.terminate()

    def kill(self) -> None:
        """Send SIGKILL; nothing happens when the child has ended."""
        self._popen.kill()

    def cpu_s(self) -> float:
        """Return the CPU time that the child has used, in seconds; 0 without /proc."""
        return cpu_seconds(self.pid)

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
    """Describe how a process ended: its signal's name, or `exit code N`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
