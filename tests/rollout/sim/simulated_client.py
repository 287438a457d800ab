"""Connects the parts of a simulated world. Calls may be slow, lost, or carried out unseen."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from protos import registry_pb2 as pb
from registry.types import Deployment, ProjectRevision, RegistryUnavailableError
from tests.rollout.sim.simulated_registry import SimulatedRegistry, WorkerKey

Reply = TypeVar("Reply")

CALL_TIMEOUT_S = 1.0
"""Seconds after which a call fails when the client is disconnected."""


class SimulatedClient:
    """One controller's client of the registry, in place of registry.client.RegistryClient.

    A call that was sent is carried out even if the caller dies or is cut off before the reply. Then
    the caller does not know whether it was.
    """

    def __init__(self, registry: SimulatedRegistry, actor: str, rng: random.Random) -> None:
        self._registry = registry
        self._actor = actor
        self._rng = rng
        self.disconnected = False
        """While True, calls fail and streams break."""
        self.slow_s = 0.0
        """Seconds that each call needs more to reach the registry."""
        self.dead = False
        self.before_read: Callable[[], None] | None = None
        """Called in the instant before the deployment is read next."""
        self._sent: set[asyncio.Task[object]] = set()

    async def _call(self, work: Callable[[], Reply]) -> Reply:
        if self.dead or self.disconnected:
            await asyncio.sleep(CALL_TIMEOUT_S)
            raise RegistryUnavailableError("not reached")
        there = self._rng.uniform(0.001, 0.02) + self.slow_s
        sent = asyncio.ensure_future(self._execute_after(work, there))
        self._sent.add(sent)
        sent.add_done_callback(self._call_done)
        reply = await asyncio.shield(sent)
        await asyncio.sleep(self._rng.uniform(0.001, 0.02))
        if self.disconnected or self.dead:
            raise RegistryUnavailableError("the reply was lost")
        return reply

    def _call_done(self, sent: asyncio.Task[object]) -> None:
        self._sent.discard(sent)
        if not sent.cancelled():
            sent.exception()  # the caller may be gone, so the error is read here

    @staticmethod
    async def _execute_after(work: Callable[[], Reply], there_s: float) -> Reply:
        await asyncio.sleep(there_s)
        return work()

    async def list_projects(self) -> list[ProjectRevision]:
        """Return no project."""
        none: list[ProjectRevision] = []
        return await self._call(lambda: none)

    async def list_models(self) -> list[pb.ModelSummary]:
        """Return the one model."""
        return await self._call(lambda: [pb.ModelSummary(model=self._registry.current.model)])

    async def deployment(self, model: str) -> Deployment:
        """Return the newest deployment."""
        del model
        return await self._call(self._read)

    def _read(self) -> Deployment:
        before, self.before_read = self.before_read, None
        if before is not None:
            before()
        return self._registry.current

    async def deploy(
        self,
        deployment: Deployment,
        *,
        lease_token: int = 0,
        policy_digest: str = "",
        rollback: bool = False,
        finding: int = 0,
    ) -> Deployment:
        """Write *deployment* if its revision is still the newest."""
        del finding  # the real registry checks it; walks do that
        return await self._call(
            lambda: self._registry.deploy(
                deployment, self._actor, lease_token, policy_digest, rollback=rollback
            )
        )

    async def get_version(self, model: str, version: str) -> pb.Version:
        """Return the fields of a version that rollouts read."""
        facts = self._registry.facts[version]
        return await self._call(
            lambda: pb.Version(model=model, label=version, author="ann", digest=facts.digest)
        )

    async def approvals(self, model: str, version: str) -> list[pb.Approval]:
        """Return the one approval."""
        del model
        known = self._registry.approval
        return await self._call(lambda: [known] if known.version == version else [])

    async def acquire_lease(self, name: str, holder: str, seconds: int, token: int = 0) -> pb.Lease:
        """Get or renew the lease."""
        del name
        return await self._call(lambda: self._registry.acquire_lease(holder, seconds, token))

    async def save_checkpoint(self, checkpoint: pb.Checkpoint) -> None:
        """Save a checkpoint."""
        await self._call(lambda: self._registry.save_checkpoint(checkpoint))

    async def load_checkpoint(self, rollout_id: str) -> pb.Checkpoint:
        """Return the newest checkpoint."""
        return await self._call(lambda: self._registry.load_checkpoint(rollout_id))

    async def watch_deployments(self) -> AsyncIterator[pb.DeploymentEvent]:
        """Yield each newer revision while the client is connected."""
        sent_revision = 0
        while True:
            changed = self._check()
            current = self._registry.current
            if current.revision > sent_revision:
                sent_revision = current.revision
                signed = pb.SignedDeployment(content=current.to_proto().SerializeToString())
                yield pb.DeploymentEvent(deployments=[signed])
            await self._wait_for_change(changed)

    async def watch_states(self) -> AsyncIterator[pb.GatewayState]:
        """Yield the states of workers, and disconnections, while the client is connected."""
        sent_states: dict[WorkerKey, pb.GatewayState] = {}
        while True:
            changed = self._check()
            states = self._registry.states
            for key, state in list(states.items()):
                if sent_states.get(key) is not state:
                    sent_states[key] = state
                    yield state
            for key in [known for known in sent_states if known not in states]:
                del sent_states[key]
                gateway, slot, boot_id = key
                yield pb.GatewayState(
                    gateway=gateway, slot=slot, boot_id=boot_id, disconnected=True
                )
            await self._wait_for_change(changed)

    async def findings(self, after: int = 0) -> AsyncIterator[pb.Finding]:
        """Yield the findings after *after*."""
        for finding in await self._call(lambda: self._registry.findings[after:]):
            yield finding

    async def watch_findings(self, after: int = 0) -> AsyncIterator[pb.Finding]:
        """Yield each finding newer than *after* while the client is connected."""
        while True:
            changed = self._check()
            for finding in self._registry.findings[after:]:
                after = finding.sequence
                yield finding
            await self._wait_for_change(changed)

    async def write_finding(self, finding: pb.Finding) -> pb.Finding:
        """Write what another finding led to."""
        return await self._call(lambda: self._registry.add_finding(finding.kind, finding.text))

    def _check(self) -> asyncio.Event:
        """Return the event of the next change. It is read before the state, so none is missed."""
        if self.disconnected or self.dead:
            raise RegistryUnavailableError("the stream broke")
        return self._registry.changed

    async def _wait_for_change(self, changed: asyncio.Event) -> None:
        await changed.wait()
        await asyncio.sleep(self._rng.uniform(0.001, 0.02))
