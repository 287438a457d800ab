"""A client of the rollout controller, for the commands and the demo."""

from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from access.peer_tls import open_channel
from protos import rollout_pb2 as pb
from protos.rollout_pb2_grpc import RolloutsStub
from registry.client import call_metadata

CALL_S = 15.0


class RolloutClient:
    """One connection for one actor; an async context manager.

    token        for a registry with an identities file, which reads actor and roles from it and
                 ignores *actor*.
    certificate  file of the controller's certificate, which it must prove to have; None: plain
                 text, for a system without identities on the same machine.

    Every method raises grpc.aio.AioRpcError; its details are the controller's message.
    """

    def __init__(
        self, address: str, actor: str, token: str | None = None, *, certificate: Path | None = None
    ) -> None:
        self._channel = open_channel(address, certificate, token)
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
        """Start a rollout of *version* under the policy *policy*; return its first status."""
        request = pb.StartRolloutRequest(model=model, version=version, policy=policy, reason=reason)
        return self._status(await self._call("Start", request))

    async def status(self, model: str) -> pb.RolloutStatus:
        """Return the status of the newest rollout of *model*."""
        return self._status(await self._call("GetStatus", pb.RolloutSelector(model=model)))

    async def watch(self, model: str, rollout_id: str = "") -> AsyncGenerator[pb.RolloutStatus]:
        """Yield the status now and after every change; the newest rollout's when no id is given."""
        selector = pb.RolloutSelector(model=model, rollout_id=rollout_id)
        call = self._service.WatchStatus(selector, metadata=self._metadata)
        try:
            async for status in call:
                yield self._status(status)
        finally:
            call.cancel()

    async def history(self, model: str) -> list[pb.RolloutStatus]:
        """Return every rollout so far; those of all models when *model* is empty."""
        rollouts: list[pb.RolloutStatus] = []
        more = True
        while more:
            after = rollouts[-1].rollout_id if rollouts else ""
            request = pb.ListRolloutsRequest(model=model, after=after)
            reply = await self._call("ListRollouts", request)
            rollouts.extend(reply.rollouts)
            more = reply.more
        return rollouts

    async def list_policies(self) -> pb.ListPoliciesReply:
        """Return the rollout policies, those that cannot be used, and the models' defaults."""
        reply = await self._call("ListPolicies", pb.ListPoliciesRequest())
        assert isinstance(reply, pb.ListPoliciesReply)
        return reply

    async def policies(self) -> dict[str, pb.Policy]:
        """Return every rollout policy by name."""
        return {policy.name: policy for policy in (await self.list_policies()).policies}

    async def forecast(self, model: str, policy: str, failure_rate: float) -> pb.ForecastReply:
        """Return how long each step of *policy* takes at today's traffic.

        failure_rate  share of production's keys that fail; 0 means the controller's default.
        """
        request = pb.ForecastRequest(model=model, policy=policy, failure_rate=failure_rate)
        reply = await self._call("Forecast", request)
        assert isinstance(reply, pb.ForecastReply)
        return reply

    async def explain(self, model: str) -> pb.RolloutExplanation:
        """Return every decision of the newest rollout of *model*, and its evidence."""
        reply = await self._call("Explain", pb.RolloutSelector(model=model))
        assert isinstance(reply, pb.RolloutExplanation)
        return reply

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
        """Call the RPC *verb*: Abort, Promote, Pause, Resume, Retry, Undo or SetWeight.

        full      for Promote: skip every remaining stage.
        to        for Undo: the version that gets all traffic.
        share_bp  for SetWeight: the candidate's share, in basis points.
        """
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
