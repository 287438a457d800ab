"""What the acts of a demo share: where things are, who plays, what was measured."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from protos import rollout_pb2
from turnout.demo.callers import Callers
from turnout.demo.screen import Screen
from turnout.demo.steps import Checklist
from turnout.running import Running
from turnout.system import Plan

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
    """champion, candidate, faulty -> the version's files."""
    versions: dict[str, str] = field(default_factory=dict)
    """champion, candidate, faulty -> label."""
    rollback: rollout_pb2.RolloutStatus | None = None
    """The last word of the rollout that was rolled back."""
    told: bool = False
    """The summary has been printed."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What the summary prints, by name."""

    @property
    def up(self) -> Running:
        """The running system; an act that needs it comes after the one that starts it."""
        assert self.running is not None
        return self.running
