"""`turnout models`: lists the models, their versions and their deployments."""

import asyncio

import typer

from protos import registry_pb2
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.views.json_values import message_to_json
from turnout.views.terminal import terminal, text_table


def models(ctx: typer.Context) -> None:
    """List the models, their versions and which versions answer calls now."""
    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    summaries = asyncio.run(_list_models(context))
    # One row a model. What its project says of it is long, so JSON alone has all of it.
    rows = [
        (
            summary.model,
            summary.versions,
            summary.deployment.production or "-",
            _share(summary.deployment.canary.version, summary.deployment.canary.share_bp),
            _share(summary.deployment.standby, summary.deployment.standby_bp),
            ", ".join(f"{s.version}" for s in summary.deployment.shadows) or "-",
            summary.deployment.revision,
            summary.about.owner or "-",
            summary.about.tier or "-",
        )
        for summary in summaries
    ]
    columns = (
        "model",
        "versions",
        "production",
        "canary",
        "standby",
        "shadows",
        "revision",
        "owner",
        "tier",
    )
    screen.result([message_to_json(summary) for summary in summaries], text_table(columns, rows))
    # An empty table says nothing about what to do.
    if not summaries:
        screen.hint("There is no model yet. Try `turnout demo`, or `turnout versions register`.")


async def _list_models(context: CommandContext) -> list[registry_pb2.ModelSummary]:
    async with clients.open_registry(context) as client:
        return list(await client.list_models())


def _share(version: str, share_bp: int) -> str:
    return f"{version} ({share_bp / 100:g} %)" if version else "-"
