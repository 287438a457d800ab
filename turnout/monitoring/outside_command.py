"""`turnout models import-scores | import-outcomes`: scores and outcomes that come as files."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turnout.cli.clients import open_registry
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.views.terminal import named_values, terminal

if TYPE_CHECKING:
    from turnout.monitoring.import_parts import Imported

FINDING = "scores"
"""Kind of the finding about an import of scores, by which `turnout report` counts the model."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model, as `models add` has it.")]
File = Annotated[
    Path, typer.Option("--file", exists=True, dir_okay=False, help="A file .csv or .parquet.")
]
Address = Annotated[
    str, typer.Option("--monitoring", help="host:port of monitoring. Default: the registry's.")
]


def import_scores(ctx: typer.Context, model: Name, file: File, monitoring: Address = "") -> None:
    """Count scores of a model elsewhere: columns key, time, score, and version if there are many.

    With a bad row nothing is imported, and the bad rows are named. The same rows may be imported
    again, which changes nothing.
    """
    from turnout.monitoring.import_files import read_score_rows
    from turnout.monitoring.import_parts import scores_parts, send_parts

    context: CommandContext = ctx.obj
    rows = read_score_rows(file)
    asyncio.run(_check_scores(context, model))
    done = send_parts(context, monitoring, scores_parts(model, rows))
    newest_ms = max(row.at_ms for row in rows)
    asyncio.run(_note_in_history(context, model, done, newest_ms))
    _show(context, done)


def import_outcomes(ctx: typer.Context, model: Name, file: File, monitoring: Address = "") -> None:
    """Count outcomes: columns time, name, value, and the ids of the entities.

    A model that is served here has a column for each of its entities; a single one may be called
    key. Monitoring looks for the prediction about these ids some minutes later: the newest within
    the policy's horizon, or the oldest if it says so. A model elsewhere has a column key or
    prediction. An outcome by key belongs to the newest imported score of the key at or before it.
    """
    from turnout.monitoring.import_files import read_entity_outcome_rows, read_outcome_rows
    from turnout.monitoring.import_parts import outcomes_parts, send_parts

    context: CommandContext = ctx.obj
    entities = asyncio.run(_entities_of(context, model))
    if entities is None:
        rows = read_outcome_rows(file)
    else:
        rows = read_entity_outcome_rows(file, model, entities)
    done = send_parts(context, monitoring, outcomes_parts(model, rows))
    _show(context, done)


async def _check_scores(context: CommandContext, model: str) -> None:
    """Raise OperatorError for a model that is not elsewhere, before anything is sent."""
    from monitoring.api.outside_imports import scores_fault

    async with open_registry(context) as client:
        if fault := await scores_fault(client, model):
            raise OperatorError(f"nothing was imported: {fault}")


async def _entities_of(context: CommandContext, model: str) -> tuple[str, ...] | None:
    """Return what rows of a model are keyed by; None: it runs elsewhere.

    Raises OperatorError for a model that is not known, before anything is sent.
    """
    from monitoring.api.outside_imports import served_entities

    async with open_registry(context) as client:
        entities = await served_entities(client, model)
    if entities is None:
        await _check_scores(context, model)
    return entities


def _show(context: CommandContext, done: "Imported") -> None:
    screen = terminal(context.json)
    values = {
        "rows": f"{done.rows:,}",
        "imported before": f"{done.known_rows:,}",
        "without a score": f"{done.unattributed:,}",
        "looked for": f"{done.waiting:,}",
    }
    screen.result(asdict(done), named_values(values))
    if done.unattributed:
        screen.hint(
            "Outcomes without a kept score are counted and belong to no version: import the "
            "scores first, and keep decisions of the model (docs/monitoring.md)."
        )
    elif done.waiting:
        screen.hint(
            "Monitoring looks for their predictions in some ten minutes; those without one are "
            "counted a day later as `by entity` in `turnout monitor figures`."
        )
    else:
        screen.hint("Next: turnout monitor status")


async def _note_in_history(
    context: CommandContext, model: str, done: "Imported", newest_ms: int
) -> None:
    """Write a finding about an import, once."""
    from protos.registry_pb2 import Finding

    content = {"rows": done.rows, "newest_unix_ms": newest_ms, "content": done.digest}
    text = json.dumps(content, sort_keys=True)
    async with open_registry(context) as client:
        # A command that was killed before this line leaves it to the next one.
        if done.known_rows == done.rows:
            async for finding in client.findings(0):
                if (finding.model, finding.kind, finding.text) == (model, FINDING, text):
                    return
        await client.write_finding(Finding(model=model, kind=FINDING, text=text))
