"""Clients of the registry, the rollout controller and the gateway, for one command.

A client is imported when it is opened. gRPC and ONNX Runtime take most of a second to import, and
`turnout --help` needs neither.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from registry.types import Deployment, standing_approvals
from turnout.cli.context import CommandContext, monitoring_address
from turnout.errors import OperatorError
from turnout.views.cards import INITIAL
from turnout.views.terminal import terminal

if TYPE_CHECKING:
    from monitoring.client import MonitoringClient
    from protos.explain_pb2 import ExplainReply, ExplainRequest
    from registry.client import RegistryClient
    from turnout.cli.rollout_client import RolloutClient
    from turnout_client import PredictClient

ExplainCall: TypeAlias = "Callable[[ExplainRequest, float], Awaitable[ExplainReply]]"
"""A request and the seconds within which it is answered -> the explanation."""

CALLS_OPEN = 64
"""Calls of a file's rows that are open at a time, half of what the gateway client's four
connections carry."""
STANDARD_POLICY = "standard"
"""The policy of models whose project names no default."""


def open_registry(context: CommandContext) -> "RegistryClient":
    """Return a registry client that acts as the command's actor; an async context manager."""
    from registry.client import RegistryClient

    address, certificate = context.registry_address(), _certificate(context)
    return RegistryClient(address, context.actor, context.bearer_token(), certificate=certificate)


def open_rollouts(context: CommandContext) -> "RolloutClient":
    """Return a client of the rollout controller, which listens on the registry's address."""
    from turnout.cli.rollout_client import RolloutClient

    address, certificate = context.registry_address(), _certificate(context)
    return RolloutClient(address, context.actor, context.bearer_token(), certificate=certificate)


def open_monitoring(context: CommandContext, address: str = "") -> "MonitoringClient":
    """Return a client of monitoring, by default on the registry's address; a context manager."""
    from monitoring.client import MonitoringClient

    where = monitoring_address(context, address)
    return MonitoringClient(
        where, context.actor, context.bearer_token(), certificate=_certificate(context)
    )


@asynccontextmanager
async def open_explainer(context: CommandContext) -> "AsyncIterator[ExplainCall]":
    """Yield a call of the explainer, which listens on the registry's address."""
    from access.peer_tls import open_channel
    from protos.explain_pb2_grpc import ExplainerStub
    from registry.client import call_metadata

    token = context.bearer_token()
    channel = open_channel(context.registry_address(), _certificate(context), token)
    stub = ExplainerStub(channel)  # type: ignore[no-untyped-call]

    async def call(request: "ExplainRequest", timeout_s: float) -> "ExplainReply":
        metadata = call_metadata(context.actor, token)
        reply: ExplainReply = await stub.Explain(request, metadata=metadata, timeout=timeout_s)
        return reply

    async with channel:
        yield call


async def require_model(client: "RegistryClient", model: str) -> None:
    """Raise OperatorError unless the registry knows the model, here or elsewhere."""
    known = {item.model for item in await client.list_models()}
    known |= {item.model for item in await client.outside_models()}
    if model not in known:
        raise OperatorError(f"there is no model {model!r}; turnout models lists all of them")


def _certificate(context: CommandContext) -> Path | None:
    """Return the file of the registry's certificate; say so if the certificate ends soon."""
    from access.certificate_ends import end_warning
    from access.peer_tls import PeerError

    file = context.certificate()
    # A file that cannot be read is refused by the client, with the same words for every command.
    with suppress(PeerError):
        if file is not None and (warning := end_warning(file, time.time())):
            terminal(context.json).hint(warning)
    return file


def open_gateway(context: CommandContext) -> "PredictClient":
    """Return a client of the gateway; an async context manager."""
    from turnout_client import PredictClient

    return PredictClient(context.gateway_address())


async def policy_digest(context: CommandContext, name: str) -> str:
    """Return the digest of the rollout policy *name*.

    Empty for `initial`, which is no rollout policy. OperatorError when there is no such policy.
    """
    if name == INITIAL:
        return ""
    async with open_rollouts(context) as client:
        reply = await client.list_policies()
    digests = {policy.name: policy.digest for policy in reply.policies}
    if name not in digests:
        problems = [f": {item.problem}" for item in reply.unusable if item.name == name]
        raise OperatorError(
            f"there is no rollout policy {name!r} that can be used{''.join(problems)}; there are "
            f"{', '.join(sorted(digests))}, and {INITIAL} for a model's first version"
        )
    return digests[name]


async def default_policy(context: CommandContext, model: str) -> str:
    """Return the name of the policy of a rollout of *model* that names none, or its edition."""
    async with open_rollouts(context) as client:
        reply = await client.list_policies()
    name = reply.defaults.get(model, STANDARD_POLICY)
    edition = f"{name}@{model}"
    return edition if edition in {policy.name for policy in reply.policies} else name


async def deploy_approved(
    context: CommandContext, proposed: Deployment, *, break_glass: bool = False
) -> Deployment:
    """Write *proposed* by compare-and-set on its revision; return the deployment as written.

    When the proposed canary (or else production version) is new in this deployment, its newest
    approval that stands is named in the change. Without one the registry refuses, unless
    *break_glass* is set.
    """
    async with open_registry(context) as client:
        current = await client.deployment(proposed.model)
        version = proposed.canary or proposed.production
        digest = ""
        if version and version not in (current.canary, current.production):
            approvals = standing_approvals(await client.approvals(proposed.model, version))
            # Production at once needs a direct approval, and a first version an initial one.
            fitting = [
                approval
                for approval in approvals
                if (approval.policy_name == INITIAL) == (not current.production)
                and (approval.direct or version == proposed.canary)
            ]
            for newest in (fitting or approvals)[-1:]:
                proposed = replace(proposed, approval_id=newest.id)
                digest = newest.policy_digest
        return await client.deploy(proposed, policy_digest=digest, break_glass=break_glass)
