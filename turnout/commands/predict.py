"""`turnout predict` and `turnout outcome`: one call, as a CRM service would make it."""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import UsageError
from turnout.views.row_flags import row_flag_names
from turnout.views.terminal import named_values, terminal

if TYPE_CHECKING:
    from turnout_client import Prediction


def predict(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's name.")],
    keys: Annotated[list[str], typer.Argument(help="One row: its entity ids, in order.")],
    named: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="name=value, a request input.")
    ] = None,
    version: Annotated[str, typer.Option(help="Pin this version; empty: the split.")] = "",
    sticky: Annotated[str, typer.Option(help="What the split hashes; empty: the id.")] = "",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds.")] = 5.0,
) -> None:
    """Score one customer through the gateway."""
    asked: CommandContext = ctx.obj
    inputs = dict(parse_input(text) for text in named or [])
    began = time.perf_counter()
    got = asyncio.run(_predict(asked, model, keys, inputs, version, sticky, timeout_s))
    took_ms = 1000 * (time.perf_counter() - began)
    value = {
        "model": model,
        "keys": keys,
        "scores": got.scores.tolist(),
        "version": got.version,
        "role": got.role,
        "holdout": got.holdout,
        "row_flags": [row_flag_names(flags) for flags in _flags(got)],
        "prediction_id": got.prediction_id.hex(),
        "took_ms": round(took_ms, 2),
    }
    shown = {
        **value,
        "keys": ", ".join(keys),
        "scores": _scores(got),
        "row_flags": ", ".join(word for row in value["row_flags"] for word in row)
        or "none: every feature fresh",
    }
    terminal(asked.json).result(value, named_values(shown))


def outcome(
    ctx: typer.Context,
    prediction_id: Annotated[str, typer.Argument(help="Hex, as `turnout predict` printed it.")],
    name: Annotated[str, typer.Argument(help="churned, accepted, ...")],
    value: Annotated[float, typer.Argument(help="1 or 0, an amount, ...")],
    row: Annotated[int, typer.Option(help="Which row of the prediction.")] = 0,
) -> None:
    """Report what became of a prediction; acknowledged once it is on disk."""
    asked: CommandContext = ctx.obj
    try:
        identity = bytes.fromhex(prediction_id)
    except ValueError as error:
        raise UsageError(f"{prediction_id!r} is not hex digits") from error

    async def report() -> None:
        async with clients.open_gateway(asked) as client:
            await client.report_outcome(identity, name, value, row=row)

    asyncio.run(report())
    terminal(asked.json).result({"kept": True}, f"Kept: {name} = {value:g}.")


def parse_input(text: str) -> tuple[str, float | str]:
    """Read name=value; a value that is no number is a category."""
    name, found, value = text.partition("=")
    if not (name and found):
        raise UsageError(f"{text!r} is not name=value")
    try:
        return name, float(value)
    except ValueError:
        return name, value


async def _predict(
    context: CommandContext,
    model: str,
    keys: list[str],
    inputs: dict[str, float | str],
    version: str,
    sticky: str,
    timeout_s: float,
) -> "Prediction":
    async with clients.open_gateway(context) as client:
        return await client.predict(
            model,
            keys=[keys],
            named=inputs or None,
            version=version,
            sticky_key=sticky,
            timeout_s=timeout_s,
        )


def _flags(prediction: "Prediction") -> list[int]:
    return [int(flags) for flags in prediction.row_flags] or [0] * len(prediction.scores)


def _scores(prediction: "Prediction") -> str:
    return ", ".join(" ".join(f"{score:.4f}" for score in row) for row in prediction.scores)
