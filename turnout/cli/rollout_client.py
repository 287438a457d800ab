"""The rollout controller over the wire, for commands and the demo."""

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Self

import grpc

from protos import rollout_pb2 as pb
from protos.rollout_pb2_grpc import RolloutsStub
from registry.client import call_metadata

CALL_S = 15.0


class RolloutClient:
    """One connection for one actor; an async context manager.

    token  where the registry has an identities file: decides actor and roles instead.

    Every method raises grpc.aio.AioRpcError with the controller's own words.
    """

    def __init__(self, address: str, actor: str, token: str | None = None) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._service: Any = RolloutsStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = call_metadata(actor, token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._channel.close()

    async def start(self, model: str, version: str, policy: str, reason: str) -> pb.RolloutStatus:
        """Start rolling *version* out under the policy of that name."""
        request = pb.StartRolloutRequest(model=model, version=version, policy=policy, reason=reason)
        return self._status(await self._call("Start", request))

    async def status(self, model: str) -> pb.RolloutStatus:
        """The newest rollout of *model*."""
        return self._status(await self._call("GetStatus", pb.RolloutSelector(model=model)))

    async def watch(self, model: str, rollout_id: str = "") -> AsyncGenerator[pb.RolloutStatus]:
        """Yield the status now and at every change."""
        asked = pb.RolloutSelector(model=model, rollout_id=rollout_id)
        call = self._service.WatchStatus(asked, metadata=self._metadata)
        try:
            async for status in call:
                yield self._status(status)
        finally:
            call.cancel()

    async def history(self, model: str) -> list[pb.RolloutStatus]:
        """Every rollout so far; of every model where *model* is empty."""
        reply = await self._call("ListRollouts", pb.RolloutSelector(model=model))
        return list(reply.rollouts)

    async def policies(self) -> dict[str, pb.Policy]:
        """The named policies."""
        reply = await self._call("ListPolicies", pb.ListPoliciesRequest())
        return {policy.name: policy for policy in reply.policies}

    async def forecast(self, model: str, policy: str, failure_rate: float) -> pb.ForecastReply:
        """How long each step would take at today's traffic."""
        asked = pb.ForecastRequest(model=model, policy=policy, failure_rate=failure_rate)
        told = await self._call("Forecast", asked)
        assert isinstance(told, pb.ForecastReply)
        return told

    async def explain(self, model: str) -> pb.RolloutExplanation:
        """Why the newest rollout stands where it stands."""
        told = await self._call("Explain", pb.RolloutSelector(model=model))
        assert isinstance(told, pb.RolloutExplanation)
        return told

    async def send_command(
        self,
        verb: str,
        model: str,
        reason: str,
        *,
        full: bool = False,
        to: str = "",
        share_bp: int = 0,
    ) -> pb.RolloutStatus:
        """Abort, Promote, Pause, Resume, Retry, Undo or SetWeight."""
        request = pb.RolloutCommand(
            model=model, reason=reason, full=full, to_version=to, share_bp=share_bp
        )
        return self._status(await self._call(verb, request))

    async def _call(self, method: str, request: object) -> Any:  # noqa: ANN401  stubs are untyped
        return await getattr(self._service, method)(
            request, metadata=self._metadata, timeout=CALL_S
        )

    @staticmethod
    def _status(message: object) -> pb.RolloutStatus:
        assert isinstance(message, pb.RolloutStatus)
        return message
