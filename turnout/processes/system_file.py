"""system.json: where the running system is. Written by `turnout up`, read by every command."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from host.files import replace_file
from host.processes import start_ticks
from turnout.errors import OperatorError

SYSTEM_FILE = "system.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SystemAddresses:
    """Addresses and process ids of one system on this machine."""

    pid: int
    """Of `turnout up` (or `turnout demo`) itself: the one to signal."""
    pid_started: int
    """Its start in clock ticks since boot, so that a reused pid is not mistaken for it."""
    store: str
    """redis:// URL."""
    registry: str
    """host:port of registry and rollouts."""
    gateway: str
    """host:port of Predict."""
    metrics: str
    """http:// URL of the one /metrics."""
    children: dict[str, tuple[int, int]] = field(default_factory=dict)
    """store, control, gateway: (pid, start in ticks) of the newest process of each."""


def read_system_file(folder: Path) -> SystemAddresses | None:
    """Return what runs in *folder*, or None when nothing does (any more).

    OperatorError when system.json is there but not ours to read.
    """
    written = _read_file(folder)
    if written is None or start_ticks(written.pid) != written.pid_started:
        return None
    return written


def leftover_processes(folder: Path) -> list[tuple[int, int]]:
    """Return (pid, ticks) of each part that a dead system of *folder* had running."""
    written = _read_file(folder)
    return [] if written is None else [(pid, ticks) for pid, ticks in written.children.values()]


def write_system_file(folder: Path, running: SystemAddresses) -> None:
    """Put *running* in place whole: a reader sees the old file or the new one."""
    text = json.dumps({"format": FORMAT, **asdict(running)}, indent=1)
    replace_file(folder / SYSTEM_FILE, text, durable=False)


def remove_system_file(folder: Path) -> None:
    """Remove system.json; nothing happens when it is gone already."""
    (folder / SYSTEM_FILE).unlink(missing_ok=True)


def _read_file(folder: Path) -> SystemAddresses | None:
    try:
        text = (folder / SYSTEM_FILE).read_text()
    except OSError:
        return None
    try:
        fields = json.loads(text)
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")  # noqa: TRY301  said below, with the way out
        return SystemAddresses(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OperatorError(
            f"{folder / SYSTEM_FILE} is not a system's address file ({error}); remove it if no "
            "`turnout up` uses this folder"
        ) from error
