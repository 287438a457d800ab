"""The history as the report reads it: entries with their contents, and what is applied now."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class HistoryEntry(Protocol):
    """The fields of a history entry that the report reads."""

    @property
    def seq(self) -> int:
        """Number of the entry."""
        ...

    @property
    def at_unix_ms(self) -> int:
        """Time of the entry."""
        ...

    @property
    def action(self) -> str:
        """What was done, such as "open incident"."""
        ...

    @property
    def object(self) -> str:
        """What it was done to, such as "model/churn/version/7"."""
        ...

    @property
    def after(self) -> str:
        """What was written, as JSON."""
        ...


@dataclass(frozen=True, slots=True)
class Fact:
    """One entry with its contents."""

    seq: int
    at_ms: int
    action: str
    model: str
    """Empty for an entry that is about no model."""
    name: str
    """The object below the model, such as "version/7"."""
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """What a report is made from."""

    facts: tuple[Fact, ...]
    now_ms: int
    since_ms: int
    """Versions, incidents and rollbacks before it are not counted."""
    policies: Mapping[str, bool] = field(default_factory=dict)
    """Model of an applied project -> whether the project says how it is watched."""
    ideas: Mapping[str, Fact] = field(default_factory=dict)
    """Model -> the entry of the first project revision that has it."""
    policy_entries: Mapping[str, int] = field(default_factory=dict)
    """Model of an applied project -> the entry that applied the project as it is now."""

    def of(self, *actions: str) -> Iterator[Fact]:
        """Yield the facts with these actions, oldest first."""
        return (fact for fact in self.facts if fact.action in actions)


def history_facts(entries: Iterable[HistoryEntry]) -> list[Fact]:
    """Return the entries with their contents; without those that have none."""
    return [fact for entry in entries if (fact := _fact(entry)) is not None]


def _fact(entry: HistoryEntry) -> Fact | None:
    try:
        after = json.loads(entry.after)
    except (ValueError, RecursionError):
        return None
    if not isinstance(after, dict):
        return None
    model, name = "", entry.object
    if entry.object.startswith("model/"):
        model, _, name = entry.object.removeprefix("model/").partition("/")
    return Fact(entry.seq, entry.at_unix_ms, entry.action, model, name, after)
