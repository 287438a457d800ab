"""What the acts of a demo share: its options, its people, and what it has measured so far."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from protos import rollout_pb2
from turnout.demo.callers import TrafficProcess
from turnout.demo.checklist import Checklist
from turnout.demo.screen import Screen
from turnout.processes.local_system import SystemPlan
from turnout.processes.system_file import SystemAddresses

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from project.definitions import ProjectDefinitions
    from registry.client import RegistryClient
    from turnout.cli.rollout_client import RolloutClient

MODEL = "churn"
AUTHOR = "dana"
"""Trains and registers versions."""
APPROVER = "gabriel"
"""Approves versions."""
OPERATOR = "sam"
"""Deploys versions and starts rollouts."""


def wall_clock_ms() -> int:
    """Return the time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class BadVersionResult:
    """How the rollout of one bad version ended."""

    name: str
    """A key of version_acts.BAD_VERSION_POLICIES."""
    version: str
    """The label of the bad version."""
    status: rollout_pb2.RolloutStatus
    """The last status of its rollout."""
    customers_failed: int
    """Customer calls that failed during its rollout."""


@dataclass(slots=True)
class DemoContext:
    """One run of the demo."""

    plan: SystemPlan
    subscribers: int
    rate: float
    checklist: Checklist
    screen: Screen
    clock_ms: Callable[[], int] = wall_clock_ms
    now_ms: int = 0
    """Unix ms; the features are as known at this moment."""
    definitions: "ProjectDefinitions | None" = None
    """What the example project declares; the first act loads it."""
    addresses: SystemAddresses | None = None
    traffic: TrafficProcess | None = None
    files: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    """For champion, candidate and each bad version: its files, by name."""
    labelled_rows: "NDArray[np.float32] | None" = None
    """(N, F) the inputs of the candidate's labelled rows; the training act keeps them."""
    versions: dict[str, str] = field(default_factory=dict)
    """For champion, candidate and each bad version: its label."""
    bad_versions: list[BadVersionResult] = field(default_factory=list)
    """The bad versions so far, in the order of their rollouts."""
    summary_printed: bool = False
    measured: dict[str, Any] = field(default_factory=dict)
    """Measured values that the summary shows, by name."""

    @property
    def system(self) -> SystemAddresses:
        """The running system. Acts that use it come after the one that starts it."""
        assert self.addresses is not None
        return self.addresses

    @property
    def example(self) -> "ProjectDefinitions":
        """What the example project declares. Acts that use it come after the one that loads it."""
        assert self.definitions is not None
        return self.definitions

    def registry_client(self, actor: str) -> "RegistryClient":
        """Return a client of the system's registry for *actor*; an async context manager."""
        from registry.client import RegistryClient  # gRPC takes half a second to import

        system = self.system
        return RegistryClient(system.registry, actor, certificate=system.certificate)

    def rollout_client(self, actor: str) -> "RolloutClient":
        """Return a client of the system's controller for *actor*; an async context manager."""
        from turnout.cli.rollout_client import RolloutClient

        system = self.system
        return RolloutClient(system.registry, actor, certificate=system.certificate)
