"""`turnout review`: one page of the week, and the decisions that it carries over."""

import asyncio
import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from host.clock import DAY_S
from host.files import replace_file
from turnout.cli import clients
from turnout.cli.arguments import MonitoringAddress, check_new_file
from turnout.cli.context import CommandContext
from turnout.review.decisions import (
    REVIEW,
    ReviewDecision,
    decision_text,
    decisions_of,
    done_text,
    open_decision,
)
from turnout.review.inputs import ReviewInputs, read_lines, read_review_inputs
from turnout.review.pages import ReviewPage, html_page, markdown_page
from turnout.review.plots import draw_lines
from turnout.review.section import ReviewSection, cell_text, sentence
from turnout.review.sections import review_sections, summary_lines
from turnout.review.week import EPOCH, review_period
from turnout.views.terminal import Terminal, terminal, text_table

if TYPE_CHECKING:
    from protos import registry_pb2 as pb
    from registry.client import RegistryClient

WITHOUT_PLOTS = "Pictures need the extra plots: pip install 'turnout[plots]'"

app = typer.Typer(help="The weekly review of models in service.", invoke_without_command=True)


@app.callback()
def review(
    ctx: typer.Context,
    week: Annotated[
        str, typer.Option(help="ISO week, such as 2026-W48. Default: the last seven days.")
    ] = "",
    html: Annotated[
        Path | None, typer.Option(help="Write the page to this file, with pictures.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    monitoring: MonitoringAddress = "",
) -> None:
    """Print one page of the week: what is red, how good models are, what waits for whom.

    Incidents, ages and what waits are those of now. Figures, alarms and actions are the week's.
    """
    if ctx.invoked_subcommand is not None:
        return
    # What cannot be written is refused before anything is read.
    context: CommandContext = ctx.obj
    period = review_period(week, int(time.time()) // DAY_S)
    check_new_file("--html", html)
    check_new_file("--markdown", markdown)
    # The sections are the same for every form.
    inputs = asyncio.run(read_review_inputs(context, period, monitoring))
    sections = review_sections(inputs)
    page = _page(inputs, sections)
    screen = terminal(context.json)
    screen.result(_json(inputs, sections), *_tables(page))
    if html is not None:
        lines = asyncio.run(read_lines(context, period, monitoring, sections))
        write_html(screen, html, page, lines)
    if markdown is not None:
        replace_file(markdown, markdown_page(page), durable=False)
        screen.hint(f"Written: {markdown}")
    if html is None and markdown is None:
        screen.hint('Next: turnout review --html FILE, or turnout review decide "..." --model M')


@app.command()
def decide(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="What was decided.")],
    model: Annotated[str, typer.Option(help="The model that it is about.")],
    owner: Annotated[str, typer.Option(help="Who does it.")],
    due: Annotated[str, typer.Option(help="Date by which it is done, such as 2026-12-07.")],
) -> None:
    """Write a decision of the review into the history. It is carried over until it is done.

    It needs the rights of people who deploy.
    """
    context: CommandContext = ctx.obj
    value = decision_text(text, owner, due, dt.datetime.now(dt.UTC).date())

    async def write() -> ReviewDecision:
        async with clients.open_registry(context) as client:
            await clients.require_model(client, model)
            (written,) = decisions_of([await _write(client, model, value)])
            return written

    _print(context, asyncio.run(write()), "Decided")


@app.command()
def done(
    ctx: typer.Context,
    decision: Annotated[int, typer.Argument(metavar="ID", help="The decision's id.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="What came of it.")] = "",
) -> None:
    """Say in the history that a decision is done, so that reviews no longer carry it over."""
    context: CommandContext = ctx.obj
    value = done_text(decision, reason)

    async def write() -> ReviewDecision:
        async with clients.open_registry(context) as client:
            found = [finding async for finding in client.findings()]
            model = open_decision(decisions_of(found), decision).model
            found.append(await _write(client, model, value))
            return next(item for item in decisions_of(found) if item.number == decision)

    _print(context, asyncio.run(write()), "Done")


async def _write(client: "RegistryClient", model: str, text: str) -> "pb.Finding":
    from protos import registry_pb2 as pb

    return await client.write_finding(pb.Finding(model=model, kind=REVIEW, text=text))


def _print(context: CommandContext, decision: ReviewDecision, word: str) -> None:
    value = decision.to_json(dt.datetime.now(dt.UTC).date())
    line = f"{word}: {decision.number}, {decision.text} ({decision.owner}, until {decision.due})."
    screen = terminal(context.json)
    screen.result(value, line)
    if not decision.done_by:
        screen.hint(f"Next: turnout review done {decision.number} --reason ...")


def _page(inputs: ReviewInputs, sections: list[ReviewSection]) -> ReviewPage:
    first, last = (
        EPOCH + dt.timedelta(days=day) for day in (inputs.period.first_day, inputs.period.last_day)
    )
    made = dt.datetime.fromtimestamp(inputs.now_ms / 1_000, dt.UTC)
    return ReviewPage(
        inputs.period.name,
        f"{first} to {last}, days in UTC",
        made.strftime("%Y-%m-%d %H:%M UTC"),
        summary_lines(sections),
        sections,
    )


def _json(inputs: ReviewInputs, sections: list[ReviewSection]) -> dict[str, Any]:
    period = inputs.period
    return {
        "week": period.name,
        "first_day": (EPOCH + dt.timedelta(days=period.first_day)).isoformat(),
        "last_day": (EPOCH + dt.timedelta(days=period.last_day)).isoformat(),
        "made_unix_ms": inputs.now_ms,
        "sections": {section.key: section.to_json() for section in sections},
    }


def _tables(page: ReviewPage) -> list[RenderableType]:
    """Return a heading and a table for each section; an empty one says why."""
    shown: list[RenderableType] = [Text(f"Review of {page.name} ({page.days})", style="bold")]
    shown += [Text(line) for line in page.summary]
    for section in page.sections:
        shown.append(Text(f"\n{section.title}", style="bold"))
        if section.rows:
            rows = [
                [cell_text(row.get(name)) for name in section.columns] for row in section.shown_rows
            ]
            shown.append(text_table([name.replace("_", " ") for name in section.columns], rows))
        else:
            shown.append(Text(f"{sentence(section.empty)}."))
        shown += [Text(f"{sentence(note)}.", style="dim") for note in section.shown_notes]
    return shown


def write_html(screen: Terminal, file: Path, page: ReviewPage, lines: dict[str, list[Any]]) -> None:
    """Write the page. Without matplotlib it has no pictures, and a hint says so."""
    try:
        pictures = {key: draw_lines(found) for key, found in lines.items()}
    except ImportError:
        pictures = {}
        screen.hint(WITHOUT_PLOTS)
    replace_file(file, html_page(page, pictures), durable=False)
    screen.hint(f"Written: {file}")
