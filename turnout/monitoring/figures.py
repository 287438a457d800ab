"""`turnout monitor figures | alarms | budget`: what looks at versions in service have found."""

import asyncio
import datetime as dt
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.clock import DAY_S
from registry.types import RegistryError
from turnout.cli import clients
from turnout.cli.arguments import Model, MonitoringAddress
from turnout.cli.context import CommandContext
from turnout.views.figures import (
    alarm_json,
    alarms_table,
    figure_json,
    figures_table,
    notes_of_figures,
)
from turnout.views.terminal import Terminal, terminal, text_table

if TYPE_CHECKING:
    from protos import monitoring_pb2 as pb

BUDGET = "budget"
"""Kind of the figures that say how many false alarms a group of detectors may raise."""
NOTES_SHOWN = 5
"""Sentences of figures that are shown below the table; --json has each with its figure."""
UNWATCHED_SHOWN = 10
"""Streams without a detector that are named below the table."""
BUDGET_DAYS = 91
"""Days back in which the newest budget of a version is looked for."""


class FigureKindOption(StrEnum):
    """The kinds of figures that looks store."""

    DRIFT = "drift"
    QUALITY = "quality"
    ESTIMATE = "estimate"
    UPLIFT = "uplift"
    FAIRNESS = "fairness"
    COVERAGE = "coverage"
    BUDGET = BUDGET


def show_figures(
    ctx: typer.Context,
    model: Model,
    kind: Annotated[FigureKindOption | None, typer.Option(help="Only this kind.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3_650, help="Days back.")] = 14,
    monitoring: MonitoringAddress = "",
) -> None:
    """Print what was measured of a model, with 95 % intervals, or why there is no number."""
    # Periods that ended in these days.
    context: CommandContext = ctx.obj
    first = int(time.time()) // DAY_S - days + 1

    async def read() -> "tuple[list[pb.FigureOfPeriod], list[str]]":
        async with clients.open_monitoring(context, monitoring) as client:
            found = await client.figures(first, model=model, kind=kind or "")
            return found, client.notes

    # A budget has a command of its own.
    found, notes = asyncio.run(read())
    shown = [figure for figure in found if kind or figure.kind != BUDGET]
    screen = terminal(context.json)
    if not shown:
        asyncio.run(_require_known(context, model))
    values = [figure_json(figure) for figure in shown]
    screen.result(values, figures_table(shown))
    _hints(screen, [*notes, *notes_of_figures(values, NOTES_SHOWN)])
    if not shown:
        screen.hint(
            f"No figure of {model} in {days} days. Looks at a day begin when it is over; "
            "turnout monitor status shows what was counted."
        )


def show_alarms(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Only alarms of this model.")] = "",
    days: Annotated[int, typer.Option(min=1, max=3_650, help="Days back.")] = 14,
    monitoring: MonitoringAddress = "",
) -> None:
    """Print the alarms that detectors raised, each with its incident."""
    # Alarms that were raised in these days, whatever became of them.
    context: CommandContext = ctx.obj
    since = int(time.time()) - days * DAY_S

    async def read() -> "tuple[list[pb.RaisedAlarm], pb.LooksPage, list[str]]":
        async with clients.open_monitoring(context, monitoring) as client:
            return await client.alarms(since, model=model), await client.looks(model), client.notes

    # Streams without a detector raise none, so they are named.
    found, looks, notes = asyncio.run(read())
    screen = terminal(context.json)
    if not found and model:
        asyncio.run(_require_known(context, model))
    value = {
        "alarms": [alarm_json(alarm) for alarm in found],
        "looks": [look_json(look) for look in looks.looks],
    }
    screen.result(value, alarms_table(found))
    _hints(screen, notes)
    unwatched = [
        f"{look.model} {look.version}: {stream} has no detector: {reason}"
        for look in looks.looks
        for stream, reason in sorted(look.unwatched.items())
    ]
    for line in unwatched[:UNWATCHED_SHOWN]:
        screen.hint(line)
    if len(unwatched) > UNWATCHED_SHOWN:
        screen.hint(f"{len(unwatched) - UNWATCHED_SHOWN} more have none; --json names all of them.")
    # The newest alarm that has an incident is where a person goes on.
    incidents = [alarm.incident_id for alarm in found if alarm.incident_id]
    if incidents:
        screen.hint(f"Next: turnout incidents show {incidents[-1]}")
    elif not found:
        screen.hint(f"No alarm in {days} days.")


def show_budget(ctx: typer.Context, model: Model, monitoring: MonitoringAddress = "") -> None:
    """Print how many false alarms each group of detectors may raise in a quarter, and has raised.

    bound is what the detectors can raise at most, on average, while nothing changes; seen are all
    alarms of the last quarter, true and false ones.
    """
    context: CommandContext = ctx.obj
    today = int(time.time()) // DAY_S

    async def read() -> "list[pb.FigureOfPeriod]":
        async with clients.open_monitoring(context, monitoring) as client:
            return await client.figures(today - BUDGET_DAYS, model=model, kind=BUDGET)

    # The newest budget of each version counts.
    newest = {(figure.version, figure.name): figure for figure in asyncio.run(read())}
    if not newest:
        asyncio.run(_require_known(context, model))
    lines = [budget_json(figure) for figure in newest.values()]
    keys = ("version", "group", "detectors", "allowed", "bound", "seen")
    screen = terminal(context.json)
    screen.result(lines, text_table(keys, [[_number(line[key]) for key in keys] for line in lines]))
    if not lines:
        screen.hint(f"No look at {model} has stored a budget yet; the first daily look does.")


def budget_json(figure: "pb.FigureOfPeriod") -> dict[str, Any]:
    """Return a line of the budget as JSON values; null: the look did not store it."""
    item = figure_json(figure)
    parts = {name: item["details"].get(name) for name in ("detectors", "allowed", "seen")}
    return {
        "model": figure.model,
        "version": figure.version,
        "group": figure.name,
        "day": item["last_day"],
        "bound": item["value"],
        **parts,
    }


def look_json(look: "pb.LookProgress") -> dict[str, Any]:
    """Return how far a look is, and what it cannot watch."""
    return {
        "model": look.model,
        "version": look.version,
        "look": look.name,
        "until": dt.datetime.fromtimestamp(look.until_unix_s, dt.UTC).isoformat(),
        "unwatched": dict(look.unwatched),
    }


async def _require_known(context: CommandContext, model: str) -> None:
    """Raise OperatorError for a model that the registry does not know.

    Where monitoring runs alone the registry may not be at this address, and nothing is said.
    """
    with suppress(RegistryError):
        async with clients.open_registry(context) as client:
            await clients.require_model(client, model)


def _hints(screen: Terminal, notes: Sequence[str]) -> None:
    for note in notes:
        screen.hint(f"Note: {note}.")


def _number(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
