"""`turnout drill`: rehearses a rollback on the running system and measures its time."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from registry.types import read_token
from turnout.cli.context import CommandContext
from turnout.views.terminal import named_values, terminal

KINDS = (
    "How the version is bad: slow, shifted, constant, nan, flapping, leak, failing-1, failing-5 or "
    "failing-100 (it fails on 1, 5 or 100 % of customers)."
)


def drill(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's name. It must have live traffic.")],
    kind: Annotated[str, typer.Option(help=KINDS)] = "failing-5",
    approver: Annotated[
        str,
        typer.Option(
            help="Who approves the bad version; not you. Empty: wait for an approval by hand."
        ),
    ] = "",
    approver_token_file: Annotated[
        Path | None,
        typer.Option(help="File with the approver's token, if the registry checks tokens."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="Abort the drill after this time, as not found.")
    ] = 120.0,
) -> None:
    """Roll out a deliberately bad version to 10 % of customers and time its rollback.

    Exit code 1 means that the version was not found, or that a caller got an error.
    """
    # gRPC is imported here because `turnout --help` does not need it.
    from turnout.cli.live_drill import DrillActors, run_drill

    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    approver_token = read_token(approver_token_file) if approver_token_file else None
    actors = DrillActors(context.actor, approver, context.bearer_token(), approver_token)
    result = asyncio.run(
        run_drill(
            context.registry_address(),
            context.certificate(),
            actors,
            model,
            kind,
            seconds,
            screen.note,
        )
    )
    # People read "-" for what did not happen, programs read null.
    value = result.to_json()
    shown = {name.replace("_", " "): "-" if v is None else v for name, v in value.items()}
    screen.result(value, named_values(shown))
    # A rehearsal that shows a weakness must fail a script that runs it.
    if not result.found or result.failed:
        raise typer.Exit(1)
