"""`turnout models`: lists the models, their deployments, and how old the rows are they read."""

import asyncio
from collections import Counter

import typer

from protos import registry_pb2
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.cli.view_ages import ViewAge, read_view_ages
from turnout.training_runs.waiting_runs import waiting_runs
from turnout.views.json_values import message_to_json
from turnout.views.terminal import terminal, text_table


def models(ctx: typer.Context) -> None:
    """List the models, which versions answer calls now, and how old the rows are that they read."""
    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    summaries, waiting, ages, why_unknown = asyncio.run(_list_models(context))
    # One row a model. What its project says of it is long, so JSON alone has all of it.
    rows = [
        (
            summary.model,
            summary.versions,
            waiting[summary.model] or "-",
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
        "proposals",
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
            "proposals": waiting[summary.model],
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
) -> tuple[list[registry_pb2.ModelSummary], Counter[str], dict[str, list[ViewAge]], str]:
    """Return the models, how many versions of each wait for a decision, and the ages of rows."""
    async with clients.open_registry(context) as client:
        summaries = await client.list_models()
        waiting = Counter(run.model for run in await waiting_runs(client))
        return summaries, waiting, *await read_view_ages(context, client, summaries)


def _share(version: str, share_bp: int) -> str:
    return f"{version} ({share_bp / 100:g} %)" if version else "-"
