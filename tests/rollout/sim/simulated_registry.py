"""The registry of a simulated world: in memory, with the real registry's own rules."""

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
    """One deployment as it was written, and under whose lease."""

    deployment: Deployment
    lease_token: int
    rollback: bool
    at_s: float
    production_versions: tuple[str, ...]
    """Versions of status production that are not standing by."""
    ready_workers: int
    """Live workers that had version 2 ready at that instant."""


class SimulatedRegistry:
    """Compare-and-set, gates, statuses, leases, checkpoints, presence: one instant a call.

    time_s  the world's clock.
    """

    def __init__(self, time_s: Callable[[], float], policy_digest: str) -> None:
        self._time_s = time_s
        self.facts = {
            label: VersionFacts(
                label=label,
                digest=label * 64,
                author="ann",
                status=status,
                standby=False,
                was_production=label == "1",
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
        self.states: dict[WorkerKey, pb.GatewayState] = {}
        self.checkpoints: dict[str, pb.Checkpoint] = {}
        self.writes: list[DeploymentWrite] = []
        self.findings: list[pb.Finding] = []
        self.leased_at_s: dict[int, float] = {}
        """Lease token -> when it was first had."""
        self.changed = asyncio.Event()
        """Replaced and set at each change."""
        self._holder, self._token, self._until_s = "", 0, 0.0

    def acquire_lease(self, holder: str, seconds: int, token: int) -> pb.Lease:
        """Take or renew, as registry.storage.controllers does."""
        now = self._time_s()
        if token:
            self._check_lease(token)
        elif self._until_s > now and self._holder != holder:
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
        self, wish: Deployment, actor: str, token: int, policy_digest: str, *, rollback: bool
    ) -> Deployment:
        """Write *wish* if it is made from the newest revision and every real gate holds."""
        if token:
            self._check_lease(token)
        if wish.revision != self.current.revision:
            raise RevisionConflictError(f"at {self.current.revision}, made from {wish.revision}")
        check_gates(
            Proposal(
                current=self.current,
                proposed=wish,
                versions=self.facts,
                workers=list(self.states.values()),
                approval=self.approval if wish.approval_id == self.approval.id else None,
                revoked=False,
                policy_digest=policy_digest,
                rollback=rollback,
                break_glass=False,
            )
        )
        moved = statuses_after(self.current, wish, self.facts)
        for label, (status, standby) in moved.items():
            was = self.facts[label].was_production or status == pb.PRODUCTION_STATUS
            self.facts[label] = replace(
                self.facts[label], status=status, standby=standby, was_production=was
            )
        self.current = replace(wish, revision=wish.revision + 1, who=actor)
        productions = tuple(
            one.label
            for one in self.facts.values()
            if one.status == pb.PRODUCTION_STATUS and not one.standby
        )
        ready = sum(any(one.version == "2" for one in said.loads) for said in self.states.values())
        self.writes.append(
            DeploymentWrite(self.current, token, rollback, self._time_s(), productions, ready)
        )
        self.notify_watchers()
        return self.current

    def save_checkpoint(self, checkpoint: pb.Checkpoint) -> None:
        """Keep the newest, under the lease."""
        if checkpoint.lease_token:
            self._check_lease(checkpoint.lease_token)
        stored = self.checkpoints.get(checkpoint.rollout_id)
        if stored is not None and checkpoint.sequence < stored.sequence:
            raise RevisionConflictError(f"{checkpoint.sequence} is older than {stored.sequence}")
        self.checkpoints[checkpoint.rollout_id] = checkpoint

    def load_checkpoint(self, rollout_id: str) -> pb.Checkpoint:
        """The newest."""
        if rollout_id not in self.checkpoints:
            raise NotFoundError(rollout_id)
        return self.checkpoints[rollout_id]

    def add_finding(self, kind: str, text: str) -> None:
        """Keep a finding of monitoring."""
        sequence = len(self.findings) + 1
        at_ms = round(self._time_s() * 1000)
        self.findings.append(
            pb.Finding(sequence=sequence, model=MODEL, kind=kind, text=text, at_unix_ms=at_ms)
        )
        self.notify_watchers()

    def update_worker(self, state: pb.GatewayState) -> None:
        """One worker's word; `gone` when it left."""
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
