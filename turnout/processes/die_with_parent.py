"""`python -m turnout.processes.die_with_parent PARENT PROGRAM ...`: becomes PROGRAM.

Linux keeps the wish across exec, so any program can be tethered; elsewhere the program simply
runs. Used so that a killed `turnout up` leaves nothing behind.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ask the kernel for SIGTERM at the parent's death, then become the program."""
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            raise SystemExit(0)
    os.execvp(program[0], program)  # noqa: S606  to become it is the point


if __name__ == "__main__":
    main(sys.argv[1:])
