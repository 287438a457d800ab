"""The registry over the wire, for every other room. One of the three doors.

Every method raises the errors of registry.types: the same kinds the registry itself raises, and
RegistryUnavailableError when it cannot be reached.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import grpc

from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryStub
from registry.bundle import seal_files
from registry.history import verify_chain
from registry.manifest import MANIFEST, TOTAL_BYTES_MAX
from registry.status import error_from_status
from registry.types import BrokenEntry, Deployment, RegistryUnavailableError, VersionRefusedError

RpcReply = TypeVar("RpcReply")

CHUNK_BYTES = 2**20
CALL_S = 10.0
REGISTER_S = 120.0
"""Registering moves up to 256 MiB and runs the golden rows."""

OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A restarted registry is found again within a second, not after two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long an attempt may take, too: a busy host needs more than a tenth of a second to answer.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.use_local_subchannel_pool", 1),
)


def wall_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def chunks(model: str, files: Mapping[str, bytes]) -> Iterator[pb.VersionChunk]:
    """Cut files into messages of at most 1 MiB, one file after another; empty files get one."""
    for name, content in files.items():
        for start in range(0, max(len(content), 1), CHUNK_BYTES):
            yield pb.VersionChunk(
                model=model, file=name, content=content[start : start + CHUNK_BYTES]
            )


def call_metadata(actor: str, token: str | None) -> list[tuple[str, str]]:
    """Return who asks, as a call's metadata. That is ASCII; a name need not be."""
    said = [("x-turnout-actor", quote(actor, safe=" @:/+()'"))]
    return said if token is None else [*said, ("authorization", f"Bearer {token}")]


class RegistryClient:
    """One connection to the registry, for one actor. Use it as an async context manager.

    address  host:port of the registry.
    actor    who is asking, 1 to 64 printable characters; stands in the history.
    token    where the registry has an identities file: decides actor and roles instead.
    """

    def __init__(
        self,
        address: str,
        actor: str,
        token: str | None = None,
        *,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._address = address
        self._actor = actor
        self._now_ms = now_ms
        self._metadata = call_metadata(actor, token)
        self._channel: grpc.aio.Channel | None = None
        self._stub: RegistryStub | None = None

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._address, options=OPTIONS)
        self._stub = RegistryStub(self._channel)  # type: ignore[no-untyped-call]
        return self

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
        """Hand in a version; sealed here, with the actor as author, when it has no manifest yet.

        The same manifest twice is the same version. VersionRefusedError says what is wrong.
        """
        if MANIFEST not in files:
            files = seal_files(
                files, model=model, author=self._actor, created_unix_ms=self._now_ms()
            )
        return await self._await_reply(
            self._rpc.RegisterVersion(
                chunks(model, files), metadata=self._metadata, timeout=REGISTER_S
            )
        )

    async def list_models(self) -> list[pb.ModelSummary]:
        """Every model that has a version, with its deployment, by name."""
        reply = await self._call(self._rpc.ListModels, pb.ListModelsRequest())
        return list(reply.models)

    async def list_versions(self, model: str) -> list[pb.Version]:
        """Versions of a model, oldest first; none for a model nobody registered."""
        reply = await self._call(self._rpc.ListVersions, pb.ListVersionsRequest(model=model))
        return list(reply.versions)

    async def get_version(self, model: str, version: str) -> pb.Version:
        """One version, by label ("7") or id (64 hex digits)."""
        return await self._call(self._rpc.GetVersion, pb.VersionName(model=model, version=version))

    async def fetch(self, model: str, version: str) -> dict[str, bytes]:
        """All files of a version, signature.json too; prove them with registry.bundle.verify."""
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

    async def set_status(
        self, model: str, version: str, status: pb.VersionStatus, reason: str
    ) -> pb.Version:
        """Move a version between development, staging and archived; production is Deploy's."""
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
        reject: bool = False,
    ) -> pb.Approval:
        """Allow (or refuse) to roll a version out under one policy. GateError for its author."""
        return await self._call(
            self._rpc.Approve,
            pb.ApproveRequest(
                model=model,
                version=version,
                policy_name=policy_name,
                policy_digest=policy_digest,
                accepted_shift=accepted_shift,
                reason=reason,
                reject=reject,
            ),
        )

    async def approvals(self, model: str, version: str) -> list[pb.Approval]:
        """Approvals and rejections of one version, oldest first."""
        reply = await self._call(
            self._rpc.ListApprovals, pb.VersionName(model=model, version=version)
        )
        return list(reply.approvals)

    # Deployments

    async def deployment(self, model: str) -> Deployment:
        """What is deployed; revision 0 and no production where nothing is yet."""
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
    ) -> Deployment:
        """Write *deployment* if its revision is still the newest; returns it as written.

        Raises RevisionConflictError (somebody was faster), GateError (what must happen first),
        FencedError (another controller), NotFoundError, BadRequestError.
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
                ),
            )
        )

    def watch_deployments(
        self,
        gateway: str = "",
        slot: int = 0,
        boot_id: int = 0,
        known_revisions: Mapping[str, int] | None = None,
    ) -> AsyncIterator[pb.DeploymentEvent]:
        """Yield what is newer than *held*, then every change. Ends with an error: call again.

        gateway  empty: a mere reader; else this worker counts as live while the stream stands.
        """
        request = pb.WatchDeploymentsRequest(
            gateway=gateway, slot=slot, boot_id=boot_id, known_revisions=known_revisions or {}
        )
        return self._stream(self._rpc.WatchDeployments, request)

    # Gateways

    async def report_state(self, state: pb.GatewayState) -> None:
        """Say what one worker holds; replaces what it said before."""
        await self._call(self._rpc.ReportState, state)

    def watch_states(self) -> AsyncIterator[pb.GatewayState]:
        """Yield the newest word of every live worker, then each new one; `gone` when one leaves."""
        return self._stream(self._rpc.WatchStates, pb.WatchStatesRequest())

    # Controllers

    async def acquire_lease(self, name: str, holder: str, seconds: int, token: int = 0) -> pb.Lease:
        """Take the lease, or renew it with its *token*. FencedError while another holds it."""
        return await self._call(
            self._rpc.AcquireLease,
            pb.LeaseRequest(name=name, holder=holder, seconds=seconds, token=token),
        )

    async def save_checkpoint(self, checkpoint: pb.Checkpoint) -> None:
        """Keep a controller's memory. RevisionConflictError when a later one is stored."""
        await self._call(self._rpc.SaveCheckpoint, checkpoint)

    async def load_checkpoint(self, rollout_id: str) -> pb.Checkpoint:
        """The newest one of a rollout; NotFoundError when there is none."""
        return await self._call(self._rpc.LoadCheckpoint, pb.CheckpointName(rollout_id=rollout_id))

    async def write_finding(self, finding: pb.Finding) -> pb.Finding:
        """Tell rollout something; sequence, who and time are filled in by the registry."""
        return await self._call(self._rpc.WriteFinding, finding)

    def watch_findings(self, after: int = 0) -> AsyncIterator[pb.Finding]:
        """Yield findings with a larger sequence than *after*, then each new one."""
        return self._stream(self._rpc.WatchFindings, pb.WatchFindingsRequest(after=after))

    def findings(self, after: int = 0) -> AsyncIterator[pb.Finding]:
        """Yield those there are with a larger sequence than *after*, oldest first, then end."""
        asked = pb.WatchFindingsRequest(after=after, those_there_are=True)
        return self._stream(self._rpc.WatchFindings, asked, CALL_S)

    # History

    async def history(
        self, after: int = 0, limit: int = 0, object_prefix: str = ""
    ) -> pb.ListHistoryReply:
        """Entries with a larger seq than *after*, and the signed head; limit 0 means 1,000."""
        return await self._call(
            self._rpc.ListHistory,
            pb.ListHistoryRequest(after=after, limit=limit, object=object_prefix),
        )

    async def identify(self, metadata: Sequence[tuple[str, str]]) -> pb.Caller:
        """Return who stands behind another call's *metadata*; UnknownActorError: nobody known."""
        return await self._await_reply(
            self._rpc.WhoAmI(pb.WhoAmIRequest(), metadata=metadata, timeout=CALL_S)
        )

    async def audit(
        self, public_key: bytes | None = None
    ) -> tuple[pb.SignedHead, BrokenEntry | None]:
        """Fetch the whole history and prove it; returns (head, the first broken entry or None).

        public_key  the registry's, as the auditor knows it; None: whatever the registry says it
                    is, which proves the chain, but not who wrote it.
        """
        entries: list[pb.HistoryEntry] = []
        while True:
            page = await self.history(after=entries[-1].seq if entries else 0)
            entries.extend(page.entries)
            # A page that reaches its own head is the last, and of the same instant as that head.
            if not page.entries or page.entries[-1].seq >= page.head.seq:
                break
        key = page.head.public_key if public_key is None else public_key
        return page.head, verify_chain(entries, page.head, key)

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

    async def _stream(
        self,
        method: Callable[..., grpc.aio.UnaryStreamCall[Any, RpcReply]],
        request: object,
        timeout_s: float | None = None,
    ) -> AsyncIterator[RpcReply]:
        call = method(request, metadata=self._metadata, timeout=timeout_s)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise error_from_status(error) from error
        finally:
            call.cancel()
