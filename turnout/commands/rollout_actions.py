"""`turnout rollout`: what is asked before a rollout, and the verbs beside its ordinary course."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from protos import rollout_pb2
from rollout.errors import PolicyError
from rollout.policy import policy_files
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.views.json_values import message_to_json
from turnout.views.pictures import write_evidence_plot
from turnout.views.rollout_view import policies_table, status_view
from turnout.views.terminal import terminal

Model = Annotated[str, typer.Argument(help="The model's name.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the history.")]


def lint(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(help="A policy's TOML file.")]
) -> None:
    """Read a policy file as the controller would: its digests, or what is wrong with it."""
    asked: CommandContext = ctx.obj
    try:
        made = list(policy_files.read_policy_file(file).values())
    except PolicyError as error:
        terminal(asked.json).result({"refused": str(error)}, f"refused: {error}")
        raise typer.Exit(1) from error
    shown = [
        rollout_pb2.Policy(name=one.name, digest=one.digest, json=one.json.decode()) for one in made
    ]
    rows = [{**message_to_json(one), "json": json.loads(one.json)} for one in shown]
    terminal(asked.json).result(rows, policies_table(shown))


def forecast(
    ctx: typer.Context,
    model: Model,
    version: Annotated[str, typer.Argument(help="The candidate's label.")],
    policy: Annotated[str, typer.Option(help="By name: `turnout rollout policies`.")] = "standard",
    failure_rate: Annotated[
        float, typer.Option(help="Part of production's keys that fail; 0: one in a thousand.")
    ] = 0.0,
) -> None:
    """Say how long each step would take at today's traffic, and what it could not see."""
    asked: CommandContext = ctx.obj

    async def ask() -> rollout_pb2.ForecastReply:
        async with clients.open_rollouts(asked) as client:
            return await client.forecast(model, policy, failure_rate)

    told = asyncio.run(ask())
    terminal(asked.json).result(message_to_json(told), f"{model} {version}. {told.text}")


def plot(
    ctx: typer.Context,
    model: Model,
    svg: Annotated[Path | None, typer.Option(help="SVG to write [evidence.svg].")] = None,
    png: Annotated[Path | None, typer.Option(help="PNG to write.")] = None,
) -> None:
    """Draw each metric's evidence, second by second, against its threshold."""
    context: CommandContext = ctx.obj

    async def explain() -> rollout_pb2.RolloutExplanation:
        async with clients.open_rollouts(context) as client:
            return await client.explain(model)

    explanation = asyncio.run(explain())
    files = [file for file in (svg, png) if file is not None] or [Path("evidence.svg")]
    for file in files:
        write_evidence_plot(explanation, file)
    names = [str(file) for file in files]
    terminal(context.json).result({"files": names}, f"drawn: {', '.join(names)}")


def retry(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """Roll the version that was rolled back out again, under the same policy."""
    _send_command(ctx, "Retry", model, reason)


def undo(
    ctx: typer.Context,
    model: Model,
    to: Annotated[str, typer.Option("--to", help="A version that was production before.")],
    reason: Reason = "",
) -> None:
    """Give all traffic back to an earlier production version; needs no approval."""
    _send_command(ctx, "Undo", model, reason, to=to)


def set_weight(
    ctx: typer.Context,
    model: Model,
    percent: Annotated[float, typer.Argument(help="One of the policy's shares, e.g. 25.")],
    reason: Reason = "",
) -> None:
    """Give the candidate another of the policy's shares, more or less."""
    _send_command(ctx, "SetWeight", model, reason, share_bp=round(percent * 100))


def _send_command(
    ctx: typer.Context, verb: str, model: str, reason: str, to: str = "", share_bp: int = 0
) -> None:
    asked: CommandContext = ctx.obj

    async def act() -> rollout_pb2.RolloutStatus:
        async with clients.open_rollouts(asked) as client:
            return await client.send_command(
                verb, model, reason or "by hand", to=to, share_bp=share_bp
            )

    shown = asyncio.run(act())
    terminal(asked.json).result(message_to_json(shown), status_view(shown))


def add_rollout_commands(app: typer.Typer) -> None:
    """Put the commands of this module on `turnout rollout`."""
    for command in (lint, forecast, plot, retry, undo):
        app.command()(command)
    app.command("set-weight")(set_weight)
