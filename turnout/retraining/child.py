"""The program of a child that trains: it limits itself, then becomes one `turnout` command.

`turnout.retraining.training_child` starts it. It has a session of its own, so that whatever its
training code starts can be found and ended. It is a guard against accidents and no sandbox: the
authors of a project run it with the rights of the runner's user, without its token.
"""

import argparse
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path

from host.processes import die_with_parent

NICE = 10
"""Training gives way to whatever answers calls on the same host."""


def main() -> None:
    """Give up what the limits say, and become the command in the remaining arguments."""
    parser = argparse.ArgumentParser(prog="python -m turnout.retraining.child", description=__doc__)
    for name in ("parent", "memory-mb", "cpu-s", "log-fd"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    confine_training(options.parent, options.memory_mb, options.cpu_s, options.log_fd)
    # The limits, the session and the bond to the parent hold for the next program too.
    program = [sys.executable, "-P", "-m", "turnout", *options.command]
    os.execv(sys.executable, program)  # noqa: S606  no shell is wanted


def confine_training(parent: int, memory_mb: int, cpu_s: int, log_fd: int) -> None:
    """Limit this process and what it starts, and send what it prints to *log_fd*.

    memory_mb  address space of each process.
    cpu_s      CPU seconds of each process.
    """
    for descriptor in (1, 2):
        os.dup2(log_fd, descriptor)
    os.setsid()
    most = memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    # When the host is out of memory, the kernel kills this process first.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if not die_with_parent(signal.SIGKILL, parent):
        sys.exit(1)


if __name__ == "__main__":
    main()
