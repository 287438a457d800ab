"""What the acts of a demo share: where things are, who plays, what was measured."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from protos import rollout_pb2
from turnout.demo.callers import Callers
from turnout.demo.checklist import Checklist
from turnout.demo.screen import Screen
from turnout.processes.local_system import Plan
from turnout.processes.system_file import Running

MODEL = "churn"
AUTHOR = "dana"
"""Trains and registers."""
APPROVER = "gabriel"
"""Approves; never what he made himself."""
OPERATOR = "sam"
"""Deploys and starts rollouts."""


def wall_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Card:
    """One bad version's end."""

    name: str
    version: str
    status: rollout_pb2.RolloutStatus
    """The last word of its rollout."""
    customers_failed: int
    """Customer calls that failed while it was rolled out."""


@dataclass(slots=True)
class Scene:
    """One play of the demo."""

    plan: Plan
    subscribers: int
    rate: float
    checklist: Checklist
    screen: Screen
    clock_ms: Callable[[], int] = wall_ms
    now_ms: int = 0
    """The instant the data is a snapshot of."""
    running: Running | None = None
    callers: Callers | None = None
    files: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    """champion, candidate, and each of version_acts.BAD -> the version's files."""
    versions: dict[str, str] = field(default_factory=dict)
    """The same names -> label."""
    cards: list[Card] = field(default_factory=list)
    """What became of each bad version, in the order they were tried."""
    told: bool = False
    """The summary has been printed."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What the summary prints, by name."""

    @property
    def up(self) -> Running:
        """The running system; an act that needs it comes after the one that starts it."""
        assert self.running is not None
        return self.running
