"""What the acts of a demo share: where things are, who plays, what was measured."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from protos import rollout_pb2
from turnout.demo.callers import TrafficProcess
from turnout.demo.checklist import Checklist
from turnout.demo.screen import Screen
from turnout.processes.local_system import SystemPlan
from turnout.processes.system_file import SystemAddresses

MODEL = "churn"
AUTHOR = "dana"
"""Trains and registers."""
APPROVER = "gabriel"
"""Approves; never what he made himself."""
OPERATOR = "sam"
"""Deploys and starts rollouts."""


def wall_clock_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class BadVersionResult:
    """One bad version's end."""

    name: str
    version: str
    status: rollout_pb2.RolloutStatus
    """The last word of its rollout."""
    customers_failed: int
    """Customer calls that failed while it was rolled out."""


@dataclass(slots=True)
class DemoContext:
    """One play of the demo."""

    plan: SystemPlan
    subscribers: int
    rate: float
    checklist: Checklist
    screen: Screen
    clock_ms: Callable[[], int] = wall_clock_ms
    now_ms: int = 0
    """The instant the data is a snapshot of."""
    addresses: SystemAddresses | None = None
    traffic: TrafficProcess | None = None
    files: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    """champion, candidate, and each of version_acts.BAD -> the version's files."""
    versions: dict[str, str] = field(default_factory=dict)
    """The same names -> label."""
    bad_versions: list[BadVersionResult] = field(default_factory=list)
    """What became of each bad version, in the order they were tried."""
    summary_printed: bool = False
    """The summary has been printed."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What the summary prints, by name."""

    @property
    def system(self) -> SystemAddresses:
        """The running system; an act that needs it comes after the one that starts it."""
        assert self.addresses is not None
        return self.addresses
