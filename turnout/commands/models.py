"""`turnout models`: what exists, and who answers."""

import asyncio

import typer

from protos import registry_pb2
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.views.json_values import message_to_json
from turnout.views.terminal import terminal, text_table


def models(ctx: typer.Context) -> None:
    """List the models: their versions, and who answers their calls now."""
    asked: CommandContext = ctx.obj
    screen = terminal(asked.json)
    found = asyncio.run(_list_models(asked))
    rows = [
        (
            one.model,
            one.versions,
            one.deployment.production or "-",
            _share(one.deployment.canary.version, one.deployment.canary.share_bp),
            _share(one.deployment.standby, one.deployment.standby_bp),
            ", ".join(f"{s.version}" for s in one.deployment.shadows) or "-",
            one.deployment.revision,
        )
        for one in found
    ]
    columns = ("model", "versions", "production", "canary", "standby", "shadows", "revision")
    screen.result([message_to_json(one) for one in found], text_table(columns, rows))
    if not found:
        screen.hint("No model yet: `turnout demo` makes one, or `turnout versions register`.")


async def _list_models(context: CommandContext) -> list[registry_pb2.ModelSummary]:
    async with clients.open_registry(context) as client:
        return list(await client.list_models())


def _share(version: str, share_bp: int) -> str:
    return f"{version} ({share_bp / 100:g} %)" if version else "-"
