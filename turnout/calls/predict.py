"""`turnout predict`: scores rows through the gateway, as a service does."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnout.calls.row_files import entity_ids, read_row_file
from turnout.cli import clients
from turnout.cli.arguments import Model, float32_number, parse_input
from turnout.cli.context import CommandContext
from turnout.errors import ExitCode, UsageError
from turnout.views.row_flags import row_flag_names
from turnout.views.scores import score_text
from turnout.views.terminal import named_values, terminal, text_table

if TYPE_CHECKING:
    from turnout_client import PredictError, Prediction
    from turnout_client._protos.predict_pb2 import ModelDescription

Inputs = dict[str, float | str]
"""Request inputs of one row by name: numbers, and texts of categories."""


@dataclass(frozen=True)
class RequestRow:
    """One row to score."""

    keys: list[str]
    inputs: Inputs


@dataclass(frozen=True)
class RowCalls:
    """What the calls of one command have in common."""

    model: str
    version: str
    sticky: str
    timeout_s: float


@dataclass(frozen=True)
class RowAnswer:
    """The prediction of one row, or why there is none."""

    row: RequestRow
    prediction: "Prediction | None" = None
    error: "PredictError | None" = None

    def value(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        if self.prediction is None:
            return {"keys": self.row.keys, "error": str(self.error)}
        return {
            "keys": self.row.keys,
            "scores": self.prediction.scores.tolist(),
            "version": self.prediction.version,
            "role": self.prediction.role,
            "holdout": self.prediction.holdout,
            "row_flags": [row_flag_names(int(flags)) for flags in self.prediction.row_flags],
            "prediction_id": self.prediction.prediction_id.hex(),
        }


def predict(
    ctx: typer.Context,
    model: Model,
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            help="The row's entity ids, in the order of the model's entities. A model without "
            "entities takes none.",
            show_default=False,
        ),
    ] = None,
    named: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="NAME=VALUE of a request input; may be repeated."),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="File of rows to score, each in a call of its own: CSV with a head, or JSON "
            "lines. Its columns are the names of the model's entities and request inputs.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        str, typer.Option(help="Ask this version instead of the one that the split chooses.")
    ] = "",
    sticky: Annotated[
        str, typer.Option(help="Key that chooses the version in the split. Default: the first id.")
    ] = "",
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Deadline of each call, in seconds.")
    ] = 5.0,
) -> None:
    """Score one row, such as one customer, or the rows of a file, through the gateway."""
    # Refuse options that contradict each other.
    context: CommandContext = ctx.obj
    if not 0 < timeout_s < math.inf:
        raise UsageError(f"--timeout {timeout_s:g}: a deadline is some seconds, such as 0.5")
    # A row of the arguments beside those of a file would have no place in the answer.
    if rows is not None and (keys or named):
        raise UsageError("keys and inputs are given by --rows or in the command, not both")
    # Score the file's rows, or the one of the arguments.
    calls = RowCalls(model, version, sticky, timeout_s)
    if rows is not None:
        _predict_file(context, calls, rows)
        return
    _predict_row(context, calls, keys or [], named or [])


async def _ask(
    context: CommandContext,
    calls: RowCalls,
    rows_of: Callable[["ModelDescription"], list[RequestRow]],
) -> "tuple[ModelDescription, list[RowAnswer]]":
    """Describe the model, make the rows by it, and score each row in a call of its own.

    A call is one unit of evidence and the split has one key for it, so customers share none.
    """
    from turnout_client import PredictError

    # The model says which inputs are text.
    async with clients.open_gateway(context) as client:
        described = await client.describe(calls.model, timeout_s=calls.timeout_s)
        open_calls = asyncio.Semaphore(clients.CALLS_OPEN)

        # A refused row is an answer, too: the others go on.
        async def answer(row: RequestRow) -> RowAnswer:
            async with open_calls:
                try:
                    prediction = await client.predict(
                        calls.model,
                        keys=[row.keys],
                        named=row.inputs or None,
                        version=calls.version,
                        sticky_key=calls.sticky,
                        timeout_s=calls.timeout_s,
                    )
                except PredictError as error:
                    return RowAnswer(row, error=error)
            return RowAnswer(row, prediction)

        return described, await asyncio.gather(*map(answer, rows_of(described)))


def _predict_row(
    context: CommandContext, calls: RowCalls, keys: list[str], named: list[str]
) -> None:
    """Print the answer of the row in the command's arguments. Raises PredictError."""
    # The time includes the connection, which a service would keep open.
    began = time.perf_counter()
    described, (answer,) = asyncio.run(
        _ask(context, calls, lambda described: [request_row(described, keys, named)])
    )
    took_ms = 1000 * (time.perf_counter() - began)
    if answer.error is not None:
        raise answer.error
    # One score needs no name. The JSON value keeps numbers and lists.
    outputs = list(described.outputs) if len(described.outputs) > 1 else []
    value = {
        "model": calls.model,
        **answer.value(),
        "outputs": outputs,
        "took_ms": round(took_ms, 2),
    }
    # The table shows the same values as text.
    shown = {
        **value,
        "keys": ", ".join(keys),
        "scores": score_text(value["scores"][0], outputs),
        "outputs": ", ".join(outputs) or "one",
        "row_flags": ", ".join(flag for flags in value["row_flags"] for flag in flags)
        or "none: every feature is there and fresh",
    }
    terminal(context.json).result(value, named_values(shown))


def _predict_file(context: CommandContext, calls: RowCalls, path: Path) -> None:
    """Print the answer of each row of a file, in the file's order; exit with 1 if one failed."""
    described, answers = asyncio.run(
        _ask(context, calls, lambda described: read_rows(path, described))
    )
    # One line for each row: its scores, or the gateway's sentence.
    outputs = list(described.outputs)
    lines = []
    for answer in answers:
        value = answer.value()
        shown = value.get("error") or score_text(value["scores"][0], outputs)
        flags = ", ".join(flag for row in value.get("row_flags", []) for flag in row)
        role, version = value.get("role", "-"), value.get("version", "-")
        holdout = "yes" if value.get("holdout") else ""
        lines.append((", ".join(answer.row.keys), shown, version, role, holdout, flags))
    columns = ("keys", "scores", "version", "role", "holdout", "flags")
    screen = terminal(context.json)
    screen.result([answer.value() for answer in answers], text_table(columns, lines))
    # A script must not take the file for scored.
    if failed := sum(answer.error is not None for answer in answers):
        screen.note(f"{failed:,} of {len(answers):,} rows were not scored.")
        raise typer.Exit(ExitCode.FAILED)


def request_row(
    described: "ModelDescription", keys: Sequence[str], named: Sequence[str]
) -> RequestRow:
    """Return the row of the command's arguments. UsageError when an input cannot be read."""
    pairs = [parse_input(text) for text in named]
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = sorted({name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1})
        raise UsageError(f"--input names {', '.join(twice)} twice; give each input once")
    return RequestRow(list(keys), typed_inputs(described, values))


def typed_inputs(described: "ModelDescription", values: Mapping[str, object]) -> Inputs:
    """Return the inputs as their model takes them.

    An input with a dictionary gets text, also where the text is a number: "2" is the category "2",
    and not the one at position 2. All others get numbers. A name that the model does not have is
    left as it is, because the gateway refuses it and names those that there are.

    UsageError when a number is asked for and the value is none.
    """
    categories = {item.name: bool(item.dictionary) for item in described.inputs}
    inputs: Inputs = {}
    for name, value in values.items():
        if categories.get(name):
            inputs[name] = value if isinstance(value, str) else json.dumps(value)
            continue
        try:
            inputs[name] = float32_number(name, value)
        except (TypeError, ValueError) as error:
            if name not in categories:
                inputs[name] = str(value)
                continue
            raise UsageError(
                f"{name}={value}: model {described.model!r} takes a number there"
            ) from error
    return inputs


def read_rows(path: Path, described: "ModelDescription") -> list[RequestRow]:
    """Read the rows of a file: JSON lines if its first line is an object, and else CSV.

    Each column is an entity or a request input of the model. An input whose cell is empty, null or
    absent is left out, so the model's default counts.

    UsageError names the line of what cannot be read.
    """
    # What the columns may be called.
    entities = list(described.entities)
    known = {*entities, *(item.name for item in described.inputs)}
    rows = []
    for number, cells in read_row_file(path):
        where = f"{path}, line {number}"
        # A wrong name would leave an input at its default, silently.
        if unknown := [name for name in cells if name not in known]:
            raise UsageError(
                f"{where}: model {described.model!r} has no entity or input "
                f"{', '.join(map(repr, unknown))}; it has {', '.join(sorted(known))}"
            )
        ids = entity_ids(where, entities, cells)
        values = {
            name: value
            for name, value in cells.items()
            if name not in entities and value not in (None, "")
        }
        try:
            inputs = typed_inputs(described, values)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        rows.append(RequestRow(ids, inputs))
    if not rows:
        raise UsageError(f"{path} has no rows")
    return rows
