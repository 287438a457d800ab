"""`python -m turnout.processes.die_with_parent PARENT PROGRAM ...`: runs PROGRAM in this process.

PROGRAM gets SIGTERM when process PARENT dies, so that a killed `turnout up` leaves no process
behind. This works on Linux; elsewhere PROGRAM runs without it.
"""

import os
import signal
import sys

from host.processes import die_with_parent


def main(arguments: list[str]) -> None:
    """Ask the kernel for SIGTERM at the parent's death, then exec the program."""
    parent, program = int(arguments[0]), arguments[1:]
    if not die_with_parent(signal.SIGTERM, parent):
        raise SystemExit(0)
    os.execvp(program[0], program)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
