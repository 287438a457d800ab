"""`python -m turnout.processes.die_with_parent PARENT PROGRAM ...`: becomes PROGRAM.

Linux keeps the wish across exec, so any program can be tethered; elsewhere the program simply
runs. Used so that a killed `turnout up` leaves nothing behind.
"""

import os
import signal
import sys

from host.processes import die_with_parent


def main(arguments: list[str]) -> None:
    """Ask the kernel for SIGTERM at the parent's death, then become the program."""
    parent, program = int(arguments[0]), arguments[1:]
    if not die_with_parent(signal.SIGTERM, parent):
        raise SystemExit(0)
    os.execvp(program[0], program)  # noqa: S606  to become it is the point


if __name__ == "__main__":
    main(sys.argv[1:])
