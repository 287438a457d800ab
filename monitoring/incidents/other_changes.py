"""What changed beside what alarms: entries of the history, and workers that started anew."""

import json
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Protocol

from monitoring.jobs.grouping import OtherChange
from protos import window_pb2

CHANGES_MAX = 2_000
EXPLAINING = {
    "deploy": "deployment",
    "deploy rollback": "rollback",
    "deploy BREAK GLASS": "deployment",
    "deploy rejection": "rejection",
    "deploy project": "deployment",
    "deploy finding": "rollback",
    "apply project": "project",
    "register": "version",
    "approve settings": "settings",
}
"""Action of a history entry that may explain an alarm -> the kind of the change."""


class ChangeEntry(Protocol):
    """The fields of a history entry that are told."""

    @property
    def at_unix_ms(self) -> int:
        """Time of the entry, Unix milliseconds."""
        ...

    @property
    def actor(self) -> str:
        """The name of the person or program that made the change."""
        ...

    @property
    def action(self) -> str:
        """What was done, such as "deploy"."""
        ...

    @property
    def object(self) -> str:
        """What it was done to, such as "model/churn/deployment"."""
        ...

    @property
    def after(self) -> str:
        """What was written, as JSON."""
        ...


class OtherChanges:
    """Remembers the newest changes."""

    def __init__(self) -> None:
        self._changes: deque[OtherChange] = deque(maxlen=CHANGES_MAX)
        self._boots: dict[tuple[str, int], int] = {}

    def note_entry(self, entry: ChangeEntry) -> None:
        """Note an entry of the history, if it may explain an alarm."""
        if entry.action in EXPLAINING:
            self._changes.append(change_of_entry(entry))

    def note_windows(self, batch: window_pb2.WindowBatch) -> None:
        """Note a gateway worker that started anew."""
        source = batch.source
        worker = source.gateway, source.slot
        before = self._boots.get(worker)
        self._boots[worker] = source.boot_id
        if before is not None and before != source.boot_id:
            at = batch.sent_unix_ns // 10**9
            text = f"worker {source.slot} of {source.gateway} started anew"
            self._changes.append(OtherChange(at=at, kind="restart", subject=worker[0], text=text))

    def since(self, unix_s: int) -> Iterable[OtherChange]:
        """Return the changes from a Unix second on."""
        return [change for change in list(self._changes) if change.at >= unix_s]


def change_of_entry(entry: ChangeEntry) -> OtherChange:
    """Return a history entry as a change that may explain an alarm."""
    subject = entry.object.split("/")[1] if "/" in entry.object else entry.object
    at = entry.at_unix_ms // 1_000
    when = datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M")
    text = f"{when} {entry.action} {entry.object} by {entry.actor}{_production(entry)}"
    return OtherChange(at=at, kind=EXPLAINING[entry.action], subject=subject, text=text)


def _production(entry: ChangeEntry) -> str:
    """Return which version answers after a deployment."""
    try:
        after = json.loads(entry.after)
    except (ValueError, RecursionError):
        return ""
    label = after.get("production") if isinstance(after, dict) else None
    return f": production is version {label}" if label else ""
