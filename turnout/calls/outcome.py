"""`turnout outcome`: reports what became of predictions, as a service does."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnout.calls.row_files import Cells, entity_ids, read_row_file
from turnout.cli import clients
from turnout.cli.arguments import finite_number, parse_prediction_id, unix_ms
from turnout.cli.context import CommandContext
from turnout.errors import ExitCode, UsageError
from turnout.views.terminal import named_values, terminal, text_table

if TYPE_CHECKING:
    from turnout_client import OutcomeReply, PredictClient, PredictError

FORMS = "PREDICTION_ID NAME VALUE, or --model MODEL --key ID --at TIME NAME VALUE, or --rows FILE"
ROW_MAX = 2**32 - 1
SHOWN = 20
"""Refused rows of a file that the screen names one by one; --json has all rows."""


@dataclass(frozen=True, kw_only=True)
class OutcomeReport:
    """One outcome: of the prediction with an id, or of the entities of a model's row."""

    name: str
    value: float
    prediction_id: bytes = b""
    row: int = 0
    model: str = ""
    keys: Sequence[str] = ()
    at_ms: int = 0
    idempotency_key: str = ""

    async def send(self, client: "PredictClient") -> "OutcomeReply":
        """Return the gateway's reply. Raises PredictError."""
        if self.model:
            return await client.report_entity_outcome(
                self.model,
                self.keys,
                self.name,
                self.value,
                self.at_ms,
                idempotency_key=self.idempotency_key,
            )
        return await client.report_outcome(
            self.prediction_id,
            self.name,
            self.value,
            row=self.row,
            event_time_ms=self.at_ms,
            idempotency_key=self.idempotency_key,
        )


@dataclass(frozen=True)
class ReportAnswer:
    """What the gateway said to a report."""

    reply: "OutcomeReply | None" = None
    error: "PredictError | None" = None

    def value(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        if self.reply is None:
            return {"recorded": False, "error": str(self.error)}
        return {"recorded": True, "duplicate": self.reply.duplicate}


ReportsOf = Callable[[Sequence[str]], list[OutcomeReport]]
"""The entities of the model -> the reports. Reports by prediction id have no model."""


IdNameValue = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PREDICTION_ID] [NAME VALUE]",
        help="The prediction's id as `turnout predict` prints it, unless --model names the "
        "prediction; the outcome's name, such as churned; and its value, such as 1, 0 or an "
        "amount. A negative amount comes after `--`.",
        show_default=False,
    ),
]
RowOfId = Annotated[
    int | None,
    typer.Option(
        min=0, max=ROW_MAX, help="Row of the prediction with this id. Default: 0, the first."
    ),
]
ReportedModel = Annotated[
    str, typer.Option(help="Report by entity: the model that predicted. Needs --key and --at.")
]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        help="The entity of the row: ENTITY=ID, or the ids alone in the order of the model's "
        "entities; once for each entity.",
        show_default=False,
    ),
]
At = Annotated[
    str,
    typer.Option(
        help="When it happened: 2026-11-30T12:00:00Z, or Unix milliseconds. Required with --model."
    ),
]
IdempotencyKey = Annotated[
    str,
    typer.Option(
        help="Reports with the same key count once. Default: a hash of prediction, row and "
        "name, or of model, ids, name and time. A correction needs a key of its own."
    ),
]
OutcomesFile = Annotated[
    Path | None,
    typer.Option(
        help="File of outcomes: CSV with a head, or JSON lines. Columns: prediction_id, name, "
        "value, and if need be row, time and idempotency_key; with --model the names of its "
        "entities, time, name, value, and if need be idempotency_key.",
        show_default=False,
    ),
]


def outcome(
    ctx: typer.Context,
    words: IdNameValue = None,
    row: RowOfId = None,
    model: ReportedModel = "",
    keys: Keys = None,
    at: At = "",
    idempotency_key: IdempotencyKey = "",
    rows: OutcomesFile = None,
) -> None:
    """Report the outcome of a prediction, or the outcomes of a file.

    The gateway acknowledges a report once it is on disk. A report by entity names no prediction:
    monitoring looks for it some ten minutes later.
    """
    # A report of the command beside those of a file would have no place in the answer.
    context: CommandContext = ctx.obj
    if rows is not None:
        if words or keys or at or idempotency_key or row is not None:
            raise UsageError(
                "outcomes are given by --rows or in the command, not both; beside --rows only "
                "--model is used"
            )
        _report_file(context, model, rows)
        return
    # What the command line says, before the gateway is asked.
    name, value, prediction_id = _read_words(words or [], model)
    report = OutcomeReport(
        name=name,
        value=value,
        prediction_id=prediction_id,
        row=row or 0,
        model=model,
        at_ms=unix_ms("--at", at) if at else 0,
        idempotency_key=idempotency_key,
    )
    _check_form(model, row, keys, at)
    # A report by entity has the ids in the order that the model has.
    _report_one(
        context,
        model,
        lambda entities: [
            replace(report, keys=read_keys(model, entities, keys or [])) if model else report
        ],
    )


def _check_form(model: str, row: int | None, keys: Sequence[str] | None, at: str) -> None:
    """Raise UsageError for options of a report by id beside those of one by entity."""
    if not model and keys:
        raise UsageError("--key needs --model, which says by what entities rows are keyed")
    if model and row is not None:
        raise UsageError("--row is of a prediction with an id; with --model leave it out")
    if model and not at:
        raise UsageError(
            "--at is missing: monitoring takes the prediction before this time, and a report that "
            "is sent again with the same time counts once"
        )


def read_keys(model: str, entities: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the ids of --key in the order of the model's entities. UsageError for others."""
    keyed_by = f"rows of {model!r} are keyed by {', '.join(entities)}"
    if not entities:
        raise UsageError(f"{model!r} has no entities; report its outcomes by prediction id")
    # All have names, or none has. An id may contain "=", so only a known name is one.
    pairs = [key.partition("=") for key in keys]
    named = [pair for pair in pairs if pair[1] and pair[0] in entities]
    if not named:
        if len(keys) != len(entities):
            raise UsageError(f"--key has {len(keys)} ids; {keyed_by}: give one for each")
        ids = dict(zip(entities, keys, strict=True))
    else:
        ids = {name: identity for name, _, identity in named}
        if len(named) < len(keys) or len(ids) < len(named) or len(ids) < len(entities):
            raise UsageError(
                f"--key {' --key '.join(keys)}: {keyed_by}; name each of them once, as in "
                f"--key {entities[0]}=ID"
            )
    return entity_ids("--key", entities, ids)


def read_reports(path: Path, model: str, entities: Sequence[str]) -> list[OutcomeReport]:
    """Return the reports of a file. UsageError names the line that cannot be read.

    model  predicted by the entities that the file names; empty: the file has prediction ids.
    """
    # Which columns there must be, and which others there may be.
    required = [*entities, "time", "name", "value"] if model else ["prediction_id", "name", "value"]
    known = {*required, "idempotency_key"} | (set() if model else {"row", "time"})
    if len(set(required)) < len(required) or "idempotency_key" in entities:
        raise UsageError(
            f"rows of {model!r} are keyed by {', '.join(entities)}, and the columns time, name, "
            "value and idempotency_key of the file belong to the outcome; use --key for this model"
        )
    reports = []
    for line, cells in read_row_file(path):
        where = f"{path}, line {line}"
        missing = [name for name in required if name not in cells]
        surplus = [name for name in cells if name not in known]
        # An id that is not used would look as if it mattered.
        if missing or surplus:
            faults = [f"has no {', '.join(missing)}"] if missing else []
            faults += [f"has the surplus {', '.join(surplus)}"] if surplus else []
            raise UsageError(
                f"{where} {' and '.join(faults)}; the columns are {', '.join(required)}, and "
                f"{', '.join(sorted(known - set(required)))} if need be"
            )
        reports.append(_report_of(where, cells, model, entities))
    if not reports:
        raise UsageError(f"{path} has no rows")
    return reports


def _report_of(where: str, cells: Cells, model: str, entities: Sequence[str]) -> OutcomeReport:
    """Return the report of one row of a file."""
    # What reports of both kinds have.
    name, key = cells["name"], cells.get("idempotency_key") or ""
    for column, text in (("name", name or None), ("idempotency_key", key)):
        if not isinstance(text, str):
            raise UsageError(f"{where}: {column} is {cells[column]!r}, which is no text")
    value = finite_number(f"{where}: value", cells["value"])
    at = cells.get("time")
    at_ms = unix_ms(f"{where}: time", at) if model or at not in (None, "") else 0
    if model:
        ids = entity_ids(where, entities, cells)
        return OutcomeReport(
            name=str(name),
            value=value,
            model=model,
            keys=ids,
            at_ms=at_ms,
            idempotency_key=str(key),
        )
    # An absent row is the first one of the prediction.
    row = cells.get("row")
    position = 0.0 if row in (None, "") else finite_number(f"{where}: row", row)
    if not (0 <= position <= ROW_MAX and position == int(position)):
        raise UsageError(f"{where}: row is {row!r}; the rows of a prediction are 0, 1, 2 ...")
    try:
        prediction_id = parse_prediction_id(str(cells["prediction_id"]))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return OutcomeReport(
        name=str(name),
        value=value,
        prediction_id=prediction_id,
        row=int(position),
        at_ms=at_ms,
        idempotency_key=str(key),
    )


def _read_words(words: Sequence[str], model: str) -> tuple[str, float, bytes]:
    """Return name, value and prediction id of the arguments."""
    if len(words) != (2 if model else 3):
        got = f"it got {len(words)}: {' '.join(words)}" if words else "it got none"
        why = ""
        if model and len(words) == 3:
            why = ". With --model no prediction is named by its id"
        raise UsageError(f"turnout outcome takes {FORMS}; {got}{why}")
    *identity, name, value = words
    if not name:
        raise UsageError("NAME is empty; an outcome has a name, such as churned")
    return name, finite_number("VALUE", value), parse_prediction_id(*identity) if identity else b""


async def _send(
    context: CommandContext, model: str, reports_of: ReportsOf
) -> tuple[list[OutcomeReport], list[ReportAnswer]]:
    """Ask for the model's entities, make the reports by them, and send each."""
    from turnout_client import PredictError

    async with clients.open_gateway(context) as client:
        entities = list((await client.describe(model)).entities) if model else []
        reports = reports_of(entities)
        answers = [ReportAnswer()] * len(reports)
        waiting = iter(enumerate(reports))

        # A refused row is an answer, too: the others go on.
        async def send_waiting() -> None:
            for position, report in waiting:
                try:
                    answers[position] = ReportAnswer(await report.send(client))
                except PredictError as error:
                    answers[position] = ReportAnswer(error=error)

        await asyncio.gather(*(send_waiting() for _ in range(clients.CALLS_OPEN)))
    return reports, answers


def _report_one(context: CommandContext, model: str, reports_of: ReportsOf) -> None:
    """Send the report of the command's arguments. Raises PredictError."""
    (report,), (answer,) = asyncio.run(_send(context, model, reports_of))
    if answer.error is not None:
        raise answer.error
    value = answer.value()
    known = " It was recorded before, and counts once." if value["duplicate"] else ""
    screen = terminal(context.json)
    screen.result(value, f"Recorded: {report.name} = {report.value:g}.{known}")
    if model:
        _hint_search(context)


def _report_file(context: CommandContext, model: str, path: Path) -> None:
    """Send the reports of a file; exit with 1 if one was refused."""
    # Ids need no model, so a file of them that cannot be read costs no call.
    read = [] if model else read_reports(path, "", [])

    def reports_of(entities: Sequence[str]) -> list[OutcomeReport]:
        return read_reports(path, model, entities) if model else read

    _, answers = asyncio.run(_send(context, model, reports_of))
    refused = [(number, answer) for number, answer in enumerate(answers, 1) if answer.error]
    known = sum(answer.reply.duplicate for answer in answers if answer.reply is not None)
    screen = terminal(context.json)
    counts = {
        "recorded": f"{len(answers) - len(refused) - known:,}",
        "recorded before": f"{known:,}",
        "refused": f"{len(refused):,}",
    }
    shown = [(number, str(answer.error)) for number, answer in refused[:SHOWN]]
    tables = [text_table(("row", "why it was refused"), shown)] if shown else []
    screen.result([answer.value() for answer in answers], named_values(counts), *tables)
    if model and len(refused) < len(answers):
        _hint_search(context)
    # A script must not take the file for recorded.
    if refused:
        screen.note(
            f"{len(refused):,} of {len(answers):,} outcomes were not recorded. Correct them, and "
            "send the file again: what was recorded counts once."
        )
        raise typer.Exit(ExitCode.FAILED)


def _hint_search(context: CommandContext) -> None:
    terminal(context.json).hint(
        "Monitoring looks for the prediction in some ten minutes; until then the outcome waits in "
        "`turnout monitor status`."
    )
