"""`turnout predict` and `turnout outcome`: one call to the gateway, as a service makes it."""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from turnout.cli import clients
from turnout.cli.arguments import Model, parse_input
from turnout.cli.context import CommandContext
from turnout.errors import UsageError
from turnout.views.row_flags import row_flag_names
from turnout.views.scores import score_text
from turnout.views.terminal import named_values, terminal

if TYPE_CHECKING:
    from turnout_client import Prediction


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
    version: Annotated[
        str, typer.Option(help="Ask this version instead of the one that the split chooses.")
    ] = "",
    sticky: Annotated[
        str, typer.Option(help="Key that chooses the version in the split. Default: the first id.")
    ] = "",
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Deadline of the call, in seconds.")
    ] = 5.0,
) -> None:
    """Score one row, such as one customer, through the gateway."""
    context: CommandContext = ctx.obj
    # The time includes the connection, which a service would keep open.
    keys = keys or []
    inputs = dict(parse_input(text) for text in named or [])
    began = time.perf_counter()
    prediction, outputs = asyncio.run(
        _predict(context, model, keys, inputs, version, sticky, timeout_s)
    )
    took_ms = 1000 * (time.perf_counter() - began)
    # The JSON value keeps numbers and lists.
    value = {
        "model": model,
        "keys": keys,
        "scores": prediction.scores.tolist(),
        "outputs": outputs,
        "version": prediction.version,
        "role": prediction.role,
        "holdout": prediction.holdout,
        "row_flags": [row_flag_names(flags) for flags in _flags(prediction)],
        "prediction_id": prediction.prediction_id.hex(),
        "took_ms": round(took_ms, 2),
    }
    # The table shows the same values as text.
    shown = {
        **value,
        "keys": ", ".join(keys),
        "scores": score_text(prediction.scores[0].tolist(), outputs),
        "outputs": ", ".join(outputs) or "one",
        "row_flags": ", ".join(flag for flags in value["row_flags"] for flag in flags)
        or "none: every feature is there and fresh",
    }
    terminal(context.json).result(value, named_values(shown))


def outcome(
    ctx: typer.Context,
    prediction_id: Annotated[
        str, typer.Argument(help="The id in hex digits, as `turnout predict` prints it.")
    ],
    name: Annotated[str, typer.Argument(help="Name of the outcome: churned, accepted, ...")],
    value: Annotated[float, typer.Argument(help="Its value: 1 or 0, an amount, ...")],
    row: Annotated[int, typer.Option(help="Row of the prediction, from 0.")] = 0,
) -> None:
    """Report the outcome of a prediction; the gateway acknowledges it once it is on disk."""
    context: CommandContext = ctx.obj
    try:
        identity = bytes.fromhex(prediction_id)
    except ValueError as error:
        raise UsageError(
            f"{prediction_id!r} is no prediction id: it has hex digits only"
        ) from error

    async def report() -> None:
        async with clients.open_gateway(context) as client:
            await client.report_outcome(identity, name, value, row=row)

    asyncio.run(report())
    terminal(context.json).result({"recorded": True}, f"Recorded: {name} = {value:g}.")


async def _predict(
    context: CommandContext,
    model: str,
    keys: list[str],
    inputs: dict[str, float | str],
    version: str,
    sticky: str,
    timeout_s: float,
) -> "tuple[Prediction, list[str]]":
    """Return the prediction, and the names of the model's outputs if it has several."""
    async with clients.open_gateway(context) as client:
        prediction = await client.predict(
            model,
            keys=[keys],
            named=inputs or None,
            version=version,
            sticky_key=sticky,
            timeout_s=timeout_s,
        )
        # One score needs no name.
        if prediction.scores.shape[1] == 1:
            return prediction, []
        described = await client.describe(model, timeout_s=timeout_s)
        return prediction, list(described.outputs)


def _flags(prediction: "Prediction") -> list[int]:
    return [int(flags) for flags in prediction.row_flags] or [0] * len(prediction.scores)
