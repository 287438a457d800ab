"""The registry's gRPC client, for all other rooms.

Every method raises the errors of registry.types: the class that the registry raised, or
RegistryUnavailableError when the registry does not answer.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import grpc

from access.bounds import ITEMS_MAX_BY_FIELD, MESSAGE_BYTES_MAX
from access.peer_tls import open_channel, refuse_token_in_clear
from features.contract import ModelContract
from features.errors import ContractError, ViewError
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryStub
from registry.chunks import file_chunks, join_content, message_chunks
from registry.history.audit import audit_registry
from registry.history.chain import StoredEntry, entries_of_columns, is_signed, stored_entry
from registry.manifest import MANIFEST, TOTAL_BYTES_MAX
from registry.schedules.run_calls import CALL_S, RunCalls
from registry.status import error_from_status
from registry.types import (
    AuditReport,
    Deployment,
    NotFoundError,
    ProjectRevision,
    RegistryFaultError,
    RegistryUnavailableError,
    VersionRefusedError,
)
from registry.watching.incident_calls import IncidentCalls

RpcReply = TypeVar("RpcReply")

REGISTER_S = 120.0
"""Timeout of a registration, which sends up to 256 MiB and scores the golden rows."""
NO_ENTRY_AFTER = 2**62
"""A number above that of any entry."""
REOPEN_GRACE_S = 30.0
"""How long calls may go on over a channel that was replaced."""
PROVE_S = 120.0
"""Timeout of a page of rows, before which the registry may prove its whole database."""

OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Reconnect to a restarted registry within a second. gRPC's default may take two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # This is also the timeout of one attempt, and a busy host may need more than .1 s to answer.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.use_local_subchannel_pool", 1),
)


def wall_ms() -> int:
    """Return the current time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _effects(sentences: Sequence[str]) -> list[pb.ProjectEffect]:
    most = ITEMS_MAX_BY_FIELD["ApplyProjectRequest.effects"]
    kept = list(sentences[:most])
    if len(sentences) > most:
        kept[-1] = f"and {len(sentences) - most + 1} more"
    return [pb.ProjectEffect(text=sentence) for sentence in kept]


def call_metadata(actor: str, token: str | None) -> list[tuple[str, str]]:
    """Return the metadata that names the caller. The actor is percent-encoded into ASCII."""
    metadata = [("x-turnout-actor", quote(actor, safe=" @:/+()'"))]
    return metadata if token is None else [*metadata, ("authorization", f"Bearer {token}")]


class RelayedError(Exception):
    """A relayed call has failed: its status, and the registry's error that it stands for."""

    def __init__(self, status: grpc.aio.AioRpcError) -> None:
        super().__init__(status.details() or "")
        self.code = status.code()
        self.metadata = tuple(status.trailing_metadata() or ())
        self.meaning: Exception = error_from_status(status)


class RegistryClient(RunCalls, IncidentCalls):
    """A connection to the registry for one actor. Use it as an async context manager.

    address      host:port of the registry.
    actor        name of the caller, 1 to 64 printable characters, for the history.
    token        bearer token, if the registry has an identities file. It decides actor and roles.
    certificate  file of the registry's certificate, which the registry must prove to have; None:
                 plain text, for a registry without identities on the same machine.
    now_ms       clock for the creation time of versions, Unix milliseconds.

    Raises access.peer_tls.PeerError for a token without a certificate, and when it is entered and
    the file cannot be read.
    """

    def __init__(
        self,
        address: str,
        actor: str,
        token: str | None = None,
        *,
        certificate: Path | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        refuse_token_in_clear(address, certificate, token)
        self._address = address
        self._certificate = certificate
        self._actor = actor
        self._now_ms = now_ms
        self._metadata = call_metadata(actor, token)
        self._certificate_content = b""
        """What the certificate file held when the channel was opened."""
        self._channel: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Future[None]] = set()
        """Former channels, which close when their calls have ended."""
        self._stub: RegistryStub | None = None

    async def __aenter__(self) -> Self:
        self._open()
        return self

    def _open(self) -> None:
        self._certificate_content = self._read_certificate()
        self._channel = open_channel(self._address, self._certificate, options=OPTIONS)
        self._stub = RegistryStub(self._channel)  # type: ignore[no-untyped-call]

    def _read_certificate(self) -> bytes:
        """Return the file's content; empty when there is none, or when it cannot be read."""
        with contextlib.suppress(OSError):
            return b"" if self._certificate is None else self._certificate.read_bytes()
        return b""

    async def reopen_with_new_certificate(self) -> None:
        """Accept the certificates that the file has now, if it has changed since the last look.

        Calls that are under way may end first. Raises PeerError when the file has no certificate.
        """
        if self._channel is None or self._read_certificate() in (b"", self._certificate_content):
            return
        before = self._channel
        self._open()
        closing = asyncio.ensure_future(before.close(REOPEN_GRACE_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._channel is not None:
            await self._channel.close()
        self._channel = self._stub = None

    # Versions

    async def register(self, model: str, files: Mapping[str, bytes]) -> pb.Version:
        """Register a version and return it. Files without a manifest are sealed first.

        The actor becomes the author. Registering the same manifest again returns the same version.
        Raises VersionRefusedError when a file does not pass a check.
        """
        if MANIFEST not in files:
            from registry.bundle import seal_files  # it imports numpy; most clients only ask

            files = seal_files(
                files, model=model, author=self._actor, created_unix_ms=self._now_ms()
            )
        return await self._await_reply(
            self._rpc.RegisterVersion(
                file_chunks(model, files), metadata=self._metadata, timeout=REGISTER_S
            )
        )

    async def list_models(self) -> list[pb.ModelSummary]:
        """Return every model that has a version, with its deployment, by name."""
        return await self._pages(self._rpc.ListModels, pb.ListModelsRequest(), "models", "model")

    async def list_versions(self, model: str) -> list[pb.Version]:
        """Return the versions of a model, oldest first; an empty list for an unknown model.

        They come without their cards, which `get_version` returns.
        """
        request = pb.ListVersionsRequest(model=model)
        return await self._pages(self._rpc.ListVersions, request, "versions", "label")

    async def get_version(self, model: str, version: str) -> pb.Version:
        """Return a version by its label ("7") or id (64 hex digits), with its card."""
        name = pb.VersionName(model=model, version=version)
        found: pb.Version = await self._call(self._rpc.GetVersion, name)
        # A card that is too large for a message is one of the version's files.
        if found.card_bytes:
            found.card_json = (await self.fetch(model, found.label))["card.json"].decode()
        return found

    async def fetch(self, model: str, version: str) -> dict[str, bytes]:
        """Return all files of a version, with signature.json.

        Check them with registry.bundle.verify_bundle before use.
        """
        request = pb.VersionName(model=model, version=version)
        parts: dict[str, list[bytes]] = {}
        size = 0
        async for chunk in self._stream(self._rpc.FetchVersion, request, REGISTER_S):
            size += len(chunk.content)
            if size > TOTAL_BYTES_MAX:
                raise VersionRefusedError(
                    f"version {version} of {model!r} is over {TOTAL_BYTES_MAX} bytes"
                )
            parts.setdefault(chunk.file, []).append(chunk.content)
        return {name: b"".join(contents) for name, contents in parts.items()}

    async def fetch_contract(self, model: str, version: str) -> ModelContract:
        """Return the contract of a version. The files after contract.json are not sent."""
        request = pb.VersionName(model=model, version=version)
        content = b""
        async with aclosing(self._stream(self._rpc.FetchVersion, request, REGISTER_S)) as chunks:
            async for chunk in chunks:
                if chunk.file == "contract.json":
                    content += chunk.content
                elif content:
                    break
        try:
            return ModelContract.from_definition(json.loads(content))
        except (ValueError, ContractError, ViewError) as error:
            raise VersionRefusedError(
                f"the contract of version {version} of {model!r} cannot be read: {error}"
            ) from error

    async def set_status(
        self, model: str, version: str, status: pb.VersionStatus, reason: str
    ) -> pb.Version:
        """Move a version between development, staging and archived. `deploy` moves the others."""
        return await self._call(
            self._rpc.SetStatus,
            pb.SetStatusRequest(model=model, version=version, status=status, reason=reason),
        )

    # Approvals

    async def approve(
        self,
        model: str,
        version: str,
        policy_name: str,
        policy_digest: str,
        accepted_shift: str,
        reason: str,
        *,
        direct: bool = False,
    ) -> pb.Approval:
        """Approve the rollout of a version under one policy.

        direct  it may also become production at once, without the steps of a rollout.

        Raises GateError when the actor is the version's author.
        """
        return await self._call(
            self._rpc.Approve,
            pb.ApproveRequest(
                model=model,
                version=version,
                policy_name=policy_name,
                policy_digest=policy_digest,
                accepted_shift=accepted_shift,
                reason=reason,
                direct=direct,
            ),
        )

    async def reject(
        self, model: str, version: str, reason: str, policy_name: str = "", policy_digest: str = ""
    ) -> pb.Approval:
        """Reject a version under every policy, or under the one that is named.

        Returns the rejection with the approvals that it ended, and with the revision of the
        deployment that took the version out.
        """
        return await self._call(
            self._rpc.Approve,
            pb.ApproveRequest(
                model=model,
                version=version,
                policy_name=policy_name,
                policy_digest=policy_digest,
                reason=reason,
                reject=True,
            ),
        )

    async def approve_settings(
        self, deployment: Deployment, reason: str, *, split_salt: bytes = b""
    ) -> pb.SettingsApproval:
        """Approve the holdout and the serving policy of *deployment* in place of the current ones.

        split_salt  16 bytes if the deployment sets the split salt; else empty.
        """
        return await self._call(
            self._rpc.ApproveSettings,
            pb.SettingsRequest(
                model=deployment.model,
                holdout_bp=deployment.holdout_bp,
                policy=deployment.policy,
                split_salt=split_salt,
                reason=reason,
            ),
        )

    async def reviews(self, model: str = "", *, open_only: bool = False) -> list[pb.Review]:
        """Return the reviews of broken glasses of a model, or of all models, oldest first."""
        request = pb.ListReviewsRequest(model=model, open_only=open_only)
        return list((await self._call(self._rpc.ListReviews, request)).reviews)

    async def close_review(self, review_id: str, reason: str) -> pb.Review:
        """Close a review. Raises GateError for the person who broke the glass and for authors."""
        return await self._call(
            self._rpc.CloseReview, pb.CloseReviewRequest(id=review_id, reason=reason)
        )

    async def approvals(self, model: str, version: str) -> list[pb.Approval]:
        """Return the approvals and rejections of one version, oldest first."""
        request = pb.ListApprovalsRequest(model=model, version=version)
        return await self._pages(self._rpc.ListApprovals, request, "approvals", "id")

    # Deployments

    async def deployment(self, model: str) -> Deployment:
        """Return the model's deployment. Before the first one it has revision 0 and no versions."""
        return Deployment.from_proto(
            await self._call(self._rpc.GetDeployment, pb.ModelName(model=model))
        )

    async def deploy(
        self,
        deployment: Deployment,
        *,
        lease_token: int = 0,
        policy_digest: str = "",
        rollback: bool = False,
        break_glass: bool = False,
        finding: int = 0,
    ) -> Deployment:
        """Write *deployment* if its revision is the newest, and return it as it was written.

        finding  of a rollback: the sequence of the finding that asks for it; 0: none does.

        Raises RevisionConflictError when another change was faster, GateError when a gate is not
        met, FencedError when another controller has the lease, NotFoundError, BadRequestError.
        """
        return Deployment.from_proto(
            await self._call(
                self._rpc.Deploy,
                pb.DeployRequest(
                    deployment=deployment.to_proto(),
                    lease_token=lease_token,
                    rollout_policy_digest=policy_digest,
                    rollback=rollback,
                    break_glass=break_glass,
                    finding=finding,
                ),
            )
        )

    def watch_deployments(
        self,
        gateway: str = "",
        slot: int = 0,
        boot_id: int = 0,
    ) -> AsyncIterator[pb.DeploymentEvent]:
        """Yield the deployments of all models in one event, then each change.

        registry.signed opens them. The stream ends with an error of registry.types: call again.

        gateway  name of the gateway. Its worker counts as live while the stream is open. Empty for
                 other readers.
        """
        request = pb.WatchDeploymentsRequest(gateway=gateway, slot=slot, boot_id=boot_id)
        return self._stream(self._rpc.WatchDeployments, request)

    # Gateways

    async def report_state(self, state: pb.GatewayState) -> None:
        """Report which versions one worker has loaded. This replaces its earlier report."""
        await self._call(self._rpc.ReportState, state)

    def watch_states(self) -> AsyncIterator[pb.GatewayState]:
        """Yield the newest state of every live worker, then each new state.

        The last state of a worker that has left is `disconnected`.
        """
        return self._stream(self._rpc.WatchStates, pb.WatchStatesRequest())

    def states(self) -> AsyncIterator[pb.GatewayState]:
        """Yield the newest state of every live worker."""
        request = pb.WatchStatesRequest(those_there_are=True)
        return self._stream(self._rpc.WatchStates, request, CALL_S)

    # Controllers

    async def acquire_lease(self, name: str, holder: str, seconds: int, token: int = 0) -> pb.Lease:
        """Take the lease, or renew it with its *token*.

        Raises FencedError while another holder has it.
        """
        return await self._call(
            self._rpc.AcquireLease,
            pb.LeaseRequest(name=name, holder=holder, seconds=seconds, token=token),
        )

    async def save_checkpoint(self, checkpoint: pb.Checkpoint) -> None:
        """Store a rollout's checkpoint; raise RevisionConflictError if a later one is stored."""
        await self._call(self._rpc.SaveCheckpoint, message_chunks(checkpoint))

    async def load_checkpoint(self, rollout_id: str) -> pb.Checkpoint:
        """Return the newest checkpoint of a rollout; raise NotFoundError if there is none."""
        name = pb.CheckpointName(rollout_id=rollout_id)
        stream = self._stream(self._rpc.LoadCheckpoint, name, CALL_S)
        return pb.Checkpoint.FromString(await join_content(stream))

    async def write_finding(self, finding: pb.Finding) -> pb.Finding:
        """Write a finding and return it with the sequence, actor and time that it got."""
        return await self._call(self._rpc.WriteFinding, finding)

    def watch_findings(self, after: int = 0) -> AsyncIterator[pb.Finding]:
        """Yield the findings with a larger sequence than *after*, then each new finding."""
        return self._stream(self._rpc.WatchFindings, pb.WatchFindingsRequest(after=after))

    def findings(self, after: int = 0) -> AsyncIterator[pb.Finding]:
        """Yield the existing findings with a larger sequence than *after*, oldest first."""
        request = pb.WatchFindingsRequest(after=after, those_there_are=True)
        return self._stream(self._rpc.WatchFindings, request, CALL_S)

    # Projects

    async def apply_project(
        self,
        name: str,
        *,
        expected_revision: int,
        plan_digest: str,
        definitions: bytes,
        effects: Sequence[str],
        commit: str,
        dirty: bool,
        reason: str,
    ) -> ProjectRevision:
        """Write the next revision of a project and return it, without its definitions.

        expected_revision  the newest one when the plan was made; 0: there was none.
        plan_digest        SHA-256 of the plan that people saw, hex.
        definitions        canonical JSON, as registry/rules/projects.py describes it.
        effects            what the plan says, a sentence each. The registry cuts long ones.
                           Beyond 400 the last one says how many more there are.
        commit             of the repository; empty: the folder is in none.
        dirty              whether the work tree had changes that no commit has.

        Raises RevisionConflictError when another revision was applied since the plan was made,
        GateError for a view that a version still reads, for names of another project and for
        settings without an approval, NotAllowedError, BadRequestError.
        """
        # The request may be larger than a message, so it travels in chunks.
        request = pb.ApplyProjectRequest(
            name=name,
            expected_revision=expected_revision,
            definitions=definitions,
            plan_digest=plan_digest,
            effects=_effects(effects),
            commit=commit,
            dirty=dirty,
            reason=reason,
        )
        # It waits for other writers, and its definitions are parsed.
        call = self._rpc.ApplyProject(
            message_chunks(request), metadata=self._metadata, timeout=REGISTER_S
        )
        return ProjectRevision.from_proto(await self._await_reply(call))

    async def get_project(self, name: str, revision: int = 0) -> ProjectRevision | None:
        """Return a revision of a project with its definitions, or None. 0 means the newest."""
        request = pb.ProjectName(name=name, revision=revision)
        try:
            content = await join_content(self._stream(self._rpc.GetProject, request, REGISTER_S))
        except NotFoundError:
            return None
        return ProjectRevision.from_proto(pb.ProjectRevision.FromString(content))

    async def list_projects(self, name: str = "", limit: int = 0) -> list[ProjectRevision]:
        """Return revisions without their definitions.

        name   all revisions of this project, newest first; empty: the newest of each, by name.
        limit  most of them; 0 means all.
        """
        request = pb.ListProjectsRequest(name=name)
        revisions: list[ProjectRevision] = []
        while True:
            reply = await self._call(self._rpc.ListProjects, request)
            revisions += map(ProjectRevision.from_proto, reply.revisions)
            if not reply.more or 0 < limit <= len(revisions):
                return revisions[: limit or None]
            request.after, request.before = revisions[-1].name, revisions[-1].revision

    # History

    async def relay(self, method: str, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """Send serialised messages to an RPC in this client's name, and yield its replies.

        method  full name, such as "/turnout.v1.Registry/GetRun".

        Raises RelayedError, because whoever is relayed for reads the status.
        """
        if self._channel is None:
            raise RegistryUnavailableError("this RegistryClient is not open")
        multicallable: Any = self._channel.stream_stream(method)
        call = multicallable(requests, metadata=self._metadata)
        try:
            async for reply in call:
                yield reply
        except grpc.aio.AioRpcError as error:
            raise RelayedError(error) from error

    async def history(
        self, after: int = 0, limit: int = 0, object_prefix: str = ""
    ) -> pb.ListHistoryReply:
        """Return a page of the entries with a larger seq than *after*, and the signed head.

        An entry whose texts were cut has `uncut_bytes` set, and `uncut_entry` returns it whole.

        limit          most entries; 0 means 1,000.
        object_prefix  beginning of the entries' objects, such as "model/churn/"; empty for all.
        """
        return await self._call(
            self._rpc.ListHistory,
            pb.ListHistoryRequest(after=after, limit=limit, object=object_prefix),
        )

    async def read_history(
        self, after: int = 0, until: int = 0
    ) -> AsyncGenerator[tuple[list[StoredEntry], pb.SignedHead], None]:
        """Yield the entries with a larger seq than *after* in blocks, each with the signed head.

        until  the last seq; 0: up to the newest entry.

        There is at least one block, which may be empty. No text is cut.
        """
        wanted = pb.HistoryRange(after=after, until=until)
        async with aclosing(self._stream(self._rpc.ReadHistory, wanted)) as blocks:
            async for block in blocks:
                entries = entries_of_columns(block)
                for place, entry in enumerate(entries) if block.left_out else ():
                    if entry.seq in block.left_out:
                        cut = pb.HistoryEntry(seq=entry.seq, uncut_bytes=1)
                        entries[place] = stored_entry(await self.uncut_entry(cut))
                yield entries, block.head

    async def uncut_entry(self, entry: pb.HistoryEntry) -> pb.HistoryEntry:
        """Return *entry* of a page as it was written, with texts that the page had cut."""
        if not entry.uncut_bytes:
            return entry
        number = pb.EntryNumber(seq=entry.seq)
        stream = self._stream(self._rpc.ReadEntry, number, CALL_S)
        return pb.HistoryEntry.FromString(await join_content(stream))

    async def signed_head(self) -> pb.SignedHead:
        """Return the signed number and digest of the newest entry, to be noted elsewhere.

        Raises RegistryFaultError when the head is not signed by the key that gateways get.
        """
        head = (await self.history(after=NO_ENTRY_AFTER, limit=1)).head
        key = (await self.serving_keys()).version_public_key
        if head.seq and (head.public_key != key or not is_signed(head)):
            raise RegistryFaultError(
                f"the head, entry {head.seq}, is not signed by the registry's key {key.hex()[:16]}"
                "; run turnout audit verify"
            )
        return head

    async def list_state(self, table: str, after: str, *, prove: bool) -> pb.ListStateReply:
        """Return a page of a table's rows, and the signed head of the same instant.

        prove  the registry first proves what other processes may have changed, which takes seconds
               if its history is long.
        """
        request = pb.ListStateRequest(table=table, after=after, prove=prove)
        return await self._await_reply(
            self._rpc.ListState(request, metadata=self._metadata, timeout=PROVE_S)
        )

    async def serving_keys(self) -> pb.ServingKeys:
        """Return the keys that gateways get; without the secret one for most roles."""
        request = pb.WatchDeploymentsRequest()
        async with aclosing(self._stream(self._rpc.WatchDeployments, request, CALL_S)) as events:
            event: pb.DeploymentEvent = await anext(events)
            return event.keys

    async def audit(
        self,
        public_key: bytes | None = None,
        noted_heads: Mapping[str, pb.SignedHead] | None = None,
    ) -> AuditReport:
        """Verify the whole history and every row of the tables; return what was found.

        public_key   the registry's key as the auditor knows it. With None the check takes the key
                     that gateways get, which proves the chain but not who signed it.
        noted_heads  where a head was noted -> the head. An older or other history contradicts it.
        """
        return await audit_registry(self, public_key, noted_heads or {})

    @property
    def _rpc(self) -> RegistryStub:
        if self._stub is None:
            raise RegistryUnavailableError(
                "this RegistryClient is not open; use it as `async with RegistryClient(...)`"
            )
        return self._stub

    async def _call(self, method: Callable[..., Awaitable[RpcReply]], request: object) -> RpcReply:
        return await self._await_reply(method(request, metadata=self._metadata, timeout=CALL_S))

    async def _await_reply(self, call: Awaitable[RpcReply]) -> RpcReply:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise error_from_status(error) from error

    async def _pages(
        self,
        method: Callable[..., Awaitable[Any]],
        request: Any,  # noqa: ANN401  any request with `after`
        field: str,
        key: str,
    ) -> list[Any]:
        """Return the items in *field* of all pages; a page begins after the last item's *key*."""
        items: list[Any] = []
        while True:
            reply = await self._call(method, request)
            items.extend(getattr(reply, field))
            if not reply.more:
                return items
            request.after = getattr(items[-1], key)

    async def _stream(
        self,
        method: Callable[..., grpc.aio.UnaryStreamCall[Any, RpcReply]],
        request: object,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[RpcReply, None]:
        call = method(request, metadata=self._metadata, timeout=timeout_s)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise error_from_status(error) from error
        finally:
            call.cancel()
