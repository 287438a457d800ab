"""The registry of a simulated world: in memory, with the gates and rules of the real registry."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from protos import registry_pb2 as pb
from registry.rules.gates import Proposal, check_gates
from registry.rules.lifecycle import VersionFacts, statuses_after
from registry.types import Deployment, FencedError, NotFoundError, RevisionConflictError

MODEL = "churn"
WorkerKey = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class DeploymentWrite:
    """One deployment as it was written, and the lease under which it was."""

    deployment: Deployment
    lease_token: int
    rollback: bool
    at_s: float
    production_versions: tuple[str, ...]
    """Versions with the status production that are no standby."""
    ready_workers: int
    """Live workers that had version 2 ready at that instant."""


class SimulatedRegistry:
    """Deployments, gates, statuses, leases, checkpoints and worker states. A call takes no time.

    time_s  the clock of the world.
    """

    def __init__(self, time_s: Callable[[], float], policy_digest: str) -> None:
        self._time_s = time_s
        # Version 1 is production, version 2 is approved.
        self.facts = {
            label: VersionFacts(
                label=label,
                digest=label * 64,
                author="ann",
                status=status,
                standby=False,
                was_production=label == "1",
                returnable=label == "1",
                rejected=False,
                input_contract="c" * 64,
                entities=("subscriber",),
                outputs=1,
            )
            for label, status in (("1", pb.PRODUCTION_STATUS), ("2", pb.DEVELOPMENT))
        }
        self.current = Deployment(model=MODEL, revision=1, production="1", why="by hand", who="ann")
        self.approval = pb.Approval(
            id="a1",
            model=MODEL,
            version="2",
            version_digest="2" * 64,
            policy_name="sim",
            policy_digest=policy_digest,
            approver="bob",
        )
        # What controllers and workers write.
        self.states: dict[WorkerKey, pb.GatewayState] = {}
        self.checkpoints: dict[str, pb.Checkpoint] = {}
        self.writes: list[DeploymentWrite] = []
        self.findings: list[pb.Finding] = []
        self.leased_at_s: dict[int, float] = {}
        """Lease token -> when it was given."""
        self.changed = asyncio.Event()
        """Set, and replaced by a new event, at each change."""
        self._holder, self._token, self._until_s = "", 0, 0.0

    def acquire_lease(self, holder: str, seconds: int, token: int) -> pb.Lease:
        """Give or renew the lease, as registry.storage.controllers does."""
        now = self._time_s()
        if token:
            self._check_lease(token)
        elif self._until_s > now:
            raise FencedError(f"held by {self._holder} for {self._until_s - now:.1f} s")
        else:
            self._token += 1
        self._holder, self._until_s = holder, now + seconds
        self.leased_at_s.setdefault(self._token, now)
        return pb.Lease(name="rollout", holder=holder, token=self._token)

    def _check_lease(self, token: int) -> None:
        if token != self._token or self._until_s <= self._time_s():
            raise FencedError(f"token {token} is fenced off by {self._token} of {self._holder}")

    def deploy(
        self, proposed: Deployment, actor: str, token: int, policy_digest: str, *, rollback: bool
    ) -> Deployment:
        """Write *proposed* if it has the newest revision and passes every gate of the registry."""
        # Lease, compare-and-set, and the real gates.
        if token:
            self._check_lease(token)
        if proposed.revision != self.current.revision:
            raise RevisionConflictError(
                f"at {self.current.revision}, made from {proposed.revision}"
            )
        check_gates(
            Proposal(
                actor=actor,
                current=self.current,
                proposed=proposed,
                versions=self.facts,
                workers=list(self.states.values()),
                approval=self.approval if proposed.approval_id == self.approval.id else None,
                revoked=False,
                settings_change=None,  # people of these worlds change settings as they like
                settings_approval=None,
                overdue_review="",
                policy_digest=policy_digest,
                under_lease=bool(token),
                rollback=rollback,
                break_glass=False,
            )
        )
        # Statuses of the versions, as the real registry changes them.
        moved = statuses_after(self.current, proposed, self.facts)
        for label, (status, standby) in moved.items():
            was = self.facts[label].was_production or status == pb.PRODUCTION_STATUS
            self.facts[label] = replace(
                self.facts[label],
                status=status,
                standby=standby,
                was_production=was,
                returnable=was,
            )
        self.current = replace(proposed, revision=proposed.revision + 1, who=actor)
        # The record of the write, for the promises.
        productions = tuple(
            facts.label
            for facts in self.facts.values()
            if facts.status == pb.PRODUCTION_STATUS and not facts.standby
        )
        ready = sum(
            any(facts.version == "2" for facts in state.loads) for state in self.states.values()
        )
        self.writes.append(
            DeploymentWrite(self.current, token, rollback, self._time_s(), productions, ready)
        )
        self.notify_watchers()
        return self.current

    def save_checkpoint(self, checkpoint: pb.Checkpoint) -> None:
        """Save a checkpoint under the lease."""
        if checkpoint.lease_token:
            self._check_lease(checkpoint.lease_token)
        stored = self.checkpoints.get(checkpoint.rollout_id)
        if stored is not None and checkpoint.sequence < stored.sequence:
            raise RevisionConflictError(f"{checkpoint.sequence} is older than {stored.sequence}")
        self.checkpoints[checkpoint.rollout_id] = checkpoint

    def load_checkpoint(self, rollout_id: str) -> pb.Checkpoint:
        """Return the newest checkpoint."""
        if rollout_id not in self.checkpoints:
            raise NotFoundError(rollout_id)
        return self.checkpoints[rollout_id]

    def add_finding(self, kind: str, text: str) -> pb.Finding:
        """Add a finding of monitoring, or of the controller."""
        sequence = len(self.findings) + 1
        at_ms = round(self._time_s() * 1000)
        self.findings.append(
            pb.Finding(sequence=sequence, model=MODEL, kind=kind, text=text, at_unix_ms=at_ms)
        )
        self.notify_watchers()
        return self.findings[-1]

    def update_worker(self, state: pb.GatewayState) -> None:
        """Update the state of one worker, or remove it when it has disconnected."""
        key = (state.gateway, state.slot, state.boot_id)
        if state.disconnected:
            self.states.pop(key, None)
        else:
            self.states[key] = state
        self.notify_watchers()

    def notify_watchers(self) -> None:
        """Wake every watcher."""
        self.changed.set()
        self.changed = asyncio.Event()
