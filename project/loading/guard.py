"""Forbids a project's files what a declaration does not need: processes, network, writing.

It is a guard against accidents and not a wall: authors of a project run its files with their
own rights when they train.
"""

import os
import sys
from typing import Any


class ForbiddenActError(Exception):
    """A file of the project tried what a declaration may not do."""


PROCESSES = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.kill",
    "os.killpg",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "pty.spawn",
    "subprocess.Popen",
)
CHANGES = (
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
)
REASONS = {
    **dict.fromkeys(PROCESSES, "start or end processes"),
    **dict.fromkeys(CHANGES, "change files"),
    "ctypes.dlopen": "load libraries by ctypes",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install_guard() -> None:
    """From now on raise ForbiddenActError for what a project's file may not do."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    reason = REASONS.get(event)
    if event.startswith("socket.") and event != "socket.gethostname":
        reason = "use the network"
    elif event == "open" and isinstance(arguments[0], str | bytes) and _writes(arguments[2]):
        reason = f"write files ({os.fsdecode(arguments[0])})"
    if reason:
        raise ForbiddenActError(
            f"{event}: a project's file may not {reason}; it only declares views, labels and "
            "recipes"
        )


def _writes(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & WRITING)
