"""The service turnout.v1.Rollouts: people and programs start, watch and command rollouts by it."""

# ruff: noqa: ARG002, N802  the names and parameters are rollout.proto's

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from access.bounds import BoundError, first_page
from access.interceptor import caller_identity
from access.requests import parse_request
from access.streams import OpenStreams, TooManyStreamsError
from protos import rollout_pb2 as pb
from registry.types import (
    BadRequestError,
    FencedError,
    GateError,
    NotFoundError,
    RegistryUnavailableError,
    RevisionConflictError,
)
from rollout.api.commands import RolloutCommands
from rollout.api.explain import explanation_text
from rollout.api.watched_statuses import WatchedStatuses
from rollout.controller.controller import Controller
from rollout.errors import (
    CheckpointError,
    NotLeadingError,
    RolloutRefusedError,
    UnknownRolloutError,
)

SERVICE = pb.DESCRIPTOR.services_by_name["Rollouts"]

log = logging.getLogger(__name__)

STATUS_BY_ERROR: dict[type[Exception], grpc.StatusCode] = {
    UnknownRolloutError: grpc.StatusCode.NOT_FOUND,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    RolloutRefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    CheckpointError: grpc.StatusCode.FAILED_PRECONDITION,
    GateError: grpc.StatusCode.FAILED_PRECONDITION,
    BadRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    BoundError: grpc.StatusCode.INVALID_ARGUMENT,
    DecodeError: grpc.StatusCode.INVALID_ARGUMENT,
    TooManyStreamsError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RevisionConflictError: grpc.StatusCode.ABORTED,
    NotLeadingError: grpc.StatusCode.UNAVAILABLE,
    FencedError: grpc.StatusCode.UNAVAILABLE,
    RegistryUnavailableError: grpc.StatusCode.UNAVAILABLE,
}

Context = Any  # grpc.aio.ServicerContext, which is generic in the messages of each RPC


async def _abort_with_status(context: Context, error: Exception) -> NoReturn:
    """End the call with the status and text of *error*.

    For an error that is not in STATUS_BY_ERROR the caller gets an error id, and the log has the
    cause.
    """
    if isinstance(error, grpc.aio.AbortError):
        raise error
    code = next((code for kind, code in STATUS_BY_ERROR.items() if isinstance(error, kind)), None)
    if code is None:
        error_id = secrets.token_hex(4)
        log.error("rollout: error %s", error_id, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"error {error_id}; our log has its cause")
    await context.abort(code, str(error))
    raise AssertionError("abort always raises")


def rollouts_handlers(service: "RolloutsService") -> grpc.GenericRpcHandler:
    """Return the handler with which a grpc.aio server serves every RPC of turnout.v1.Rollouts."""
    return grpc.method_handlers_generic_handler(
        SERVICE.full_name, {method.name: _handler(method, service) for method in SERVICE.methods}
    )


def _handler(
    method: MethodDescriptor, service: "RolloutsService"
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Wrap an RPC: its request is checked, and every error becomes a status of STATUS_BY_ERROR."""
    request_type: type[Message] = GetMessageClass(method.input_type)
    behaviour: Any = getattr(service, method.name)

    async def reply_once(content: bytes, context: Context) -> Message:
        try:
            reply: Message = await behaviour(parse_request(request_type, content), context)
        except Exception as error:  # noqa: BLE001  the one place that turns errors into statuses
            await _abort_with_status(context, error)
        return reply

    async def reply_stream(content: bytes, context: Context) -> None:
        try:
            replies = behaviour(parse_request(request_type, content), context)
            async with aclosing(replies):
                async for reply in replies:
                    await context.write(reply)
        except Exception as error:  # noqa: BLE001  as in reply_once
            await _abort_with_status(context, error)

    # Requests are parsed above: with a request_deserializer grpcio would parse them unchecked.
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(reply_stream, None, _serialize)
    return grpc.unary_unary_rpc_method_handler(reply_once, None, _serialize)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


class RolloutsService:
    """The RPCs, named as in protos/rollout.proto. access/rules.py says who may call which."""

    def __init__(self, controller: Controller, commands: RolloutCommands) -> None:
        self._controller = controller
        self._commands = commands
        self._watched = WatchedStatuses(controller)
        self._streams = OpenStreams()

    async def Start(self, request: pb.StartRolloutRequest, context: Context) -> pb.RolloutStatus:
        """Begin a rollout with its preload."""
        rollout = await self._commands.start(request, caller_identity().actor)
        return rollout.status(intervals=True)

    async def GetStatus(self, request: pb.RolloutSelector, context: Context) -> pb.RolloutStatus:
        """Return the status of a rollout."""
        return self._controller.rollout(request.model, request.rollout_id).status(intervals=True)

    async def WatchStatus(
        self, request: pb.RolloutSelector, context: Context
    ) -> AsyncIterator[pb.RolloutStatus]:
        """Yield the status now and after each change, until the rollout has ended."""
        with self._streams.opened(context):
            statuses = self._watched.watch(request.model, request.rollout_id)
            async with aclosing(statuses):
                async for status in statuses:
                    yield status

    async def ListRollouts(
        self, request: pb.ListRolloutsRequest, context: Context
    ) -> pb.ListRolloutsReply:
        """Return a page of rollouts, newest first, also those of before this controller began."""
        rollouts, more = await self._commands.list_rollouts(request.model, request.after)
        return pb.ListRolloutsReply(rollouts=rollouts, more=more)

    async def ListPolicies(
        self,
        request: pb.ListPoliciesRequest,
        context: Context,
    ) -> pb.ListPoliciesReply:
        """Return the policies, each with the digest that approvals name."""
        book = await self._controller.refresh_policies()
        return pb.ListPoliciesReply(
            policies=[
                pb.Policy(
                    name=policy.name,
                    digest=policy.digest,
                    json=policy.json.decode(),
                    project=book.project_of(policy.name),
                )
                for policy in book.policies.values()
            ],
            unusable=[
                pb.UnusablePolicy(name=item.name, project=item.project, problem=item.problem)
                for item in book.unusable
            ],
            defaults=book.defaults,
        )

    async def Explain(self, request: pb.RolloutSelector, context: Context) -> pb.RolloutExplanation:
        """Return a rollout's status, decisions and evidence, and a text that explains them."""
        rollout = self._controller.rollout(request.model, request.rollout_id)
        status = rollout.status(intervals=True)
        # The newest decisions that fit.
        newest_first, _ = first_page(reversed(rollout.decisions))
        decisions = newest_first[::-1]
        return pb.RolloutExplanation(
            status=status,
            decisions=decisions,
            text=explanation_text(status, decisions),
            evidence_history=rollout.evidence_history,
            decisions_left_out=len(rollout.decisions) - len(decisions),
        )

    async def Abort(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Give all traffic back to the baseline."""
        actor = caller_identity().actor
        return await self._commands.abort(request.model, actor, request.reason)

    async def Promote(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Move to the next position, or at once to the watch."""
        rollout = await self._commands.promote(
            request.model, caller_identity().actor, request.reason, full=request.full
        )
        return rollout.status(intervals=True)

    async def Pause(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Stay at the position. Faults still roll back."""
        return await self._pause(request, context, paused=True)

    async def Resume(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Go on after a pause or a judging error."""
        return await self._pause(request, context, paused=False)

    async def _pause(
        self, request: pb.RolloutCommand, context: Context, *, paused: bool
    ) -> pb.RolloutStatus:
        actor = caller_identity().actor
        rollout = await self._commands.pause(request.model, actor, request.reason, paused=paused)
        return rollout.status(intervals=True)

    async def Retry(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Roll out again the version that was rolled back or refused."""
        rollout = await self._commands.retry(request.model, caller_identity().actor, request.reason)
        return rollout.status(intervals=True)

    async def Undo(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Give all traffic to an earlier production version."""
        actor = caller_identity().actor
        return await self._commands.undo(request.model, request.to_version, actor, request.reason)

    async def SetWeight(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Move up or down to another share of the policy."""
        rollout = await self._commands.set_weight(
            request.model, request.share_bp, caller_identity().actor, request.reason
        )
        return rollout.status(intervals=True)

    async def Forecast(self, request: pb.ForecastRequest, context: Context) -> pb.ForecastReply:
        """Return how long each step takes at today's traffic, and what it cannot detect."""
        return await self._commands.forecast(request)
