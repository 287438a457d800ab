"""A door to the registry for one child that trains: it has no token, and may do only its own run.

The child calls a socket in a folder of its own. Each call goes on in the runner's name if it is one
of READS, or if it is about the child's run and model. So the child needs no token, and what its
training code could do with the door is what a run does anyway.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from protos import registry_pb2 as pb
from registry.client import RegistryClient, RelayedError
from registry.types import FencedError

SERVICE = "/turnout.v1.Registry/"
READS = frozenset(
    {
        "FetchVersion",
        "GetDeployment",
        "GetProject",
        "GetRun",
        "GetVersion",
        "ListModels",
        "ListProjects",
        "ListVersions",
    }
)
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
Check = Callable[[bytes], str]
"""Returns why a request is refused; empty: it is not."""


class RegistryDoor(grpc.GenericRpcHandler):
    """The door for the child of one queued run. Use it as an async context manager."""

    def __init__(self, client: RegistryClient, run: pb.Run) -> None:
        self._client = client
        self._run = run
        self.begun: pb.Run | None = None
        """The run as the child has begun it."""
        self.answered: pb.Run | None = None
        """The run of this key, if the child was told that it runs elsewhere or has ended."""
        self.ended: pb.Run | None = None
        """The run with the end that the child gave it."""
        self.fenced = asyncio.Event()
        """Set when the run is no longer the child's: cancelled, or another trainer has it."""
        self._checks: dict[str, Check] = {
            "BeginRun": self._check_begin,
            "AppendRunLog": self._check_run(pb.RunLogPart),
            "EndRun": self._check_run(pb.EndRunRequest),
            "RegisterVersion": self._check_registration,
        }

    async def __aenter__(self) -> Self:
        # The path of a socket is short, so it is no folder of the operator's.
        self._folder = tempfile.TemporaryDirectory(prefix="turnout-door-")
        self.address = f"unix:{Path(self._folder.name) / 'registry'}"
        options = (("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),)
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((self,))
        self._server.add_insecure_port(self.address)
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(None)
        self._folder.cleanup()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Return how a call is relayed; None for a method that the child may not call."""
        name = details.method.removeprefix(SERVICE)
        check = self._checks.get(name)
        if name not in READS and check is None:
            return None

        async def relay(
            requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[Any, Any]"
        ) -> AsyncIterator[bytes]:
            # The first message says what the call is about.
            first = await anext(requests, b"")
            if check is not None and (refusal := check(first)):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
            try:
                async for reply in self._client.relay(details.method, _chained(first, requests)):
                    self._note(name, reply)
                    yield reply
            except RelayedError as error:
                if isinstance(error.meaning, FencedError):
                    self.fenced.set()
                await context.abort(error.code, str(error), error.metadata)

        return grpc.stream_stream_rpc_method_handler(relay)

    def _note(self, name: str, reply: bytes) -> None:
        if name == "BeginRun":
            answer = pb.BeginRunReply.FromString(reply)
            if answer.begun:
                self.begun = answer.run
            else:
                self.answered = answer.run
        elif name == "EndRun":
            self.ended = pb.Run.FromString(reply)

    def _check_begin(self, content: bytes) -> str:
        request = pb.BeginRunRequest.FromString(content)
        if (request.model, request.key) == (self._run.model, self._run.key):
            return ""
        return f"this trainer may begin run {self._run.key!r} of {self._run.model!r} only"

    def _check_run(self, kind: type[pb.RunLogPart | pb.EndRunRequest]) -> Check:
        def check(content: bytes) -> str:
            named = kind.FromString(content).id
            return "" if named == self._run.id else f"this trainer may write run {self._run.id}"

        return check

    def _check_registration(self, content: bytes) -> str:
        model = pb.VersionChunk.FromString(content).model
        if model in ("", self._run.model):
            return ""
        return f"this trainer may register versions of {self._run.model!r} only"


async def _chained(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for message in others:
        yield message
