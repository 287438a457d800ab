"""turnout.v1.Rollouts: starts, shows and steers rollouts over the wire."""

# ruff: noqa: ARG002, N802  the names and parameters are rollout.proto's

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc

from protos import rollout_pb2 as pb
from protos import rollout_pb2_grpc
from registry.types import (
    BadRequestError,
    FencedError,
    GateError,
    NotAllowedError,
    NotFoundError,
    RegistryUnavailableError,
    RevisionConflictError,
    UnknownActorError,
)
from rollout.api.commands import RolloutCommands
from rollout.api.explain import explanation_text
from rollout.controller.controller import Controller
from rollout.errors import (
    CheckpointError,
    NotLeadingError,
    RolloutRefusedError,
    UnknownRolloutError,
)

log = logging.getLogger(__name__)

WATCH_S_MIN = 0.05
"""Between two messages of WatchStatus: a person reads it."""

STATUS_BY_ERROR: dict[type[Exception], grpc.StatusCode] = {
    UnknownRolloutError: grpc.StatusCode.NOT_FOUND,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    RolloutRefusedError: grpc.StatusCode.FAILED_PRECONDITION,
    CheckpointError: grpc.StatusCode.FAILED_PRECONDITION,
    GateError: grpc.StatusCode.FAILED_PRECONDITION,
    BadRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownActorError: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowedError: grpc.StatusCode.PERMISSION_DENIED,
    RevisionConflictError: grpc.StatusCode.ABORTED,
    NotLeadingError: grpc.StatusCode.UNAVAILABLE,
    FencedError: grpc.StatusCode.UNAVAILABLE,
    RegistryUnavailableError: grpc.StatusCode.UNAVAILABLE,
}

Context = Any  # grpc.aio.ServicerContext, generic in messages this module does not care for


async def _abort_with_status(context: Context, error: Exception) -> NoReturn:
    """End the call with our status and words; anything unforeseen keeps its cause in our log."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    code = next((code for kind, code in STATUS_BY_ERROR.items() if isinstance(error, kind)), None)
    if code is None:
        error_id = secrets.token_hex(4)
        log.error("rollout: error %s", error_id, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"error {error_id}; our log has its cause")
    await context.abort(code, str(error))
    raise AssertionError("abort always raises")


Request = TypeVar("Request")
Reply = TypeVar("Reply")


def errors_to_status(
    rpc: Callable[["RolloutsService", Request, Context], Awaitable[Reply]],
) -> Callable[["RolloutsService", Request, Context], Awaitable[Reply]]:
    """Wrap an RPC so that only our words leave."""

    @wraps(rpc)
    async def wrapped(self: "RolloutsService", request: Request, context: Context) -> Reply:
        try:
            return await rpc(self, request, context)
        except Exception as error:  # noqa: BLE001  the one place that turns errors into statuses
            await _abort_with_status(context, error)

    return wrapped


CREDENTIAL_HEADERS = ("x-turnout-actor", "authorization")
OPERATOR = "operator"


class RolloutsService(rollout_pb2_grpc.RolloutsServicer):
    """One method an RPC, named as in protos/rollout.proto."""

    def __init__(self, controller: Controller, commands: RolloutCommands) -> None:
        self._controller = controller
        self._commands = commands

    async def _operator_name(self, context: Context) -> str:
        """Return who asks, as the registry knows him by the call's own metadata.

        UnknownActorError when it does not, NotAllowedError when he is no operator.
        """
        said = [
            (name, str(value))
            for name, value in context.invocation_metadata() or ()
            if name in CREDENTIAL_HEADERS
        ]
        caller = await self._commands.who_is(said)
        if OPERATOR not in caller.roles:
            raise NotAllowedError(
                f"steering a rollout needs {OPERATOR}; {caller.actor!r} is "
                f"{' and '.join(caller.roles) or 'nothing'}"
            )
        return caller.actor

    @errors_to_status
    async def Start(self, request: pb.StartRolloutRequest, context: Context) -> pb.RolloutStatus:
        """Begin a rollout with its preload."""
        trial = await self._commands.start(request, await self._operator_name(context))
        return trial.status(intervals=True)

    @errors_to_status
    async def GetStatus(self, request: pb.RolloutSelector, context: Context) -> pb.RolloutStatus:
        """Return where a rollout stands."""
        return self._controller.rollout(request.model, request.rollout_id).status(intervals=True)

    async def WatchStatus(
        self, request: pb.RolloutSelector, context: Context
    ) -> AsyncIterator[pb.RolloutStatus]:
        """Yield the status now and after each change, until the rollout has ended."""
        shown = None
        try:
            while True:
                changed = self._controller.status_changed
                trial = self._controller.rollout(request.model, request.rollout_id)
                status = trial.status(intervals=True)
                if status != shown:
                    yield status
                    shown = status
                if self._controller.is_finished(trial):
                    return
                await changed.wait()
                await asyncio.sleep(WATCH_S_MIN)
        except Exception as error:  # noqa: BLE001  as in refusing
            await _abort_with_status(context, error)

    @errors_to_status
    async def ListRollouts(
        self, request: pb.RolloutSelector, context: Context
    ) -> pb.ListRolloutsReply:
        """Return every rollout, newest first: those of before this controller began, too."""
        return pb.ListRolloutsReply(rollouts=await self._commands.list_rollouts(request.model))

    @errors_to_status
    async def ListPolicies(
        self,
        request: pb.ListPoliciesRequest,
        context: Context,
    ) -> pb.ListPoliciesReply:
        """Return the named policies, each with the digest an approval names."""
        policies = self._controller.policies.values()
        return pb.ListPoliciesReply(
            policies=[
                pb.Policy(name=one.name, digest=one.digest, json=one.json.decode())
                for one in policies
            ]
        )

    @errors_to_status
    async def Explain(self, request: pb.RolloutSelector, context: Context) -> pb.RolloutExplanation:
        """Tell a rollout in words, with every decision and its evidence."""
        trial = self._controller.rollout(request.model, request.rollout_id)
        status = trial.status(intervals=True)
        return pb.RolloutExplanation(
            status=status,
            decisions=trial.decisions,
            text=explanation_text(status, trial.decisions),
            evidence_history=trial.evidence_history,
        )

    @errors_to_status
    async def Abort(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Give all traffic back to the baseline."""
        actor = await self._operator_name(context)
        return await self._commands.abort(request.model, actor, request.reason)

    @errors_to_status
    async def Promote(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Go one place on, or straight to watched production."""
        trial = await self._commands.promote(
            request.model, await self._operator_name(context), request.reason, full=request.full
        )
        return trial.status(intervals=True)

    @errors_to_status
    async def Pause(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Stay; faults still roll back."""
        return await self._pause(request, context, paused=True)

    @errors_to_status
    async def Resume(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Go on."""
        return await self._pause(request, context, paused=False)

    async def _pause(
        self, request: pb.RolloutCommand, context: Context, *, paused: bool
    ) -> pb.RolloutStatus:
        actor = await self._operator_name(context)
        trial = await self._commands.pause(request.model, actor, request.reason, paused=paused)
        return trial.status(intervals=True)

    @errors_to_status
    async def Retry(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Roll the same version out again."""
        trial = await self._commands.retry(
            request.model, await self._operator_name(context), request.reason
        )
        return trial.status(intervals=True)

    @errors_to_status
    async def Undo(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """Back to a version that was production before."""
        actor = await self._operator_name(context)
        return await self._commands.undo(request.model, request.to_version, actor, request.reason)

    @errors_to_status
    async def SetWeight(self, request: pb.RolloutCommand, context: Context) -> pb.RolloutStatus:
        """To another of the policy's shares, up or down."""
        trial = await self._commands.set_weight(
            request.model, request.share_bp, await self._operator_name(context), request.reason
        )
        return trial.status(intervals=True)

    @errors_to_status
    async def Forecast(self, request: pb.ForecastRequest, context: Context) -> pb.ForecastReply:
        """Say how long each step would take at today's traffic, and what it could not see."""
        return self._commands.forecast(request)
