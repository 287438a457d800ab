"""The registry's RPC methods. Each reads its request and calls the store in a thread.

Changes then wake the watch streams.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TypeVar

from access.bounds import CHECKPOINT_BYTES_MAX, PROJECT_BYTES_MAX, first_page
from access.identities import (
    APPROVER,
    AUTHOR,
    CONTROLLER,
    GATEWAY,
    MONITORING,
    OPERATOR,
    Identity,
)
from protos import registry_pb2 as pb
from registry.api.presence import Presence, WatcherPosition
from registry.api.registrations import ProveFiles, Registrations
from registry.chunks import file_chunks, join_message, message_chunks
from registry.incidents.incident_store import IncidentStore
from registry.incidents.policy_acts import ACTED
from registry.rules.gates import DeployCommand
from registry.runs.run_store import RunStore
from registry.signed import SignedDeployment
from registry.storage.deployments import deployment_message
from registry.storage.store import RegistryStore
from registry.types import (
    BadRequestError,
    Deployment,
    FencedError,
    NotAllowedError,
    RegistryUnavailableError,
)
from registry.watching.incidents import FIGURES, check_may_change

STATES_POLL_S = 1.0
"""How often a watch of states looks for workers that stopped reporting, which wakes no watch."""
OLDER_ENTRIES_PAUSE = 30
"""Pause between two blocks of 1,000 history entries that are verified after the start, in times of
a block: others have 97 % of the processor, and 1,000,000 entries take some three minutes."""
APPLIES_MAX = 4
"""Projects that are received at one time."""
RECEIVE_S = 30.0
"""Time for the definitions of a project to arrive."""
RUN_LOG_POLL_S = 0.5
"""How often the log of a run is looked at for a reader that follows it."""
END = object()
Result = TypeVar("Result")


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
        prove: ProveFiles | None = None,
    ) -> None:
        """Serve *store*. Registrations says what *prove* is for."""
        self._store = store
        self._runs = RunStore(store)
        self._incidents = IncidentStore(store)
        self._presence = Presence(monotonic_s)
        self._deployed = {
            deployment.model: store.sign(deployment) for deployment in store.list_deployments()
        }
        self._deployment_changes = ChangeNotifier()
        self._state_changes = ChangeNotifier()
        self._finding_changes = ChangeNotifier()
        self._incident_changes = ChangeNotifier()
        self._closing = False
        self._proving = asyncio.Lock()
        self._applying = asyncio.Semaphore(APPLIES_MAX)
        self._registrations = Registrations(store, prove)

    def close(self) -> None:
        """End every watch stream, because a stopping server would wait for them."""
        self._closing = True
        for changes in (
            self._deployment_changes,
            self._state_changes,
            self._finding_changes,
            self._incident_changes,
        ):
            changes.notify_all()

    # Versions

    async def RegisterVersion(  # noqa: N802  RPCs are named as in the .proto file
        self, request: AsyncIterator[pb.VersionChunk], identity: Identity
    ) -> pb.Version:
        """Prove the files that were sent in a child process, then sign and store them."""
        return await self._registrations.register(request, identity.actor)

    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, _identity: Identity
    ) -> pb.ListModelsReply:
        """Return a page of the models that have a version."""
        models, more = await asyncio.to_thread(self._store.list_models, request.after)
        return pb.ListModelsReply(models=models, more=more)

    async def ListVersions(  # noqa: N802
        self, request: pb.ListVersionsRequest, _identity: Identity
    ) -> pb.ListVersionsReply:
        """Return a page of a model's versions."""
        if request.after and not request.after.isdecimal():
            raise BadRequestError(f"after {request.after!r} is not the label of a version")
        after = int(request.after or 0)
        versions, more = await asyncio.to_thread(self._store.list_versions, request.model, after)
        return pb.ListVersionsReply(versions=versions, more=more)

    async def GetVersion(self, request: pb.VersionName, _identity: Identity) -> pb.Version:  # noqa: N802
        """Return a version by label or id."""
        return await asyncio.to_thread(self._store.get_version, request.model, request.version)

    async def FetchVersion(  # noqa: N802
        self, request: pb.VersionName, _identity: Identity
    ) -> AsyncIterator[pb.VersionChunk]:
        """Yield a version's files, after they are verified again."""
        files = await asyncio.to_thread(self._store.fetch, request.model, request.version)
        for chunk in file_chunks(request.model, files):
            yield chunk

    async def SetStatus(self, request: pb.SetStatusRequest, identity: Identity) -> pb.Version:  # noqa: N802
        """Move a version to another status, if a person may do that."""
        return await asyncio.to_thread(self._store.set_status, identity.actor, request)

    # Approvals

    async def Approve(self, request: pb.ApproveRequest, identity: Identity) -> pb.Approval:  # noqa: N802
        """Write an approval or a rejection. A rejection stops what runs under what it ends."""
        loop = asyncio.get_running_loop()

        def write() -> pb.Approval:
            if not request.reject:
                return self._store.approve(identity.actor, request)
            written = self._store.reject(identity.actor, request)
            # Publish from this thread: the watchers must learn of it even if the call is cancelled.
            if written.deployment is not None:
                signed = self._store.sign(written.deployment)
                loop.call_soon_threadsafe(self._publish, signed)
            if written.finding is not None:
                loop.call_soon_threadsafe(self._finding_changes.notify_all)
            return written.rejection

        return await asyncio.to_thread(write)

    async def ListApprovals(  # noqa: N802
        self, request: pb.ListApprovalsRequest, _identity: Identity
    ) -> pb.ListApprovalsReply:
        """Return a page of a version's approvals and rejections."""
        approvals, more = await asyncio.to_thread(
            self._store.list_approvals, request.model, request.version, request.after
        )
        return pb.ListApprovalsReply(approvals=approvals, more=more)

    async def ApproveSettings(  # noqa: N802
        self, request: pb.SettingsRequest, identity: Identity
    ) -> pb.SettingsApproval:
        """Write an approval of settings in place of the model's current ones."""
        return await asyncio.to_thread(self._store.approve_settings, identity.actor, request)

    async def ListReviews(  # noqa: N802
        self, request: pb.ListReviewsRequest, _identity: Identity
    ) -> pb.ListReviewsReply:
        """Return the reviews of a model or of all models."""
        reviews = await asyncio.to_thread(
            self._store.list_reviews, request.model, open_only=request.open_only
        )
        return pb.ListReviewsReply(reviews=reviews)

    async def CloseReview(self, request: pb.CloseReviewRequest, identity: Identity) -> pb.Review:  # noqa: N802
        """Close a review of a broken glass."""
        return await asyncio.to_thread(self._store.close_review, identity.actor, request)

    # Deployments

    async def GetDeployment(self, request: pb.ModelName, _identity: Identity) -> pb.Deployment:  # noqa: N802
        """Return the deployment of a model."""
        return deployment_message(await asyncio.to_thread(self._store.deployment, request.model))

    async def Deploy(self, request: pb.DeployRequest, identity: Identity) -> pb.Deployment:  # noqa: N802
        """Write a deployment by compare-and-set, then wake every watch stream."""
        if request.break_glass and OPERATOR not in identity.roles:
            raise NotAllowedError(
                f"only an operator breaks the glass; {identity.actor!r} does not have that role"
            )
        _require_lease(identity, request.lease_token)
        if request.finding and not (request.rollback and request.lease_token):
            raise BadRequestError("a finding asks the leading controller for a rollback only")
        command = DeployCommand(
            deployment=Deployment.from_proto(request.deployment),
            lease_token=request.lease_token,
            policy_digest=request.rollout_policy_digest,
            rollback=request.rollback,
            break_glass=request.break_glass,
            finding=request.finding,
        )
        loop, workers = asyncio.get_running_loop(), self._presence.live_states()

        def deploy() -> Deployment:
            deployment = self._store.deploy(identity.actor, command, workers)
            # Publish from this thread: the watchers must learn of it even if the call is cancelled.
            loop.call_soon_threadsafe(self._publish, self._store.sign(deployment))
            return deployment

        return deployment_message(await asyncio.to_thread(deploy))

    def _publish(self, signed: SignedDeployment) -> None:
        # Threads may finish out of order, so an older revision may come after a newer one.
        model, revision = signed.deployment.model, signed.deployment.revision
        known = self._deployed.get(model)
        if known is None or known.deployment.revision < revision:
            self._deployed[model] = signed
        self._deployment_changes.notify_all()

    async def WatchDeployments(  # noqa: N802
        self, request: pb.WatchDeploymentsRequest, identity: Identity
    ) -> AsyncIterator[pb.DeploymentEvent]:
        """Yield the keys and the deployments of all models, then each change.

        The snapshot is complete, so that a gateway sees when this registry is behind it. A gateway
        counts as live while this stream is open.
        """
        # The key of prediction ids is a secret for the roles that need it.
        if request.gateway:
            identity.check_speaks_for(request.gateway)
        keys = pb.ServingKeys(version_public_key=self._store.keys.version_public_key)
        if identity.roles & {GATEWAY, CONTROLLER, OPERATOR}:
            keys.CopyFrom(self._store.keys)
        worker = (request.gateway, request.slot, request.boot_id)
        sent_revisions: dict[str, int] = {}
        if request.gateway:
            self._presence.stream_opened(worker)
            self._state_changes.notify_all()
        try:
            # The snapshot has one event, also if it is empty, and more where it is large.
            change = self._deployment_changes.next_change
            first, more = self._deployments_newer_than(sent_revisions)
            yield pb.DeploymentEvent(deployments=first, snapshot_end=not more, keys=keys)
            while more:
                newer, more = self._deployments_newer_than(sent_revisions)
                yield pb.DeploymentEvent(deployments=newer, snapshot_end=not more)
            # Then one event for each change.
            while True:
                await change.wait()
                self._end_when_closing()
                change = self._deployment_changes.next_change
                more = True
                while more:
                    newer, more = self._deployments_newer_than(sent_revisions)
                    if newer:
                        yield pb.DeploymentEvent(deployments=newer)
        finally:
            if request.gateway:
                self._presence.stream_closed(worker)
                self._state_changes.notify_all()

    def _deployments_newer_than(
        self, revisions: dict[str, int]
    ) -> tuple[list[pb.SignedDeployment], bool]:
        """Return a page of the deployments that are newer, and whether there are more.

        The page is entered in *revisions*.
        """
        newer = [
            signed
            for model, signed in self._deployed.items()
            if signed.deployment.revision > revisions.get(model, 0)
        ]
        page, more = first_page(signed.message for signed in newer)
        for signed in newer[: len(page)]:
            revisions[signed.deployment.model] = signed.deployment.revision
        return page, more

    # Gateways

    async def ReportState(self, request: pb.GatewayState, identity: Identity) -> pb.Empty:  # noqa: N802
        """Keep the newest state of a worker of the caller's gateway."""
        identity.check_speaks_for(request.gateway)
        if not request.gateway:
            raise BadRequestError("a state needs the name of its gateway")
        self._presence.record_state(request)
        self._state_changes.notify_all()
        return pb.Empty()

    async def WatchStates(  # noqa: N802
        self, request: pb.WatchStatesRequest, _identity: Identity
    ) -> AsyncIterator[pb.GatewayState]:
        """Yield the newest state of each live worker, then each new state.

        With those_there_are the stream ends after the existing states.
        """
        position = WatcherPosition()
        while True:
            change = self._state_changes.next_change
            for state in self._presence.changes_since(position):
                yield state
            if request.those_there_are:
                return
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

    async def SaveCheckpoint(  # noqa: N802
        self, request: AsyncIterator[pb.MessageChunk], identity: Identity
    ) -> pb.Empty:
        """Store the newest checkpoint of a rollout."""
        checkpoint = await join_message(request, pb.Checkpoint, CHECKPOINT_BYTES_MAX)
        await asyncio.to_thread(self._store.save_checkpoint, identity.actor, checkpoint)
        return pb.Empty()

    async def LoadCheckpoint(  # noqa: N802
        self, request: pb.CheckpointName, _identity: Identity
    ) -> AsyncIterator[pb.MessageChunk]:
        """Yield the chunks of a rollout's newest checkpoint."""
        checkpoint = await asyncio.to_thread(self._store.load_checkpoint, request.rollout_id)
        for chunk in message_chunks(checkpoint):
            yield chunk

    async def WriteFinding(self, request: pb.Finding, identity: Identity) -> pb.Finding:  # noqa: N802
        """Write a finding and wake the watches of findings."""
        # Figures move no traffic, so monitoring writes them without the lease of rollouts.
        if request.kind != FIGURES:
            if not identity.roles & {OPERATOR, CONTROLLER}:
                raise NotAllowedError(
                    f"{identity.actor!r} is monitoring, which writes findings of the kind "
                    f"{FIGURES!r} only; {request.kind[:80]!r} is for operators and the controller"
                )
            _require_lease(identity, request.lease_token)
        # What a finding led to is noted in the incident that it came from.
        write = self._incidents.write_acted if request.kind == ACTED else self._store.write_finding
        return await self._in_thread_with_incidents(partial(write, identity.actor, request))

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

    # Projects

    async def ApplyProject(  # noqa: N802
        self, request: AsyncIterator[pb.MessageChunk], identity: Identity
    ) -> pb.ProjectRevision:
        """Write the next revision of a project by compare-and-set, then wake the watch streams."""
        # The definitions take memory, so few are received at a time.
        try:
            async with self._applying, asyncio.timeout(RECEIVE_S):
                applied = await join_message(request, pb.ApplyProjectRequest, PROJECT_BYTES_MAX)
        except TimeoutError as error:
            raise RegistryUnavailableError(
                f"the definitions did not arrive within {RECEIVE_S:g} s; apply them again"
            ) from error
        loop, workers = asyncio.get_running_loop(), self._presence.live_states()

        def apply() -> pb.ProjectRevision:
            revision, deployed = self._store.apply_project(
                identity.actor, applied, workers, operator=OPERATOR in identity.roles
            )
            # Publish from this thread: the watchers must learn of it even if the call is cancelled.
            for deployment in deployed:
                loop.call_soon_threadsafe(self._publish, self._store.sign(deployment))
            return revision

        return await asyncio.to_thread(apply)

    async def GetProject(  # noqa: N802
        self, request: pb.ProjectName, _identity: Identity
    ) -> AsyncIterator[pb.MessageChunk]:
        """Yield the chunks of a revision of a project, with its definitions."""
        revision = await asyncio.to_thread(self._store.get_project, request.name, request.revision)
        for chunk in message_chunks(revision):
            yield chunk

    async def ListProjects(  # noqa: N802
        self, request: pb.ListProjectsRequest, _identity: Identity
    ) -> pb.ListProjectsReply:
        """Return a page of all projects, or of the revisions of one, without definitions."""
        return await asyncio.to_thread(self._store.list_projects, request)

    # Training runs

    async def BeginRun(self, request: pb.BeginRunRequest, identity: Identity) -> pb.BeginRunReply:  # noqa: N802
        """Begin a run, or return the run that has its key."""
        return await self._in_thread_with_findings(
            partial(self._runs.begin_run, identity.actor, request)
        )

    async def AppendRunLog(self, request: pb.RunLogPart, identity: Identity) -> pb.Empty:  # noqa: N802
        """Append to the log of a run, and note a sign of life."""
        await asyncio.to_thread(self._runs.append_log, identity.actor, request)
        return pb.Empty()

    async def EndRun(self, request: pb.EndRunRequest, identity: Identity) -> pb.Run:  # noqa: N802
        """Write the end of a run, or let it wait for another attempt."""
        return await self._in_thread_with_findings(
            partial(self._runs.end_run, identity.actor, request)
        )

    async def _in_thread_with_findings(self, act: Callable[[], Result]) -> Result:
        """Do in a thread what may write a finding, and wake the watches of findings."""
        loop = asyncio.get_running_loop()

        def act_and_notify() -> Result:
            result = act()
            # Notify from this thread: the watchers must learn of it even if the call is cancelled.
            loop.call_soon_threadsafe(self._finding_changes.notify_all)
            return result

        return await asyncio.to_thread(act_and_notify)

    async def QueueRun(self, request: pb.QueueRunRequest, identity: Identity) -> pb.BeginRunReply:  # noqa: N802
        """Write a run that waits for a trainer, or return the run that has its key."""
        if not identity.roles & {AUTHOR, OPERATOR}:
            _require_lease(identity, request.lease_token)
        return await asyncio.to_thread(self._runs.queue_run, identity.actor, request)

    async def CancelRun(self, request: pb.CancelRunRequest, identity: Identity) -> pb.Run:  # noqa: N802
        """End a run that waits or runs."""
        return await asyncio.to_thread(self._runs.cancel_run, identity.actor, request)

    async def ListSchedules(  # noqa: N802
        self, request: pb.ListSchedulesRequest, _identity: Identity
    ) -> pb.ListSchedulesReply:
        """Return the schedules that are applied now."""
        return await asyncio.to_thread(
            partial(self._runs.list_schedules, with_runs=request.with_runs)
        )

    async def GetRun(self, request: pb.RunName, _identity: Identity) -> pb.Run:  # noqa: N802
        """Return a run with its inputs and its result."""
        return await asyncio.to_thread(self._runs.get_run, request.id)

    async def ListRuns(  # noqa: N802
        self, request: pb.ListRunsRequest, _identity: Identity
    ) -> pb.ListRunsReply:
        """Return a page of runs, newest first."""
        return await asyncio.to_thread(self._runs.list_runs, request)

    async def ReadRunLog(  # noqa: N802
        self, request: pb.RunLogRequest, _identity: Identity
    ) -> AsyncIterator[pb.RunLogPart]:
        """Yield the log of a run; with follow, also what is appended until the run has ended.

        A run that fell silent ends the stream, because nothing more may ever come.
        """
        run = await asyncio.to_thread(self._runs.get_run, request.id)
        start = 0
        while True:
            # The state is read before the log, so that the last lines of a run are not missed.
            text = await asyncio.to_thread(self._runs.read_log, run.id, start)
            start += len(text)
            if text:
                yield pb.RunLogPart(id=run.id, attempt=run.attempt, text=text)
            elif not request.follow or run.ended_unix_ms or self._runs.is_silent(run):
                return
            else:
                await asyncio.sleep(RUN_LOG_POLL_S)
                self._end_when_closing()
                run = await asyncio.to_thread(self._runs.get_run, run.id)

    # Incidents

    async def OpenIncident(  # noqa: N802
        self, request: pb.OpenIncidentRequest, identity: Identity
    ) -> pb.OpenIncidentReply:
        """Open an incident with what the model's policy says, or return the open one."""
        if request.automatic and not identity.roles & {MONITORING, CONTROLLER}:
            raise NotAllowedError(
                f"only monitoring opens an incident by which the policy acts; {identity.actor!r} "
                "opens one without `automatic`"
            )
        return await self._in_thread_with_incidents(
            partial(self._incidents.open_incident, identity.actor, request)
        )

    async def ChangeIncident(  # noqa: N802
        self, request: pb.ChangeIncidentRequest, identity: Identity
    ) -> pb.Incident:
        """Change an incident by compare-and-set, or add a note."""
        check_may_change(
            request.change,
            identity.actor,
            person=bool(identity.roles & {AUTHOR, APPROVER, OPERATOR}),
            program=bool(identity.roles & {MONITORING, CONTROLLER}),
        )
        return await self._in_thread_with_incidents(
            partial(self._incidents.change_incident, identity.actor, request)
        )

    async def _in_thread_with_incidents(self, act: Callable[[], Result]) -> Result:
        """Do in a thread what changes an incident, and may write a finding; wake the watches."""
        loop = asyncio.get_running_loop()

        def act_and_notify() -> Result:
            result = act()
            # Notify from this thread: the watchers must learn of it even if the call is cancelled.
            loop.call_soon_threadsafe(self._finding_changes.notify_all)
            loop.call_soon_threadsafe(self._incident_changes.notify_all)
            return result

        return await asyncio.to_thread(act_and_notify)

    async def GetIncident(self, request: pb.IncidentName, _identity: Identity) -> pb.Incident:  # noqa: N802
        """Return an incident with its notes."""
        return await asyncio.to_thread(self._incidents.get_incident, request.id)

    async def ListIncidents(  # noqa: N802
        self, request: pb.ListIncidentsRequest, _identity: Identity
    ) -> pb.ListIncidentsReply:
        """Return a page of incidents, newest first."""
        return await asyncio.to_thread(self._incidents.list_incidents, request)

    async def WatchIncidents(  # noqa: N802
        self, request: pb.WatchIncidentsRequest, _identity: Identity
    ) -> AsyncIterator[pb.Incident]:
        """Yield each incident that changed after a history entry, then each that changes.

        A watcher that is slow sees the newest state of an incident only.
        """
        after = request.after
        while True:
            change = self._incident_changes.next_change
            incidents = await asyncio.to_thread(self._incidents.incidents_after, after)
            for incident in incidents:
                after = incident.sequence
                yield incident
            if not incidents and request.those_there_are:
                return
            if not incidents:
                await change.wait()
                self._end_when_closing()

    async def AddOutsideModel(  # noqa: N802
        self, request: pb.OutsideModel, identity: Identity
    ) -> pb.OutsideModel:
        """Write down a model that another system serves."""
        return await asyncio.to_thread(self._incidents.add_outside_model, identity.actor, request)

    async def ListOutsideModels(  # noqa: N802
        self, request: pb.ListOutsideModelsRequest, _identity: Identity
    ) -> pb.ListOutsideModelsReply:
        """Return a page of the models that other systems serve."""
        return await asyncio.to_thread(self._incidents.list_outside_models, request.after)

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

    async def ReadHistory(  # noqa: N802
        self, request: pb.HistoryRange, _identity: Identity
    ) -> AsyncIterator[pb.HistoryColumns]:
        """Yield the entries of a range by column, in messages of about 1 MiB; at least one."""
        after, more = request.after, True
        while more:
            columns = await asyncio.to_thread(
                self._store.history_columns, after=after, until=request.until
            )
            after = columns.seq[-1] if columns.seq else after
            more = bool(columns.seq) and after < (request.until or columns.head.seq)
            yield columns
            self._end_when_closing()

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
            began_s = time.perf_counter()
            if await asyncio.to_thread(next, blocks, END) is END:
                return
            await asyncio.sleep(OLDER_ENTRIES_PAUSE * (time.perf_counter() - began_s))

    async def ReadEntry(  # noqa: N802
        self, request: pb.EntryNumber, _identity: Identity
    ) -> AsyncIterator[pb.MessageChunk]:
        """Yield the chunks of one history entry."""
        entry = await asyncio.to_thread(self._store.read_entry, request.seq)
        for chunk in message_chunks(entry):
            yield chunk

    def _end_when_closing(self) -> None:
        if self._closing:
            raise RegistryUnavailableError("the registry is stopping; connect again")


def _require_lease(identity: Identity, lease_token: int) -> None:
    """Raise FencedError for a program that shows no lease. A person needs none."""
    if OPERATOR not in identity.roles and not lease_token:
        raise FencedError(
            f"{identity.actor!r} is a controller and sent no lease token; only the controller that "
            "has the lease writes. Take the lease first"
        )
