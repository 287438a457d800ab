"""`turnout rollout`: start a rollout, watch it, steer it, ask it why."""

import asyncio
import json
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from protos import rollout_pb2
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.commands import rollout_actions
from turnout.commands.simulate import simulate
from turnout.views.json_values import message_to_json
from turnout.views.pictures import write_evidence_plot
from turnout.views.rollout_view import FINAL_STAGE_VALUES, policies_table, stage_name, status_view
from turnout.views.terminal import terminal, text_table

app = typer.Typer(
    help="Roll a version out under a policy, watched and judged.", no_args_is_help=True
)
rollout_actions.add_rollout_commands(app)
app.command()(simulate)

Model = Annotated[str, typer.Argument(help="The model's name.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the history.")]


@app.command()
def policies(ctx: typer.Context) -> None:
    """List the named policies a rollout may run under."""
    asked: CommandContext = ctx.obj

    async def ask() -> list[rollout_pb2.Policy]:
        async with clients.open_rollouts(asked) as client:
            return list((await client.policies()).values())

    found = asyncio.run(ask())
    terminal(asked.json).result(
        [{**message_to_json(one), "json": json.loads(one.json)} for one in found],
        policies_table(found),
    )


@app.command()
def start(
    ctx: typer.Context,
    model: Model,
    version: Annotated[str, typer.Argument(help="The candidate's label.")],
    policy: Annotated[str, typer.Option(help="By name: `turnout rollout policies`.")] = "standard",
    reason: Reason = "",
) -> None:
    """Start rolling a version out; needs an approval of this version under this policy."""
    asked: CommandContext = ctx.obj

    async def begin() -> rollout_pb2.RolloutStatus:
        async with clients.open_rollouts(asked) as client:
            return await client.start(model, version, policy, reason or "started by hand")

    _print_status(asked, asyncio.run(begin()))
    terminal(asked.json).hint(f"Watch it: turnout rollout status {model} --watch")


@app.command()
def status(
    ctx: typer.Context,
    model: Model,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Until it is over.")] = False,
) -> None:
    """Show the newest rollout of a model: stage, evidence, verdict, times."""
    asked: CommandContext = ctx.obj

    async def ask() -> rollout_pb2.RolloutStatus:
        async with clients.open_rollouts(asked) as client:
            return await client.status(model)

    if not watch:
        _print_status(asked, asyncio.run(ask()))
        return
    last = asyncio.run(_watch(asked, model))
    if last is not None and last.stage != rollout_pb2.DONE:
        raise typer.Exit(1)


@app.command()
def explain(
    ctx: typer.Context,
    model: Model,
    png: Annotated[Path | None, typer.Option(help="Also draw the evidence to this PNG.")] = None,
) -> None:
    """Say in words why the rollout stands where it stands, decision by decision."""
    asked: CommandContext = ctx.obj

    async def ask() -> rollout_pb2.RolloutExplanation:
        async with clients.open_rollouts(asked) as client:
            return await client.explain(model)

    told = asyncio.run(ask())
    if png is not None:
        write_evidence_plot(told, png)
    terminal(asked.json).result(message_to_json(told), told.text)


@app.command()
def history(
    ctx: typer.Context, model: Annotated[str, typer.Argument(help="Empty: every model.")] = ""
) -> None:
    """List the rollouts so far."""
    asked: CommandContext = ctx.obj

    async def ask() -> list[rollout_pb2.RolloutStatus]:
        async with clients.open_rollouts(asked) as client:
            return await client.history(model)

    found = asyncio.run(ask())
    rows = [
        (
            one.rollout_id,
            one.model,
            one.version,
            one.policy,
            stage_name(one),
            one.reason,
        )
        for one in found
    ]
    columns = ("rollout", "model", "version", "policy", "stage", "because")
    terminal(asked.json).result([message_to_json(one) for one in found], text_table(columns, rows))


@app.command()
def abort(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """End the rollout and give all traffic back to production."""
    _send_command(ctx, "Abort", model, reason)


@app.command()
def promote(
    ctx: typer.Context,
    model: Model,
    reason: Reason = "",
    full: Annotated[bool, typer.Option(help="Skip every remaining stage.")] = False,
) -> None:
    """Go to the next stage without waiting for the evidence."""
    _send_command(ctx, "Promote", model, reason, full)


@app.command()
def pause(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """Stay at this stage; the guards and the rollback go on."""
    _send_command(ctx, "Pause", model, reason)


@app.command()
def resume(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """Go on after a pause."""
    _send_command(ctx, "Resume", model, reason)


def _send_command(
    ctx: typer.Context, verb: str, model: str, reason: str, full: bool = False
) -> None:
    asked: CommandContext = ctx.obj

    async def act() -> rollout_pb2.RolloutStatus:
        async with clients.open_rollouts(asked) as client:
            return await client.send_command(verb, model, reason or "by hand", full=full)

    _print_status(asked, asyncio.run(act()))


def _print_status(context: CommandContext, status: rollout_pb2.RolloutStatus) -> None:
    terminal(context.json).result(message_to_json(status), status_view(status))


async def _watch(context: CommandContext, model: str) -> rollout_pb2.RolloutStatus | None:
    screen = terminal(context.json)
    last = None
    async with clients.open_rollouts(context) as client, aclosing(client.watch(model)) as statuses:
        with (
            Live(console=screen.stdout, auto_refresh=False)
            if screen.live
            else nullcontext() as live
        ):
            async for last in statuses:
                if live is not None:
                    live.update(status_view(last), refresh=True)
                elif context.json:
                    screen.line(message_to_json(last))
                else:
                    screen.stdout.print(status_view(last))
                if last.stage in FINAL_STAGE_VALUES:
                    break
    return last
