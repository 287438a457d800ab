"""`turnout drill`: rehearse a rollback on the running system, and see how long it takes."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from registry.types import read_token
from turnout.cli.context import CommandContext
from turnout.views.terminal import named_values, terminal

KINDS = (
    "slow, shifted, constant, nan, failing-1, failing-5, failing-100, flapping, leak; failing-N: "
    "on N % of customers"
)


def drill(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's name; customers must be calling it.")],
    kind: Annotated[str, typer.Option(help=KINDS)] = "failing-5",
    approver: Annotated[
        str, typer.Option(help="Who approves; never you. Empty: wait for it by hand.")
    ] = "",
    approver_token_file: Annotated[
        Path | None, typer.Option(help="Holds the approver's token, where one is asked for.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="Then it is aborted: not found.")] = 120.0,
) -> None:
    """Roll a deliberately bad version out to 10 % of customers; report the four times."""
    from turnout.cli.live_drill import DrillActors
    from turnout.cli.live_drill import run_drill as played

    asked: CommandContext = ctx.obj
    screen = terminal(asked.json)
    others = read_token(approver_token_file) if approver_token_file else None
    players = DrillActors(asked.actor, approver, asked.token, others)
    told = asyncio.run(played(asked.registry_address(), players, model, kind, seconds, screen.note))
    shown = {
        name.replace("_", " "): "-" if one is None else one for name, one in told.to_json().items()
    }
    screen.result(told.to_json(), named_values(shown))
    if not told.found or told.failed:
        raise typer.Exit(1)
