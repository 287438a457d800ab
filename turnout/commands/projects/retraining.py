"""`turnout run training` and `turnout schedules`: queued runs, and what queues them."""

import asyncio
import datetime as dt
import json
import signal
from typing import Annotated, Any

import typer

from protos import registry_pb2 as pb
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.views.runs import run_json, state_name
from turnout.views.terminal import terminal, text_table

run_app = typer.Typer(help="Run a part of the system in this terminal.", no_args_is_help=True)
schedules_app = typer.Typer(
    help="List the schedules that are applied, and what came of them.", no_args_is_help=True
)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@run_app.callback()
def _run() -> None:
    """Run a part of the system in this terminal."""


@schedules_app.callback()
def _schedules() -> None:
    """List the schedules that are applied, and what came of them."""


@run_app.command("training")
def run_training(
    ctx: typer.Context,
    concurrency: Annotated[int, typer.Option(min=1, help="Runs at one time.")] = 1,
    memory_mb: Annotated[
        int, typer.Option(min=512, help="Address space of a child that trains.")
    ] = 8_192,
    cpu_s: Annotated[int, typer.Option("--cpu-s", min=1, help="CPU seconds of a child.")] = 14_400,
    seconds: Annotated[
        float, typer.Option(min=1, help="Seconds from the start of a child to its end.")
    ] = 21_600.0,
    once: Annotated[
        bool, typer.Option("--once", help="End when nothing is left that may run now.")
    ] = False,
) -> None:
    """Take queued runs of the project and train them, each in a child with limits.

    Until Ctrl-C or SIGTERM, which hands running ones back: they wait for another attempt.
    """
    # The parts of training take seconds to import.
    from project.environment import require_production_rules
    from turnout.retraining.runner import Runner, RunnerSettings
    from turnout.retraining.training_child import TrainingLimits

    # What is trained in production must be traceable to a commit.
    context: CommandContext = ctx.obj
    require_production_rules(context.required_environment())
    limits = TrainingLimits(memory_mb=memory_mb, cpu_s=cpu_s, seconds=seconds)
    settings = RunnerSettings(concurrency=concurrency, limits=limits, once=once)
    screen = terminal(context.json)

    async def work() -> None:
        stop = asyncio.Event()
        for signum in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        async with clients.open_registry(context) as client:
            await Runner(context, client, settings, screen.note).run(stop)

    asyncio.run(work())


@schedules_app.command("list")
def list_schedules(ctx: typer.Context) -> None:
    """List the applied schedules: when each is due next, its last run, and why one was skipped."""
    from registry.schedules.schedule import Schedule, parse_schedule

    context: CommandContext = ctx.obj

    async def read() -> list[pb.AppliedSchedule]:
        async with clients.open_registry(context) as client:
            return await client.list_schedules(with_runs=True)

    # The next due time is computed here, by this host's clock.
    found = asyncio.run(read())
    now = dt.datetime.now(dt.UTC)
    parsed: list[tuple[pb.AppliedSchedule, Schedule]] = [
        (item, parse_schedule(item.name, json.loads(item.definition_json))) for item in found
    ]
    # People see a table, scripts get every field.
    columns = ("schedule", "recipe", "due", "next (UTC)", "last run", "skipped last")
    rows = [
        (
            f"{item.project}/{item.name}",
            f"{schedule.model}/{schedule.setting}",
            ", ".join(_triggers(schedule.definition())),
            _next_due(schedule.due_after(now)),
            _run_text(item, "last_run"),
            item.last_skipped.error or "-",
        )
        for item, schedule in parsed
    ]
    value = [
        {
            "project": item.project,
            "name": item.name,
            **schedule.definition(),
            "since_unix_ms": item.since_unix_ms,
            "next_due": _next_due(schedule.due_after(now)),
            **{
                field: run_json(getattr(item, field), whole=False) if item.HasField(field) else None
                for field in ("last_run", "last_skipped")
            },
        }
        for item, schedule in parsed
    ]
    # A project without schedules.toml has none.
    screen = terminal(context.json)
    screen.result(value, text_table(columns, rows))
    if not found:
        screen.hint("No schedule is applied. Write schedules.toml, then: turnout apply")


def _triggers(definition: dict[str, Any]) -> list[str]:
    """Return what makes a schedule due, for display."""
    words = {"cron": "cron", "after_view": "view", "new_labels": "labels", "on_finding": "finding"}
    shown = []
    for key, word in words.items():
        if value := definition.get(key):
            text = "/".join(value) if isinstance(value, list) else str(value)
            zone = f" {definition['zone']}" if key == "cron" else ""
            shown.append(word if value is True else f"{word} {text}{zone}")
    return shown


def _next_due(due: dt.datetime | None) -> str:
    return "-" if due is None else f"{due:%Y-%m-%d %H:%M}"


def _run_text(item: pb.AppliedSchedule, field: str) -> str:
    if not item.HasField(field):
        return "-"
    run: pb.Run = getattr(item, field)
    return f"{run.id[:8]} {state_name(run)}"
