"""The registry's RPCs: read the request, ask the store in a thread, tell whoever watches."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from protos import registry_pb2 as pb
from registry.api.access import CONTROLLER, GATEWAY, OPERATOR, Identity
from registry.api.presence import Presence, WatcherPosition
from registry.bundle import Bundle, golden_test, load_session, verify_bundle
from registry.client import REGISTER_S, chunks
from registry.manifest import FILES_MAX, SIGNATURE, TOTAL_BYTES_MAX
from registry.storage.deployments import DeployCommand
from registry.storage.store import RegistryStore
from registry.types import (
    BadRequestError,
    Deployment,
    NotAllowedError,
    RegistryFullError,
    RegistryUnavailableError,
)

CHUNK_BYTES_MAX = 2**20
REGISTRATIONS_MAX = 2
STATES_POLL_S = 1.0
"""How often a watcher of states looks for workers that fell silent: nothing rings then."""
REPORT_VERSIONS_MAX = 1_000


class ChangeNotifier:
    """Wakes everybody who waits. Whoever takes `next` before looking misses nothing."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def next_change(self) -> asyncio.Event:
        """Set at the next ring."""
        return self._event

    def notify_all(self) -> None:
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
        store: RegistryStore,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._presence = Presence(monotonic_s)
        self._deployed = {d.model: d for d in store.list_deployments()}
        self._deployment_changes = ChangeNotifier()
        self._state_changes = ChangeNotifier()
        self._finding_changes = ChangeNotifier()
        self._closing = False
        self._registering = asyncio.Semaphore(REGISTRATIONS_MAX)

    def close(self) -> None:
        """End every watch, so that a stopping server waits for nobody."""
        self._closing = True
        for bell in (self._deployment_changes, self._state_changes, self._finding_changes):
            bell.notify_all()

    # Versions

    async def RegisterVersion(  # noqa: N802  RPCs are named as in the .proto file
        self, request: AsyncIterator[pb.VersionChunk], identity: Identity
    ) -> pb.Version:
        """Prove, load and golden-test what was sent; then sign and keep it."""
        try:
            # A few at a time: their bytes are memory, and their threads a rollback may wait for.
            async with asyncio.timeout(REGISTER_S), self._registering:
                model, files = await _join_chunks(request)
                bundle = await asyncio.to_thread(_prove_version, model, files, identity.actor)
                return await asyncio.to_thread(self._store.register, identity.actor, bundle, files)
        except TimeoutError as error:
            raise RegistryUnavailableError(
                f"the version was not here within {REGISTER_S:g} s; send it again"
            ) from error

    async def ListModels(  # noqa: N802
        self, _request: pb.ListModelsRequest, _identity: Identity
    ) -> pb.ListModelsReply:
        """Every model."""
        return pb.ListModelsReply(models=await asyncio.to_thread(self._store.list_models))

    async def ListVersions(  # noqa: N802
        self, request: pb.ListVersionsRequest, _identity: Identity
    ) -> pb.ListVersionsReply:
        """A model's versions."""
        found = await asyncio.to_thread(self._store.list_versions, request.model)
        return pb.ListVersionsReply(versions=found)

    async def GetVersion(self, request: pb.VersionName, _identity: Identity) -> pb.Version:  # noqa: N802
        """One version."""
        return await asyncio.to_thread(self._store.get_version, request.model, request.version)

    async def FetchVersion(  # noqa: N802
        self, request: pb.VersionName, _identity: Identity
    ) -> AsyncIterator[pb.VersionChunk]:
        """A version's files, proved before the first byte leaves."""
        files = await asyncio.to_thread(self._store.fetch, request.model, request.version)
        for chunk in chunks(request.model, files):
            yield chunk

    async def SetStatus(self, request: pb.SetStatusRequest, identity: Identity) -> pb.Version:  # noqa: N802
        """Move a version by hand."""
        return await asyncio.to_thread(self._store.set_status, identity.actor, request)

    # Approvals

    async def Approve(self, request: pb.ApproveRequest, identity: Identity) -> pb.Approval:  # noqa: N802
        """Allow or reject."""
        return await asyncio.to_thread(self._store.approve, identity.actor, request)

    async def ListApprovals(  # noqa: N802
        self, request: pb.VersionName, _identity: Identity
    ) -> pb.ListApprovalsReply:
        """A version's approvals."""
        found = await asyncio.to_thread(self._store.list_approvals, request.model, request.version)
        return pb.ListApprovalsReply(approvals=found)

    # Deployments

    async def GetDeployment(self, request: pb.ModelName, _identity: Identity) -> pb.Deployment:  # noqa: N802
        """What is deployed."""
        return (await asyncio.to_thread(self._store.deployment, request.model)).to_proto()

    async def Deploy(self, request: pb.DeployRequest, identity: Identity) -> pb.Deployment:  # noqa: N802
        """Compare and set; then every watcher is told at once."""
        if request.break_glass and OPERATOR not in identity.roles:
            raise NotAllowedError(
                f"only an operator breaks the glass; {identity.actor!r} is not one"
            )
        wish = DeployCommand(
            deployment=Deployment.from_proto(request.deployment),
            lease_token=request.lease_token,
            policy_digest=request.rollout_policy_digest,
            rollback=request.rollback,
            break_glass=request.break_glass,
        )
        loop, workers = asyncio.get_running_loop(), self._presence.live_states()

        def deploy() -> Deployment:
            written = self._store.deploy(identity.actor, wish, workers)
            # From the thread: a caller who hangs up must not keep the news from the watchers.
            loop.call_soon_threadsafe(self._publish, written)
            return written

        return (await asyncio.to_thread(deploy)).to_proto()

    def _publish(self, written: Deployment) -> None:
        # Threads may come back out of order; the revision says which is newer.
        known = self._deployed.get(written.model)
        if known is None or known.revision < written.revision:
            self._deployed[written.model] = written
        self._deployment_changes.notify_all()

    async def WatchDeployments(  # noqa: N802
        self, request: pb.WatchDeploymentsRequest, identity: Identity
    ) -> AsyncIterator[pb.DeploymentEvent]:
        """Keys and everything newer than held first; then each change. A gateway counts as live."""
        keys = pb.ServingKeys(version_public_key=self._store.keys.version_public_key)
        if identity.roles & {GATEWAY, CONTROLLER, OPERATOR}:
            keys.CopyFrom(self._store.keys)
        worker = (request.gateway, request.slot, request.boot_id)
        held = dict(request.known_revisions)
        if request.gateway:
            self._presence.stream_opened(worker)
            self._state_changes.notify_all()
        try:
            rung = self._deployment_changes.next_change
            yield pb.DeploymentEvent(
                deployments=self._deployments_newer_than(held), snapshot_end=True, keys=keys
            )
            while True:
                await rung.wait()
                self._end_when_closing()
                rung = self._deployment_changes.next_change
                newer = self._deployments_newer_than(held)
                if newer:
                    yield pb.DeploymentEvent(deployments=newer)
        finally:
            if request.gateway:
                self._presence.stream_closed(worker)
                self._state_changes.notify_all()

    def _deployments_newer_than(self, known_revisions: dict[str, int]) -> list[pb.Deployment]:
        newer = [d for d in self._deployed.values() if d.revision > known_revisions.get(d.model, 0)]
        known_revisions.update({d.model: d.revision for d in newer})
        return [d.to_proto() for d in newer]

    # Gateways

    async def ReportState(self, request: pb.GatewayState, _identity: Identity) -> pb.Empty:  # noqa: N802
        """Keep a worker's newest word."""
        if not 0 < len(request.gateway) <= 128 or len(request.loads) > REPORT_VERSIONS_MAX:
            raise BadRequestError(
                f"a state of gateway {request.gateway[:80]!r} with {len(request.loads)} "
                "versions; it "
                f"needs a name of 1 to 128 characters and at most {REPORT_VERSIONS_MAX} versions"
            )
        self._presence.record_state(request)
        self._state_changes.notify_all()
        return pb.Empty()

    async def WatchStates(  # noqa: N802
        self, _request: pb.WatchStatesRequest, _identity: Identity
    ) -> AsyncIterator[pb.GatewayState]:
        """Each live worker's newest word, then each new one."""
        seen = WatcherPosition()
        while True:
            rung = self._state_changes.next_change
            for state in self._presence.changes_since(seen):
                yield state
            try:
                async with asyncio.timeout(STATES_POLL_S):
                    await rung.wait()
            except TimeoutError:
                continue
            self._end_when_closing()

    # Controllers

    async def AcquireLease(self, request: pb.LeaseRequest, identity: Identity) -> pb.Lease:  # noqa: N802
        """Take or renew."""
        return await asyncio.to_thread(self._store.acquire_lease, identity.actor, request)

    async def SaveCheckpoint(self, request: pb.Checkpoint, identity: Identity) -> pb.Empty:  # noqa: N802
        """Keep a controller's memory."""
        await asyncio.to_thread(self._store.save_checkpoint, identity.actor, request)
        return pb.Empty()

    async def LoadCheckpoint(  # noqa: N802
        self, request: pb.CheckpointName, _identity: Identity
    ) -> pb.Checkpoint:
        """A controller's memory."""
        return await asyncio.to_thread(self._store.load_checkpoint, request.rollout_id)

    async def WriteFinding(self, request: pb.Finding, identity: Identity) -> pb.Finding:  # noqa: N802
        """Keep a finding, and tell."""
        loop = asyncio.get_running_loop()

        def write() -> pb.Finding:
            written = self._store.write_finding(identity.actor, request)
            loop.call_soon_threadsafe(self._finding_changes.notify_all)
            return written

        return await asyncio.to_thread(write)

    async def WatchFindings(  # noqa: N802
        self, request: pb.WatchFindingsRequest, _identity: Identity
    ) -> AsyncIterator[pb.Finding]:
        """Findings newer than asked, then each new one, unless not wanted; none is skipped."""
        after = request.after
        while True:
            rung = self._finding_changes.next_change
            found = await asyncio.to_thread(self._store.findings_after, after)
            for finding in found:
                after = finding.sequence
                yield finding
            if not found and request.those_there_are:
                return
            if not found:
                await rung.wait()
                self._end_when_closing()

    # History

    async def ListHistory(  # noqa: N802
        self, request: pb.ListHistoryRequest, _identity: Identity
    ) -> pb.ListHistoryReply:
        """Entries and the signed head."""
        return await asyncio.to_thread(
            self._store.history,
            after=request.after,
            limit=request.limit,
            object_prefix=request.object,
        )

    async def WhoAmI(self, _request: pb.WhoAmIRequest, identity: Identity) -> pb.Caller:  # noqa: N802
        """Name and roles, as the metadata says or proves them."""
        return pb.Caller(actor=identity.actor, roles=sorted(identity.roles))

    def _end_when_closing(self) -> None:
        if self._closing:
            raise RegistryUnavailableError("the registry is stopping; connect again")


async def _join_chunks(chunks: AsyncIterator[pb.VersionChunk]) -> tuple[str, dict[str, bytes]]:
    """Join the chunks into (model, files), never holding more than a version may have."""
    model, name, size = "", "", 0
    parts: dict[str, list[bytes]] = {}
    async for chunk in chunks:
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


def _prove_version(model: str, files: dict[str, bytes], actor: str) -> Bundle:
    """Everything a gateway will check but the signature, which comes after."""
    if SIGNATURE in files:
        raise BadRequestError(f"{SIGNATURE} is the registry's to write; leave it out")
    bundle = verify_bundle(files, trusted_key=None)
    if bundle.model != model:
        raise BadRequestError(
            f"the manifest is of model {bundle.model!r}, and it was sent as {model[:80]!r}"
        )
    if bundle.author != actor:
        raise BadRequestError(
            f"the manifest names {bundle.author!r} as author, and {actor!r} sent it; an author "
            "registers his or her own versions, so that four eyes mean two people"
        )
    golden_test(bundle, load_session(bundle))
    return bundle
