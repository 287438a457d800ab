"""`turnout monitor policy suggest`: proposes the section [monitoring] of a model."""

import asyncio
import json
from typing import Annotated, Any

import typer
from rich.text import Text

from registry.types import NotFoundError
from registry.watching.policy_reader import read_monitoring_policy
from turnout.cli import clients
from turnout.cli.arguments import Model
from turnout.cli.context import CommandContext
from turnout.views.terminal import terminal

policy_app = typer.Typer(help="How a model is watched.", no_args_is_help=True)


@policy_app.callback()
def _policy() -> None:
    """Keep `suggest` a command of its own: an app with one command has no names."""


@policy_app.command()
def suggest(
    ctx: typer.Context,
    model: Model,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no registry: use the project's files alone.")
    ] = False,
) -> None:
    """Propose a policy from the labels, the card and the reference, with the reason of each value.

    Nothing is written: put what is printed into models/MODEL.toml, replace what is NOT KNOWN, and
    apply it as any other change.
    """
    # What reads a project takes long to import.
    from turnout.cli.projects import load_definitions
    from turnout.policy_suggestion.suggestion import policy_table, policy_toml, suggest_policy

    context: CommandContext = ctx.obj

    async def read() -> tuple[Any, Any, Any]:
        definitions = await load_definitions(context)
        if offline:
            return definitions, None, None
        return definitions, *await _card_and_reference(context, model)

    definitions, card, reference = asyncio.run(read())
    # The proposal is read back, so that what is printed can be put into the file.
    values = suggest_policy(definitions, model, card, reference)
    screen = terminal(context.json)
    policy = read_monitoring_policy(policy_table(values))
    screen.result(policy.definition(), Text(policy_toml(values).rstrip()))
    if card is None:
        screen.hint("No version was read, so segments and thresholds of numbers are the defaults.")
    screen.hint(f"Next: put it into models/{model}.toml, then turnout plan and turnout apply.")


async def _card_and_reference(
    context: CommandContext, model: str
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return card.json and reference.json of production, or of the newest version; None: none."""
    async with clients.open_registry(context) as client:
        try:
            label = (await client.deployment(model)).production
            if not label:
                label = (await client.list_versions(model))[-1].label
        except (NotFoundError, IndexError):
            return None, None
        files = await client.fetch(model, label)
    return json.loads(files["card.json"]), json.loads(files["reference.json"])
