"""`turnout rollout`: linting policies, forecasts, plots, and the less frequent actions."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from protos import rollout_pb2
from rollout.errors import PolicyError
from rollout.policy import policy_files
from turnout.cli import clients
from turnout.cli.arguments import Model, PolicyName, Reason, check_picture
from turnout.cli.context import CommandContext
from turnout.cli.deployment_changes import basis_points
from turnout.views.json_values import message_to_json
from turnout.views.pictures import write_evidence_plot
from turnout.views.rollout_view import policies_table, status_view
from turnout.views.terminal import terminal


def lint(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(help="A TOML file of policies.")]
) -> None:
    """Check a policy file as the controller does; print its policies or what is wrong."""
    context: CommandContext = ctx.obj
    try:
        policies = list(policy_files.read_policy_file(file).values())
    except PolicyError as error:
        terminal(context.json).result({"refused": str(error)}, f"refused: {error}")
        raise typer.Exit(1) from error
    messages = [
        rollout_pb2.Policy(name=policy.name, digest=policy.digest, json=policy.json.decode())
        for policy in policies
    ]
    value = [{**message_to_json(policy), "json": json.loads(policy.json)} for policy in messages]
    terminal(context.json).result(value, policies_table(messages))


def forecast(
    ctx: typer.Context,
    model: Model,
    version: Annotated[str, typer.Argument(help="Label of the version to roll out.")],
    policy: PolicyName = "",
    failure_rate: Annotated[
        float,
        typer.Option(help="Share of production's keys that fail today. 0: assume 1 in 1,000."),
    ] = 0.0,
) -> None:
    """Forecast how long each step takes at today's traffic.

    Also says which failure rates each step is too short to detect.
    """
    context: CommandContext = ctx.obj

    async def fetch() -> rollout_pb2.ForecastReply:
        async with clients.open_rollouts(context) as client:
            return await client.forecast(model, policy, failure_rate)

    reply = asyncio.run(fetch())
    terminal(context.json).result(message_to_json(reply), f"{model} {version}. {reply.text}")


def plot(
    ctx: typer.Context,
    model: Model,
    svg: Annotated[
        Path | None, typer.Option(help="Write an SVG file here. Default: evidence.svg.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Write a PNG file here.")] = None,
) -> None:
    """Plot each metric's evidence over time against its threshold."""
    context: CommandContext = ctx.obj
    files = [file for file in (svg, png) if file is not None] or [Path("evidence.svg")]
    for file in files:
        check_picture("--png" if file is png else "--svg", file)
    explanation = asyncio.run(fetch_explanation(context, model))
    for file in files:
        write_evidence_plot(explanation, file)
    names = [str(file) for file in files]
    terminal(context.json).result({"files": names}, f"Written: {', '.join(names)}")


def retry(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """Start again the rollout that was rolled back, under the same policy."""
    send_rollout_command(ctx, "Retry", model, reason)


def undo(
    ctx: typer.Context,
    model: Model,
    to: Annotated[str, typer.Option("--to", help="Label of a version that was production before.")],
    reason: Reason = "",
) -> None:
    """Give all traffic back to an earlier production version. Needs no approval."""
    send_rollout_command(ctx, "Undo", model, reason, to=to)


def set_weight(
    ctx: typer.Context,
    model: Model,
    percent: Annotated[
        float, typer.Argument(help="One of the policy's shares in percent, such as 25.")
    ],
    reason: Reason = "",
) -> None:
    """Give the candidate another share of the policy, larger or smaller."""
    share_bp = basis_points(percent, "the share")
    send_rollout_command(ctx, "SetWeight", model, reason, share_bp=share_bp)


async def fetch_explanation(context: CommandContext, model: str) -> rollout_pb2.RolloutExplanation:
    """Return every decision and all evidence of the newest rollout of *model*."""
    async with clients.open_rollouts(context) as client:
        return await client.explain(model)


def send_rollout_command(
    ctx: typer.Context,
    verb: str,
    model: str,
    reason: str,
    *,
    full: bool = False,
    to: str = "",
    share_bp: int = 0,
) -> None:
    """Send one command to the newest rollout of *model* and print its status.

    The arguments are those of RolloutClient.send_command.
    """
    context: CommandContext = ctx.obj

    async def send() -> rollout_pb2.RolloutStatus:
        async with clients.open_rollouts(context) as client:
            return await client.send_command(
                verb, model, reason or "by hand", full=full, to=to, share_bp=share_bp
            )

    status = asyncio.run(send())
    terminal(context.json).result(message_to_json(status), status_view(status))


def add_rollout_commands(app: typer.Typer) -> None:
    """Add the commands of this module to `turnout rollout`."""
    app.command("lint")(lint)
    app.command("forecast")(forecast)
    app.command("plot")(plot)
    app.command("retry")(retry)
    app.command("undo")(undo)
    app.command("set-weight")(set_weight)
