"""The registry's RPC methods. Each reads its request and calls the store in a thread.

Changes then wake the watch streams.
"""

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
"""How often a watch of states looks for workers that stopped reporting, which wakes no watch."""
REPORT_VERSIONS_MAX = 1_000
OLDER_ENTRIES_PAUSE_S = 0.05
"""Pause between two blocks of 1,000 history entries that are verified after the start."""
END = object()


class ChangeNotifier:
    """Wakes all tasks that wait for a change.

    A task must take `next_change` before it reads the state. Then it misses no change.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def next_change(self) -> asyncio.Event:
        """An event that is set at the next change."""
        return self._event

    def notify_all(self) -> None:
        """Wake every waiting task, and make the event of the next change."""
        self._event.set()
        self._event = asyncio.Event()


class RegistryService:
    """The RPC methods, named as in protos/registry.proto. rpc.py calls them.

    Watch streams have no queue. Each stream sends the newest state that it has not sent, so a slow
    watcher costs no memory, and skips states that were replaced meanwhile.
    """

    def __init__(
        self,
        store: RegistryStore,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._presence = Presence(monotonic_s)
        self._deployed = {deployment.model: deployment for deployment in store.list_deployments()}
        self._deployment_changes = ChangeNotifier()
        self._state_changes = ChangeNotifier()
        self._finding_changes = ChangeNotifier()
        self._closing = False
        self._registering = asyncio.Semaphore(REGISTRATIONS_MAX)
        self._proving = asyncio.Lock()

    def close(self) -> None:
        """End every watch stream, because a stopping server would wait for them."""
        self._closing = True
        for changes in (self._deployment_changes, self._state_changes, self._finding_changes):
            changes.notify_all()

    # Versions

    async def RegisterVersion(  # noqa: N802  RPCs are named as in the .proto file
        self, request: AsyncIterator[pb.VersionChunk], identity: Identity
    ) -> pb.Version:
        """Verify, load and golden-test the files that were sent, then sign and store them."""
        try:
            # Few at a time, because they take memory, and threads that a rollback may need.
            async with asyncio.timeout(REGISTER_S), self._registering:
                model, files = await _join_chunks(request)
                bundle = await asyncio.to_thread(_prove_version, model, files, identity.actor)
                return await asyncio.to_thread(self._store.register, identity.actor, bundle, files)
        except TimeoutError as error:
            raise RegistryUnavailableError(
                f"the registration took more than {REGISTER_S:g} s; send the version again"
            ) from error

    async def ListModels(  # noqa: N802
        self, _request: pb.ListModelsRequest, _identity: Identity
    ) -> pb.ListModelsReply:
        """Return every model that has a version."""
        return pb.ListModelsReply(models=await asyncio.to_thread(self._store.list_models))

    async def ListVersions(  # noqa: N802
        self, request: pb.ListVersionsRequest, _identity: Identity
    ) -> pb.ListVersionsReply:
        """Return the versions of a model."""
        versions = await asyncio.to_thread(self._store.list_versions, request.model)
        return pb.ListVersionsReply(versions=versions)

    async def GetVersion(self, request: pb.VersionName, _identity: Identity) -> pb.Version:  # noqa: N802
        """Return a version by label or id."""
        return await asyncio.to_thread(self._store.get_version, request.model, request.version)

    async def FetchVersion(  # noqa: N802
        self, request: pb.VersionName, _identity: Identity
    ) -> AsyncIterator[pb.VersionChunk]:
        """Yield a version's files, after they are verified again."""
        files = await asyncio.to_thread(self._store.fetch, request.model, request.version)
        for chunk in chunks(request.model, files):
            yield chunk

    async def SetStatus(self, request: pb.SetStatusRequest, identity: Identity) -> pb.Version:  # noqa: N802
        """Move a version to another status, if a person may do that."""
        return await asyncio.to_thread(self._store.set_status, identity.actor, request)

    # Approvals

    async def Approve(self, request: pb.ApproveRequest, identity: Identity) -> pb.Approval:  # noqa: N802
        """Write an approval or a rejection."""
        return await asyncio.to_thread(self._store.approve, identity.actor, request)

    async def ListApprovals(  # noqa: N802
        self, request: pb.VersionName, _identity: Identity
    ) -> pb.ListApprovalsReply:
        """Return the approvals and rejections of a version."""
        approvals = await asyncio.to_thread(
            self._store.list_approvals, request.model, request.version
        )
        return pb.ListApprovalsReply(approvals=approvals)

    # Deployments

    async def GetDeployment(self, request: pb.ModelName, _identity: Identity) -> pb.Deployment:  # noqa: N802
        """Return the deployment of a model."""
        return (await asyncio.to_thread(self._store.deployment, request.model)).to_proto()

    async def Deploy(self, request: pb.DeployRequest, identity: Identity) -> pb.Deployment:  # noqa: N802
        """Write a deployment by compare-and-set, then wake every watch stream."""
        if request.break_glass and OPERATOR not in identity.roles:
            raise NotAllowedError(
                f"only an operator breaks the glass; {identity.actor!r} does not have that role"
            )
        command = DeployCommand(
            deployment=Deployment.from_proto(request.deployment),
            lease_token=request.lease_token,
            policy_digest=request.rollout_policy_digest,
            rollback=request.rollback,
            break_glass=request.break_glass,
        )
        loop, workers = asyncio.get_running_loop(), self._presence.live_states()

        def deploy() -> Deployment:
            deployment = self._store.deploy(identity.actor, command, workers)
            # Publish from this thread: the watchers must learn of it even if the call is cancelled.
            loop.call_soon_threadsafe(self._publish, deployment)
            return deployment

        return (await asyncio.to_thread(deploy)).to_proto()

    def _publish(self, deployment: Deployment) -> None:
        # Threads may finish out of order, so an older revision may come after a newer one.
        known = self._deployed.get(deployment.model)
        if known is None or known.revision < deployment.revision:
            self._deployed[deployment.model] = deployment
        self._deployment_changes.notify_all()

    async def WatchDeployments(  # noqa: N802
        self, request: pb.WatchDeploymentsRequest, identity: Identity
    ) -> AsyncIterator[pb.DeploymentEvent]:
        """Yield the keys and all deployments that the caller does not know, then each change.

        A gateway worker counts as live while this stream is open.
        """
        # The key of prediction ids is a secret for the roles that need it.
        keys = pb.ServingKeys(version_public_key=self._store.keys.version_public_key)
        if identity.roles & {GATEWAY, CONTROLLER, OPERATOR}:
            keys.CopyFrom(self._store.keys)
        worker = (request.gateway, request.slot, request.boot_id)
        known_revisions = dict(request.known_revisions)
        if request.gateway:
            self._presence.stream_opened(worker)
            self._state_changes.notify_all()
        try:
            # The first event is the snapshot, also if it is empty.
            change = self._deployment_changes.next_change
            yield pb.DeploymentEvent(
                deployments=self._deployments_newer_than(known_revisions),
                snapshot_end=True,
                keys=keys,
            )
            # Then one event for each change.
            while True:
                await change.wait()
                self._end_when_closing()
                change = self._deployment_changes.next_change
                newer = self._deployments_newer_than(known_revisions)
                if newer:
                    yield pb.DeploymentEvent(deployments=newer)
        finally:
            if request.gateway:
                self._presence.stream_closed(worker)
                self._state_changes.notify_all()

    def _deployments_newer_than(self, known_revisions: dict[str, int]) -> list[pb.Deployment]:
        """Return the deployments that are newer, and enter them in *known_revisions*."""
        newer = [
            deployment
            for deployment in self._deployed.values()
            if deployment.revision > known_revisions.get(deployment.model, 0)
        ]
        known_revisions.update({deployment.model: deployment.revision for deployment in newer})
        return [deployment.to_proto() for deployment in newer]

    # Gateways

    async def ReportState(self, request: pb.GatewayState, _identity: Identity) -> pb.Empty:  # noqa: N802
        """Keep the newest state of a worker."""
        if not 0 < len(request.gateway) <= 128 or len(request.loads) > REPORT_VERSIONS_MAX:
            raise BadRequestError(
                f"the state of gateway {request.gateway[:80]!r} has {len(request.loads)} versions; "
                "a state needs a gateway name of 1 to 128 characters and at most "
                f"{REPORT_VERSIONS_MAX} versions"
            )
        self._presence.record_state(request)
        self._state_changes.notify_all()
        return pb.Empty()

    async def WatchStates(  # noqa: N802
        self, _request: pb.WatchStatesRequest, _identity: Identity
    ) -> AsyncIterator[pb.GatewayState]:
        """Yield the newest state of each live worker, then each new state."""
        position = WatcherPosition()
        while True:
            change = self._state_changes.next_change
            for state in self._presence.changes_since(position):
                yield state
            try:
                async with asyncio.timeout(STATES_POLL_S):
                    await change.wait()
            except TimeoutError:
                continue
            self._end_when_closing()

    # Controllers

    async def AcquireLease(self, request: pb.LeaseRequest, identity: Identity) -> pb.Lease:  # noqa: N802
        """Take or renew a lease."""
        return await asyncio.to_thread(self._store.acquire_lease, identity.actor, request)

    async def SaveCheckpoint(self, request: pb.Checkpoint, identity: Identity) -> pb.Empty:  # noqa: N802
        """Store the newest checkpoint of a rollout."""
        await asyncio.to_thread(self._store.save_checkpoint, identity.actor, request)
        return pb.Empty()

    async def LoadCheckpoint(  # noqa: N802
        self, request: pb.CheckpointName, _identity: Identity
    ) -> pb.Checkpoint:
        """Return the newest checkpoint of a rollout."""
        return await asyncio.to_thread(self._store.load_checkpoint, request.rollout_id)

    async def WriteFinding(self, request: pb.Finding, identity: Identity) -> pb.Finding:  # noqa: N802
        """Write a finding and wake the watches of findings."""
        loop = asyncio.get_running_loop()

        def write() -> pb.Finding:
            finding = self._store.write_finding(identity.actor, request)
            # Notify from this thread: the watchers must learn of it even if the call is cancelled.
            loop.call_soon_threadsafe(self._finding_changes.notify_all)
            return finding

        return await asyncio.to_thread(write)

    async def WatchFindings(  # noqa: N802
        self, request: pb.WatchFindingsRequest, _identity: Identity
    ) -> AsyncIterator[pb.Finding]:
        """Yield every finding after the requested sequence, then each new finding.

        With those_there_are the stream ends after the existing findings.
        """
        after = request.after
        while True:
            change = self._finding_changes.next_change
            findings = await asyncio.to_thread(self._store.findings_after, after)
            for finding in findings:
                after = finding.sequence
                yield finding
            if not findings and request.those_there_are:
                return
            if not findings:
                await change.wait()
                self._end_when_closing()

    # History

    async def ListHistory(  # noqa: N802
        self, request: pb.ListHistoryRequest, _identity: Identity
    ) -> pb.ListHistoryReply:
        """Return history entries and the signed head."""
        return await asyncio.to_thread(
            self._store.history,
            after=request.after,
            limit=request.limit,
            object_prefix=request.object,
        )

    async def ListState(  # noqa: N802
        self, request: pb.ListStateRequest, _identity: Identity
    ) -> pb.ListStateReply:
        """Return a page of a table's rows, after a proof if one is requested and needed."""
        if request.prove:
            # One at a time: a proof takes a thread that a rollback may need.
            async with self._proving:
                await asyncio.to_thread(self._store.prove_if_changed)
        return await asyncio.to_thread(self._store.list_state, request.table, request.after)

    async def prove_older_entries(self) -> None:
        """Verify the entries that the start has not read, with pauses for other work."""
        blocks = self._store.older_entries()
        while not self._closing:
            if await asyncio.to_thread(next, blocks, END) is END:
                return
            await asyncio.sleep(OLDER_ENTRIES_PAUSE_S)

    async def WhoAmI(self, _request: pb.WhoAmIRequest, identity: Identity) -> pb.Caller:  # noqa: N802
        """Return the caller's name and roles."""
        return pb.Caller(actor=identity.actor, roles=sorted(identity.roles))

    def _end_when_closing(self) -> None:
        if self._closing:
            raise RegistryUnavailableError("the registry is stopping; connect again")


async def _join_chunks(chunks: AsyncIterator[pb.VersionChunk]) -> tuple[str, dict[str, bytes]]:
    """Join chunks and return the model and its files. Refuse more bytes than a version may have."""
    model, name, size = "", "", 0
    parts: dict[str, list[bytes]] = {}
    async for chunk in chunks:
        model = model or chunk.model
        if chunk.file != name and chunk.file in parts:
            raise BadRequestError(
                f"file {chunk.file[:80]!r} came in two parts with another file between; send one "
                "file after the other"
            )
        name = chunk.file
        size += len(chunk.content)
        parts.setdefault(name, []).append(chunk.content)
        if size > TOTAL_BYTES_MAX or len(parts) > FILES_MAX or len(chunk.content) > CHUNK_BYTES_MAX:
            raise RegistryFullError(
                f"{len(parts)} files with {size} bytes came, {len(chunk.content)} of them in one "
                f"chunk; a version has at most {FILES_MAX} files and {TOTAL_BYTES_MAX} bytes, a "
                f"chunk has at most {CHUNK_BYTES_MAX}"
            )
    return model, {name: b"".join(contents) for name, contents in parts.items()}


def _prove_version(model: str, files: dict[str, bytes], actor: str) -> Bundle:
    """Check everything that a gateway will check, except the signature, which is made later."""
    if SIGNATURE in files:
        raise BadRequestError(f"only the registry writes {SIGNATURE}; leave it out")
    bundle = verify_bundle(files, trusted_key=None)
    if bundle.model != model:
        raise BadRequestError(
            f"the manifest is for model {bundle.model!r}, but the version was sent as "
            f"{model[:80]!r}"
        )
    if bundle.author != actor:
        raise BadRequestError(
            f"the manifest names {bundle.author!r} as author, but {actor!r} sent it; authors must "
            "register their own versions, so that another person than the author approves"
        )
    golden_test(bundle, load_session(bundle))
    return bundle
