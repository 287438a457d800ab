"""`turnout report`: the five measures as tables, JSON or a picture."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from host.clock import DAY_MS
from turnout.cli import clients
from turnout.cli.arguments import check_picture
from turnout.cli.context import CommandContext
from turnout.report.facts import Fact, ReportInputs, history_facts
from turnout.report.measures import report_of
from turnout.views.incidents import duration_text
from turnout.views.pictures import write_report_picture
from turnout.views.terminal import terminal, text_table

if TYPE_CHECKING:
    from registry.client import RegistryClient

REVISIONS_MAX = 200
"""Revisions of projects that are read to find when a model was first there."""


def print_report(
    ctx: typer.Context,
    days: Annotated[int, typer.Option(min=1, help="Days back that are counted.")] = 91,
    entries: Annotated[
        bool, typer.Option("--entries", help="Name the history entries behind every number.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the measures to this file, .svg or .png.")
    ] = None,
) -> None:
    """Print the five measures: time to production, monitored models, incidents, rollbacks, uplift.

    They are computed from the history alone; `turnout audit list` shows the entries.
    """
    # What cannot be drawn is refused before the history is read.
    context: CommandContext = ctx.obj
    check_picture("--plot", plot)

    async def read() -> ReportInputs:
        async with clients.open_registry(context) as client:
            return await read_inputs(client, days)

    value = report_of(asyncio.run(read()))
    screen = terminal(context.json)
    screen.result(value, *_tables(value, with_entries=entries))
    if plot is not None:
        write_report_picture(value, plot)
        screen.hint(f"Drawn: {plot}")
    if not entries:
        screen.hint("Next: turnout report --entries names the history entries behind each number.")


async def read_inputs(client: "RegistryClient", days: int) -> ReportInputs:
    """Read the whole history, and the newest definitions of each project that it names."""
    now_ms = time.time_ns() // 1_000_000
    facts: list[Fact] = []
    policies: dict[str, bool] = {}
    policy_entries: dict[str, int] = {}
    async with aclosing(client.read_history()) as blocks:
        async for block, _ in blocks:
            facts += history_facts(block)
    # The history has a project's definitions by their digest, and the registry has them whole.
    applied = {fact.after["name"]: fact for fact in facts if fact.action == "apply project"}
    ideas = await _first_revisions(client, facts)
    for name, fact in applied.items():
        revision = await client.get_project(name, fact.after["revision"])
        if revision is None or revision.digest != fact.after["digest"]:
            continue
        for model, settings in json.loads(revision.definitions).get("models", {}).items():
            policies[model] = settings.get("monitoring") is not None
            policy_entries[model] = fact.seq
    return ReportInputs(
        tuple(facts),
        now_ms,
        now_ms - days * DAY_MS,
        policies=policies,
        ideas=ideas,
        policy_entries=policy_entries,
    )


async def _first_revisions(client: "RegistryClient", facts: Sequence[Fact]) -> dict[str, Fact]:
    """Return model -> the entry of the first project revision that has the model or its recipe.

    Only models that have a version are looked for, through at most REVISIONS_MAX revisions.
    """
    wanted = {fact.model for fact in facts if fact.action == "register"}
    found: dict[str, Fact] = {}
    applies = [fact for fact in facts if fact.action == "apply project"]
    for fact in applies[:REVISIONS_MAX]:
        if wanted <= found.keys():
            break
        revision = await client.get_project(fact.after["name"], fact.after["revision"])
        if revision is None or revision.digest != fact.after["digest"]:
            continue
        definitions = json.loads(revision.definitions)
        recipes = definitions.get("recipes", {}).values()
        for model in {*definitions.get("models", {}), *(item["model"] for item in recipes)}:
            found.setdefault(model, fact)
    return found


def _tables(value: dict[str, Any], *, with_entries: bool) -> list[RenderableType]:
    """Return a heading and a table for each measure."""

    def cells(row: list[object], item: dict[str, Any]) -> list[object]:
        return [*row, _entry_list(item["entries"])] if with_entries else row

    more = ("entries",) if with_entries else ()
    # Time to production, by stage and by version.
    made = value["time_to_production"]
    times = [*made["stages"], made["total"]]
    # Incidents and rollbacks share a table of times.
    incidents, rollbacks = value["incidents"], value["rollbacks"]
    answers = [*incidents["times"], rollbacks["automatic"], rollbacks["held"]]
    known = value["monitored_models"]
    columns = ("", "count", "median", "p90", "longest", *more)
    # Each measure has its heading. A table without rows says that nothing was counted.
    return [
        _heading(f"1. Idea to production: {made['total']['count']} versions"),
        text_table(columns, [cells(_time_row(item), item) for item in times]),
        _heading(
            f"2. Models in monitored production: {known['in_monitored_production']} of "
            f"{known['known']} known, {known['in_production']} in production"
        ),
        text_table(
            ("model", "production", "elsewhere", "monitored", *more),
            [
                cells(
                    [
                        item["model"],
                        item["production"] or "-",
                        item["elsewhere"] or "-",
                        "yes" if item["monitored"] else "no",
                    ],
                    item,
                )
                for item in known["models"]
            ],
        ),
        _heading(
            f"3. Incidents: {incidents['count']}, {incidents['open']} open; "
            f"{_words(incidents['by_severity'])}; {_words(incidents['by_resolution'])}"
        ),
        _heading(f"4. Answers and rollbacks ({len(rollbacks['by_hand'])} rolled back by hand)"),
        text_table(columns, [cells(_time_row(item), item) for item in answers]),
        _heading("5. Uplift"),
        text_table(
            ("model", "uplift", "money", *more),
            [cells(_uplift_row(item), item) for item in value["uplift"]],
        ),
    ]


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _time_row(item: dict[str, Any]) -> list[object]:
    shown = [
        "not measured" if item[key] is None else duration_text(item[key])
        for key in ("median_s", "p90_s", "max_s")
    ]
    return [item["name"], item["count"], *shown]


def _uplift_row(item: dict[str, Any]) -> list[object]:
    if not item["measured"]:
        return [item["model"], "not measured", "not measured"]
    interval = ""
    if item["uplift_low"] is not None and item["uplift_high"] is not None:
        interval = f" [{item['uplift_low']:.4f}, {item['uplift_high']:.4f}]"
    money = "not measured" if item["money"] is None else f"{item['money']:,.0f}"
    return [item["model"], f"{item['uplift']:.4f}{interval}", money]


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items()) or "none"


def _entry_list(entries: list[int]) -> str:
    return ", ".join(map(str, entries)) or "-"
