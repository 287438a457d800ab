"""`turnout rollout`: what is asked before a rollout, and the verbs beside its ordinary course."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from protos import rollout_pb2
from rollout.api.evidence_plot import draw_race
from rollout.errors import PolicyError
from rollout.policy import policy_files
from turnout.cli import clients
from turnout.cli.context import Asked
from turnout.views.json_values import plain
from turnout.views.pictures import write_picture
from turnout.views.rollout_view import policies_table, status_view
from turnout.views.terminal import terminal

Model = Annotated[str, typer.Argument(help="The model's name.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the history.")]


def lint(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(help="A policy's TOML file.")]
) -> None:
    """Read a policy file as the controller would: its digests, or what is wrong with it."""
    asked: Asked = ctx.obj
    try:
        made = list(policy_files.read_file(file).values())
    except PolicyError as error:
        terminal(asked.json).result({"refused": str(error)}, f"refused: {error}")
        raise typer.Exit(1) from error
    shown = [
        rollout_pb2.Policy(name=one.name, digest=one.digest, json=one.json.decode()) for one in made
    ]
    rows = [{**plain(one), "json": json.loads(one.json)} for one in shown]
    terminal(asked.json).result(rows, policies_table(shown))


def plan(
    ctx: typer.Context,
    model: Model,
    version: Annotated[str, typer.Argument(help="The candidate's label.")],
    policy: Annotated[str, typer.Option(help="By name: `turnout rollout policies`.")] = "standard",
    failing: Annotated[
        float, typer.Option(help="Part of production's keys that fail; 0: one in a thousand.")
    ] = 0.0,
) -> None:
    """Say how long each step would take at today's traffic, and what it could not see."""
    asked: Asked = ctx.obj

    async def ask() -> rollout_pb2.ForetellReply:
        async with clients.rollouts(asked) as client:
            return await client.foretell(model, policy, failing)

    told = asyncio.run(ask())
    terminal(asked.json).result(plain(told), f"{model} {version}. {told.text}")


def race(
    ctx: typer.Context,
    model: Model,
    svg: Annotated[Path | None, typer.Option(help="Where to write it [race.svg].")] = None,
    png: Annotated[Path | None, typer.Option(help="Where to write it as a PNG.")] = None,
) -> None:
    """Draw the race so far: each metric's evidence, second by second, against its threshold."""
    asked: Asked = ctx.obj

    async def ask() -> rollout_pb2.RolloutExplanation:
        async with clients.rollouts(asked) as client:
            return await client.explain(model)

    picture = draw_race(asyncio.run(ask()))
    files = [one for one in (svg, png) if one is not None] or [Path("race.svg")]
    for file in files:
        write_picture(picture, file)
    drawn = [str(file) for file in files]
    terminal(asked.json).result({"files": drawn}, f"drawn: {', '.join(drawn)}")


def retry(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """Roll the version that was rolled back out again, under the same policy."""
    _steer(ctx, "Retry", model, reason)


def undo(
    ctx: typer.Context,
    model: Model,
    to: Annotated[str, typer.Option("--to", help="A version that was production before.")],
    reason: Reason = "",
) -> None:
    """Give all traffic back to an earlier production version; needs no approval."""
    _steer(ctx, "Undo", model, reason, to=to)


def set_weight(
    ctx: typer.Context,
    model: Model,
    percent: Annotated[float, typer.Argument(help="One of the policy's shares, e.g. 25.")],
    reason: Reason = "",
) -> None:
    """Give the candidate another of the policy's shares, more or less."""
    _steer(ctx, "SetWeight", model, reason, share_bp=round(percent * 100))


def _steer(
    ctx: typer.Context, verb: str, model: str, reason: str, to: str = "", share_bp: int = 0
) -> None:
    asked: Asked = ctx.obj

    async def act() -> rollout_pb2.RolloutStatus:
        async with clients.rollouts(asked) as client:
            return await client.steer(verb, model, reason or "by hand", to=to, share_bp=share_bp)

    shown = asyncio.run(act())
    terminal(asked.json).result(plain(shown), status_view(shown))


def add_to(app: typer.Typer) -> None:
    """Put the commands of this module on `turnout rollout`."""
    for command in (lint, plan, race, retry, undo):
        app.command()(command)
    app.command("set-weight")(set_weight)
