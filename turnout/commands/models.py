"""`turnout models`: lists the models, their deployments, and how old the rows are they read."""

import asyncio

import typer

from protos import registry_pb2
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.cli.view_ages import ViewAge, read_view_ages
from turnout.views.json_values import message_to_json
from turnout.views.terminal import terminal, text_table


def models(ctx: typer.Context) -> None:
    """List the models, which versions answer calls now, and how old the rows are that they read."""
    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    summaries, ages, why_unknown = asyncio.run(_list_models(context))
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
            ", ".join(age.shown for age in ages.get(summary.model, ())) or "-",
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
        "newest rows",
    )
    # Without the store, nothing is said of rows: an empty list would mean that none are read.
    value = [
        {
            **message_to_json(summary),
            "views": None if why_unknown else [age.to_json() for age in ages[summary.model]],
        }
        for summary in summaries
    ]
    screen.result(value, text_table(columns, rows))
    if why_unknown:
        screen.hint(f"Newest rows: {why_unknown}.")
    # An empty table says nothing about what to do.
    if not summaries:
        screen.hint("There is no model yet. Try `turnout demo`, or `turnout versions register`.")


async def _list_models(
    context: CommandContext,
) -> tuple[list[registry_pb2.ModelSummary], dict[str, list[ViewAge]], str]:
    async with clients.open_registry(context) as client:
        summaries = await client.list_models()
        return summaries, *await read_view_ages(context, client, summaries)


def _share(version: str, share_bp: int) -> str:
    return f"{version} ({share_bp / 100:g} %)" if version else "-"
