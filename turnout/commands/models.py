"""`turnout models`: lists the models, their deployments, and how old the rows are they read.

`turnout models add` writes down a model that another system serves, and `import-scores` and
`import-outcomes` count what that system did.
"""

import asyncio
from collections import Counter
from typing import Annotated

import typer

from protos import registry_pb2
from turnout.cli import clients
from turnout.cli.arguments import Model
from turnout.cli.context import CommandContext
from turnout.cli.view_ages import ViewAge, read_view_ages
from turnout.monitoring.outside_command import import_outcomes, import_scores
from turnout.training_runs.waiting_runs import waiting_runs
from turnout.views.json_values import message_to_json
from turnout.views.terminal import terminal, text_table

app = typer.Typer(
    help="List the models, which versions answer calls now, and how old the rows are that they "
    "read; add models that run elsewhere.",
    invoke_without_command=True,
)
app.command("import-scores")(import_scores)
app.command("import-outcomes")(import_outcomes)


@app.callback()
def models(ctx: typer.Context) -> None:
    """List the models, which versions answer calls now, and how old the rows are that they read."""
    if ctx.invoked_subcommand is not None:
        return
    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    listed = asyncio.run(_list_models(context))
    summaries, waiting, ages, why_unknown = listed[:4]
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
    if outside := listed[4]:
        named = ", ".join(f"{model.model} ({model.place})" for model in outside)
        screen.hint(f"Elsewhere: {named}.")
    # An empty table says nothing about what to do.
    if not summaries:
        screen.hint("There is no model yet. Try `turnout demo`, or `turnout versions register`.")


@app.command()
def add(
    ctx: typer.Context,
    model: Model,
    elsewhere: Annotated[str, typer.Option(help="Where it runs, such as 'scoring on Hadoop'.")],
    owner: Annotated[str, typer.Option(help="Who answers for it.")],
    purpose: Annotated[str, typer.Option(help="What its scores are used for.")],
) -> None:
    """Write down a model that another system serves, so that it is known and counted."""
    context: CommandContext = ctx.obj

    async def write() -> registry_pb2.OutsideModel:
        async with clients.open_registry(context) as client:
            return await client.add_outside_model(
                model, owner=owner, purpose=purpose, place=elsewhere
            )

    added = asyncio.run(write())
    screen = terminal(context.json)
    screen.result(
        message_to_json(added), f"Added: {added.model}, which runs elsewhere ({added.place})."
    )
    screen.hint(
        "turnout report counts it among the models that are known. "
        f"Next: turnout models import-scores {model} --file FILE"
    )


async def _list_models(
    context: CommandContext,
) -> tuple[
    list[registry_pb2.ModelSummary],
    Counter[str],
    dict[str, list[ViewAge]],
    str,
    list[registry_pb2.OutsideModel],
]:
    """Return the models, how many versions wait, the ages of rows, and the models elsewhere."""
    async with clients.open_registry(context) as client:
        summaries = await client.list_models()
        waiting = Counter(run.model for run in await waiting_runs(client))
        outside = await client.outside_models()
        return summaries, waiting, *await read_view_ages(context, client, summaries), outside


def _share(version: str, share_bp: int) -> str:
    return f"{version} ({share_bp / 100:g} %)" if version else "-"
