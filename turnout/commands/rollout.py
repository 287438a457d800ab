"""`turnout rollout`: starts, shows, explains and changes rollouts."""

import asyncio
import json
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from protos import rollout_pb2
from turnout.cli import clients
from turnout.cli.arguments import Model, PolicyName, Reason, check_picture
from turnout.cli.context import CommandContext
from turnout.commands.rollout_actions import (
    add_rollout_commands,
    fetch_explanation,
    send_rollout_command,
)
from turnout.commands.simulate import simulate
from turnout.views.json_values import message_to_json
from turnout.views.pictures import write_evidence_plot
from turnout.views.rollout_view import FINAL_STAGE_VALUES, policies_table, stage_name, status_view
from turnout.views.terminal import terminal, text_table

app = typer.Typer(
    help="Roll out a version under a policy, which judges it by its evidence.",
    no_args_is_help=True,
)


@app.command()
def policies(ctx: typer.Context) -> None:
    """List the rollout policies."""
    context: CommandContext = ctx.obj

    async def fetch() -> rollout_pb2.ListPoliciesReply:
        async with clients.open_rollouts(context) as client:
            return await client.list_policies()

    reply = asyncio.run(fetch())
    screen = terminal(context.json)
    screen.result(
        [{**message_to_json(policy), "json": json.loads(policy.json)} for policy in reply.policies],
        policies_table(reply.policies),
    )
    # A policy of a project that is wrong is not simply missing.
    for item in reply.unusable:
        screen.note(f"{item.name} of project {item.project} cannot be used: {item.problem}")


@app.command()
def start(
    ctx: typer.Context,
    model: Model,
    version: Annotated[str, typer.Argument(help="Label of the version to roll out.")],
    policy: PolicyName = "",
    reason: Reason = "",
) -> None:
    """Start a rollout. The version needs an approval for this policy."""
    context: CommandContext = ctx.obj

    async def start_rollout() -> rollout_pb2.RolloutStatus:
        async with clients.open_rollouts(context) as client:
            return await client.start(model, version, policy, reason or "started by hand")

    _print_status(context, asyncio.run(start_rollout()))
    terminal(context.json).hint(f"Watch it: turnout rollout status {model} --watch")


@app.command()
def status(
    ctx: typer.Context,
    model: Model,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            "-w",
            help="Follow it to its end; exit code 1 if it does not become production.",
        ),
    ] = False,
) -> None:
    """Show a model's newest rollout: stage, verdict, evidence, times."""
    context: CommandContext = ctx.obj

    async def fetch() -> rollout_pb2.RolloutStatus:
        async with clients.open_rollouts(context) as client:
            return await client.status(model)

    if not watch:
        _print_status(context, asyncio.run(fetch()))
        return
    final_status = asyncio.run(_watch(context, model))
    if final_status is not None and final_status.stage != rollout_pb2.DONE:
        raise typer.Exit(1)


@app.command()
def explain(
    ctx: typer.Context,
    model: Model,
    png: Annotated[
        Path | None, typer.Option(help="Also write the evidence plot to this PNG file.")
    ] = None,
) -> None:
    """Explain every decision of a model's newest rollout."""
    context: CommandContext = ctx.obj
    check_picture("--png", png)
    explanation = asyncio.run(fetch_explanation(context, model))
    if png is not None:
        write_evidence_plot(explanation, png)
    terminal(context.json).result(message_to_json(explanation), explanation.text)


@app.command()
def history(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's name. Default: all models.")] = "",
) -> None:
    """List all rollouts so far."""
    context: CommandContext = ctx.obj

    async def fetch() -> list[rollout_pb2.RolloutStatus]:
        async with clients.open_rollouts(context) as client:
            return await client.history(model)

    rollouts = asyncio.run(fetch())
    rows = [
        (
            rollout.rollout_id,
            rollout.model,
            rollout.version,
            rollout.policy,
            stage_name(rollout),
            rollout.reason,
        )
        for rollout in rollouts
    ]
    columns = ("rollout", "model", "version", "policy", "stage", "reason")
    terminal(context.json).result(
        [message_to_json(rollout) for rollout in rollouts], text_table(columns, rows)
    )


@app.command()
def abort(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """End a rollout and give all traffic back to production."""
    send_rollout_command(ctx, "Abort", model, reason)


@app.command()
def promote(
    ctx: typer.Context,
    model: Model,
    reason: Reason = "",
    full: Annotated[bool, typer.Option(help="Skip all remaining stages.")] = False,
) -> None:
    """Go to the next stage without waiting for evidence."""
    send_rollout_command(ctx, "Promote", model, reason, full=full)


@app.command()
def pause(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """Stay at this stage. A bad version is still rolled back."""
    send_rollout_command(ctx, "Pause", model, reason)


@app.command()
def resume(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """Continue a paused rollout."""
    send_rollout_command(ctx, "Resume", model, reason)


def _print_status(context: CommandContext, status: rollout_pb2.RolloutStatus) -> None:
    terminal(context.json).result(message_to_json(status), status_view(status))


async def _watch(context: CommandContext, model: str) -> rollout_pb2.RolloutStatus | None:
    """Show every status of the newest rollout until it ends; return the last one."""
    screen = terminal(context.json)
    status = None
    async with clients.open_rollouts(context) as client, aclosing(client.watch(model)) as statuses:
        with (
            Live(console=screen.stdout, auto_refresh=False)
            if screen.live
            else nullcontext() as live
        ):
            async for status in statuses:
                if live is not None:
                    live.update(status_view(status), refresh=True)
                elif context.json:
                    screen.line(message_to_json(status))
                else:
                    screen.stdout.print(status_view(status))
                if status.stage in FINAL_STAGE_VALUES:
                    break
    return status


add_rollout_commands(app)
app.command("simulate")(simulate)
