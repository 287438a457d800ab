"""`turnout adopt --try`: approves and deploys an adopted version, and asks it once."""

import asyncio
import io
import json
import shlex
import time
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import typer

from turnout.adoption.view_rows import row_ids
from turnout.cli.clients import open_gateway, open_registry
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.views.cards import INITIAL
from turnout.views.terminal import terminal

if TYPE_CHECKING:
    from protos import registry_pb2
    from turnout.adoption.adoption_run import AdoptedVersion

REASON = "first try"
APPLIED_S_MAX = 20.0
"""Time in which the gateways apply a deployment."""
POLL_S = 0.1
KEY = "first-row"
"""Id that stands for an entity of which the views know none."""


def try_version(
    ctx: typer.Context,
    context: CommandContext,
    version: "registry_pb2.Version",
    adopted: "AdoptedVersion",
    approver: str,
) -> dict[str, Any]:
    """Run approve, preload and set as a user types them, then predict one sample row.

    Raises OperatorError in production mode, where one person may not do all of this.
    """
    if context.environment is not None and context.environment.is_production:
        raise OperatorError(
            f"{version.model} {version.label} is registered. Environment "
            f"{context.environment.name!r} is in production mode, where one person may not approve "
            "and deploy: leave --try out"
        )
    # Another person's approval, then all traffic.
    model, label = version.model, version.label
    production = asyncio.run(_production(context, model))
    policy = ["--policy", "standard", "--direct"] if production else ["--policy", INITIAL]
    approve = ["versions", "approve", model, label, *policy, "--yes", "--reason", REASON]
    _run(ctx, context, approve, approver)
    _run(ctx, context, ["splits", "preload", model, label, "--reason", REASON], context.actor)
    _run(
        ctx,
        context,
        ["splits", "set", model, "--production", label, "--reason", REASON],
        context.actor,
    )
    # One row of the sample, as a service sends it.
    known = row_ids(adopted.contract, context.offline_folder())
    keys = known or tuple(KEY for _ in adopted.contract.entities)
    return asyncio.run(_predict(context, model, label, keys, adopted.inputs))


def _run(ctx: typer.Context, context: CommandContext, line: list[str], actor: str) -> None:
    """Run one command as *actor*, and show it."""
    terminal(context.json).hint(f"$ turnout {shlex.join([*line, '--as', actor])}")
    common = ["--json", "--folder", str(context.folder), "--as", actor]
    if context.project is not None:
        common += ["--project", str(context.project.root)]
    if context.registry:
        common += ["--registry", context.registry]
    with redirect_stdout(io.StringIO()) as output:
        root = ctx.find_root().command
        code = root.main(args=[*common, *line], prog_name="turnout", standalone_mode=False)
    if code not in (None, 0):
        raise OperatorError(f"turnout {shlex.join(line)} ended with exit code {code}")
    json.loads(output.getvalue() or "null")


async def _production(context: CommandContext, model: str) -> str:
    async with open_registry(context) as client:
        return (await client.deployment(model)).production


async def _predict(
    context: CommandContext,
    model: str,
    label: str,
    keys: tuple[str, ...],
    inputs: dict[str, float | str],
) -> dict[str, Any]:
    """Ask for one row until version *label* answers, because a deployment needs a moment."""
    from turnout_client import PredictError

    give_up = time.monotonic() + APPLIED_S_MAX
    async with open_gateway(context) as client:
        while True:
            try:
                prediction = await client.predict(
                    model, keys=[list(keys)], named=inputs or None, timeout_s=5.0
                )
            except PredictError:
                if time.monotonic() > give_up:
                    raise
            else:
                if prediction.version == label or time.monotonic() > give_up:
                    break
            await asyncio.sleep(POLL_S)
    return {
        "keys": list(keys),
        "inputs": inputs,
        "scores": prediction.scores.tolist(),
        "version": prediction.version,
    }
