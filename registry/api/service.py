"""The registry's RPCs: read the request, ask the store in a thread, tell whoever watches."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from protos import registry_pb2 as pb
from registry.api.access import CONTROLLER, GATEWAY, OPERATOR, Identity
from registry.api.presence import Presence, Seen
from registry.bundle import Bundle, golden_test, load, verify
from registry.client import REGISTER_S, chunks
from registry.manifest import FILES_MAX, SIGNATURE, TOTAL_BYTES_MAX
from registry.storage.deployments import Wish
from registry.storage.store import Store
from registry.types import (
    BadRequestError,
    Deployment,
    NotAllowedError,
    RegistryFullError,
    RegistryUnavailableError,
)

CHUNK_BYTES_MAX = 2**20
REGISTERING_MAX = 2
STATES_LOOK_S = 1.0
"""How often a watcher of states looks for workers that fell silent: nothing rings then."""
REPORT_VERSIONS_MAX = 1_000


class Bell:
    """Wakes everybody who waits. Whoever takes `next` before looking misses nothing."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Set at the next ring."""
        return self._event

    def ring(self) -> None:
        """Wake all, and begin anew."""
        self._event.set()
        self._event = asyncio.Event()


class RegistryService:
    """One method an RPC, named as in protos/registry.proto; rpc.py calls them.

    Watchers hold no queue: each is told the newest it has not seen, so a slow one costs nothing
    and skips what was replaced meanwhile.
    """

    def __init__(
        self,
        store: Store,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._presence = Presence(monotonic_s)
        self._deployed = {d.model: d for d in store.every_deployment()}
        self._deployment_bell = Bell()
        self._state_bell = Bell()
        self._finding_bell = Bell()
        self._closing = False
        self._registering = asyncio.Semaphore(REGISTERING_MAX)

    def close(self) -> None:
        """End every watch, so that a stopping server waits for nobody."""
        self._closing = True
        for bell in (self._deployment_bell, self._state_bell, self._finding_bell):
            bell.ring()

    # Versions

    async def RegisterVersion(  # noqa: N802  RPCs are named as in the .proto file
        self, asked: AsyncIterator[pb.VersionChunk], who: Identity
    ) -> pb.Version:
        """Prove, load and golden-test what was sent; then sign and keep it."""
        try:
            # A few at a time: their bytes are memory, and their threads a rollback may wait for.
            async with asyncio.timeout(REGISTER_S), self._registering:
                model, files = await _collect(asked)
                bundle = await asyncio.to_thread(_prove, model, files, who.actor)
                return await asyncio.to_thread(self._store.register, who.actor, bundle, files)
        except TimeoutError as error:
            raise RegistryUnavailableError(
                f"the version was not here within {REGISTER_S:g} s; send it again"
            ) from error

    async def ListModels(  # noqa: N802
        self, _asked: pb.ListModelsRequest, _who: Identity
    ) -> pb.ListModelsReply:
        """Every model."""
        return pb.ListModelsReply(models=await asyncio.to_thread(self._store.list_models))

    async def ListVersions(  # noqa: N802
        self, asked: pb.ListVersionsRequest, _who: Identity
    ) -> pb.ListVersionsReply:
        """A model's versions."""
        found = await asyncio.to_thread(self._store.list_versions, asked.model)
        return pb.ListVersionsReply(versions=found)

    async def GetVersion(self, asked: pb.VersionName, _who: Identity) -> pb.Version:  # noqa: N802
        """One version."""
        return await asyncio.to_thread(self._store.get_version, asked.model, asked.version)

    async def FetchVersion(  # noqa: N802
        self, asked: pb.VersionName, _who: Identity
    ) -> AsyncIterator[pb.VersionChunk]:
        """A version's files, proved before the first byte leaves."""
        files = await asyncio.to_thread(self._store.fetch, asked.model, asked.version)
        for chunk in chunks(asked.model, files):
            yield chunk

    async def SetStatus(self, asked: pb.SetStatusRequest, who: Identity) -> pb.Version:  # noqa: N802
        """Move a version by hand."""
        return await asyncio.to_thread(self._store.set_status, who.actor, asked)

    # Approvals

    async def Approve(self, asked: pb.ApproveRequest, who: Identity) -> pb.Approval:  # noqa: N802
        """Allow or reject."""
        return await asyncio.to_thread(self._store.approve, who.actor, asked)

    async def ListApprovals(  # noqa: N802
        self, asked: pb.VersionName, _who: Identity
    ) -> pb.ListApprovalsReply:
        """A version's approvals."""
        found = await asyncio.to_thread(self._store.list_approvals, asked.model, asked.version)
        return pb.ListApprovalsReply(approvals=found)

    # Deployments

    async def GetDeployment(self, asked: pb.ModelName, _who: Identity) -> pb.Deployment:  # noqa: N802
        """What is deployed."""
        return (await asyncio.to_thread(self._store.deployment, asked.model)).to_proto()

    async def Deploy(self, asked: pb.DeployRequest, who: Identity) -> pb.Deployment:  # noqa: N802
        """Compare and set; then every watcher is told at once."""
        if asked.break_glass and OPERATOR not in who.roles:
            raise NotAllowedError(f"only an operator breaks the glass; {who.actor!r} is not one")
        wish = Wish(
            deployment=Deployment.from_proto(asked.deployment),
            lease_token=asked.lease_token,
            policy_digest=asked.rollout_policy_digest,
            rollback=asked.rollback,
            break_glass=asked.break_glass,
        )
        loop, workers = asyncio.get_running_loop(), self._presence.live()

        def deploy() -> Deployment:
            written = self._store.deploy(who.actor, wish, workers)
            # From the thread: a caller who hangs up must not keep the news from the watchers.
            loop.call_soon_threadsafe(self._publish, written)
            return written

        return (await asyncio.to_thread(deploy)).to_proto()

    def _publish(self, written: Deployment) -> None:
        # Threads may come back out of order; the revision says which is newer.
        known = self._deployed.get(written.model)
        if known is None or known.revision < written.revision:
            self._deployed[written.model] = written
        self._deployment_bell.ring()

    async def WatchDeployments(  # noqa: N802
        self, asked: pb.WatchDeploymentsRequest, who: Identity
    ) -> AsyncIterator[pb.DeploymentEvent]:
        """Keys and everything newer than held first; then each change. A gateway counts as live."""
        keys = pb.ServingKeys(version_public_key=self._store.keys.version_public_key)
        if who.roles & {GATEWAY, CONTROLLER, OPERATOR}:
            keys.CopyFrom(self._store.keys)
        worker = (asked.gateway, asked.slot, asked.boot_id)
        held = dict(asked.held)
        if asked.gateway:
            self._presence.opened(worker)
            self._state_bell.ring()
        try:
            rung = self._deployment_bell.next
            yield pb.DeploymentEvent(
                deployments=self._newer_than(held), snapshot_end=True, keys=keys
            )
            while True:
                await rung.wait()
                self._end_when_closing()
                rung = self._deployment_bell.next
                newer = self._newer_than(held)
                if newer:
                    yield pb.DeploymentEvent(deployments=newer)
        finally:
            if asked.gateway:
                self._presence.closed(worker)
                self._state_bell.ring()

    def _newer_than(self, held: dict[str, int]) -> list[pb.Deployment]:
        newer = [d for d in self._deployed.values() if d.revision > held.get(d.model, 0)]
        held.update({d.model: d.revision for d in newer})
        return [d.to_proto() for d in newer]

    # Gateways

    async def ReportState(self, asked: pb.GatewayState, _who: Identity) -> pb.Empty:  # noqa: N802
        """Keep a worker's newest word."""
        if not 0 < len(asked.gateway) <= 128 or len(asked.held) > REPORT_VERSIONS_MAX:
            raise BadRequestError(
                f"a state of gateway {asked.gateway[:80]!r} with {len(asked.held)} versions; it "
                f"needs a name of 1 to 128 characters and at most {REPORT_VERSIONS_MAX} versions"
            )
        self._presence.report(asked)
        self._state_bell.ring()
        return pb.Empty()

    async def WatchStates(  # noqa: N802
        self, _asked: pb.WatchStatesRequest, _who: Identity
    ) -> AsyncIterator[pb.GatewayState]:
        """Each live worker's newest word, then each new one."""
        seen = Seen()
        while True:
            rung = self._state_bell.next
            for state in self._presence.news(seen):
                yield state
            try:
                async with asyncio.timeout(STATES_LOOK_S):
                    await rung.wait()
            except TimeoutError:
                continue
            self._end_when_closing()

    # Controllers

    async def AcquireLease(self, asked: pb.LeaseRequest, who: Identity) -> pb.Lease:  # noqa: N802
        """Take or renew."""
        return await asyncio.to_thread(self._store.acquire_lease, who.actor, asked)

    async def SaveCheckpoint(self, asked: pb.Checkpoint, who: Identity) -> pb.Empty:  # noqa: N802
        """Keep a controller's memory."""
        await asyncio.to_thread(self._store.save_checkpoint, who.actor, asked)
        return pb.Empty()

    async def LoadCheckpoint(self, asked: pb.CheckpointName, _who: Identity) -> pb.Checkpoint:  # noqa: N802
        """A controller's memory."""
        return await asyncio.to_thread(self._store.load_checkpoint, asked.rollout_id)

    async def WriteFinding(self, asked: pb.Finding, who: Identity) -> pb.Finding:  # noqa: N802
        """Keep a finding, and tell."""
        loop = asyncio.get_running_loop()

        def write() -> pb.Finding:
            written = self._store.write_finding(who.actor, asked)
            loop.call_soon_threadsafe(self._finding_bell.ring)
            return written

        return await asyncio.to_thread(write)

    async def WatchFindings(  # noqa: N802
        self, asked: pb.WatchFindingsRequest, _who: Identity
    ) -> AsyncIterator[pb.Finding]:
        """Findings newer than asked, then each new one, unless not wanted; none is skipped."""
        after = asked.after
        while True:
            rung = self._finding_bell.next
            found = await asyncio.to_thread(self._store.findings_after, after)
            for finding in found:
                after = finding.sequence
                yield finding
            if not found and asked.those_there_are:
                return
            if not found:
                await rung.wait()
                self._end_when_closing()

    # History

    async def ListHistory(  # noqa: N802
        self, asked: pb.ListHistoryRequest, _who: Identity
    ) -> pb.ListHistoryReply:
        """Entries and the signed head."""
        return await asyncio.to_thread(
            self._store.history, after=asked.after, limit=asked.limit, about=asked.object
        )

    async def WhoAmI(self, _asked: pb.WhoAmIRequest, who: Identity) -> pb.Caller:  # noqa: N802
        """Name and roles, as the metadata says or proves them."""
        return pb.Caller(actor=who.actor, roles=sorted(who.roles))

    def _end_when_closing(self) -> None:
        if self._closing:
            raise RegistryUnavailableError("the registry is stopping; connect again")


async def _collect(asked: AsyncIterator[pb.VersionChunk]) -> tuple[str, dict[str, bytes]]:
    """Join the chunks into (model, files), never holding more than a version may have."""
    model, name, size = "", "", 0
    parts: dict[str, list[bytes]] = {}
    async for chunk in asked:
        model = model or chunk.model
        if chunk.file != name and chunk.file in parts:
            raise BadRequestError(f"file {chunk.file[:80]!r} came in two parts; send files whole")
        name = chunk.file
        size += len(chunk.content)
        parts.setdefault(name, []).append(chunk.content)
        if size > TOTAL_BYTES_MAX or len(parts) > FILES_MAX or len(chunk.content) > CHUNK_BYTES_MAX:
            raise RegistryFullError(
                f"{len(parts)} files, {size} bytes so far, {len(chunk.content)} in one chunk; a "
                f"version has at most {FILES_MAX} files and {TOTAL_BYTES_MAX} bytes, a chunk "
                f"{CHUNK_BYTES_MAX}"
            )
    return model, {name: b"".join(contents) for name, contents in parts.items()}


def _prove(model: str, files: dict[str, bytes], actor: str) -> Bundle:
    """Everything a gateway will check but the signature, which comes after."""
    if SIGNATURE in files:
        raise BadRequestError(f"{SIGNATURE} is the registry's to write; leave it out")
    bundle = verify(files, trusted_key=None)
    if bundle.model != model:
        raise BadRequestError(
            f"the manifest is of model {bundle.model!r}, and it was sent as {model[:80]!r}"
        )
    if bundle.author != actor:
        raise BadRequestError(
            f"the manifest names {bundle.author!r} as author, and {actor!r} sent it; an author "
            "registers his or her own versions, so that four eyes mean two people"
        )
    golden_test(bundle, load(bundle))
    return bundle
