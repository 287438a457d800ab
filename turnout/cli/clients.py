"""How a command reaches the system: the registry, the rollouts, the gateway.

Clients are imported when one is asked for: gRPC and ONNX Runtime take most of a second to load,
and `turnout --help` needs neither.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from registry.types import Deployment
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.views.cards import INITIAL

if TYPE_CHECKING:
    from registry.client import RegistryClient
    from turnout.cli.rollout_client import RolloutClient
    from turnout_client import PredictClient


def open_registry(context: CommandContext) -> "RegistryClient":
    """Return the registry as the person who asks; an async context manager."""
    from registry.client import RegistryClient

    return RegistryClient(context.registry_address(), context.actor, context.token)


def open_rollouts(context: CommandContext) -> "RolloutClient":
    """Return the rollout controller, which lives beside the registry."""
    from turnout.cli.rollout_client import RolloutClient

    return RolloutClient(context.registry_address(), context.actor, context.token)


def open_gateway(context: CommandContext) -> "PredictClient":
    """Return the gateway; an async context manager."""
    from turnout_client import PredictClient

    return PredictClient(context.gateway_address())


async def policy_digest(context: CommandContext, name: str) -> str:
    """Return the digest of the rollout policy *name*; empty for `initial`, which is no rollout."""
    if name == INITIAL:
        return ""
    async with open_rollouts(context) as client:
        known = await client.policies()
    if name not in known:
        raise OperatorError(
            f"there is no rollout policy {name!r}; there are {', '.join(sorted(known))}, and "
            f"{INITIAL} for a model's first version"
        )
    return known[name].digest


async def deploy_approved(
    context: CommandContext, proposed: Deployment, *, break_glass: bool = False
) -> Deployment:
    """Write *proposed* by compare-and-set, under the newest approval of what it newly names."""
    async with open_registry(context) as client:
        held = await client.deployment(proposed.model)
        newest = proposed.canary or proposed.production
        digest = ""
        if newest and newest not in (held.canary, held.production):
            approvals = [
                one for one in await client.approvals(proposed.model, newest) if not one.rejected
            ]
            if approvals:
                given = max(approvals, key=lambda one: one.at_unix_ms)
                proposed = replace(proposed, approval_id=given.id)
                digest = given.policy_digest
        return await client.deploy(proposed, policy_digest=digest, break_glass=break_glass)
