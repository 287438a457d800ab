"""`turnout explain`: where a score comes from, what a person may be told, and what would help."""

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from turnout.cli.arguments import float32_number, parse_input, parse_prediction_id
from turnout.cli.clients import open_explainer
from turnout.cli.context import CommandContext
from turnout.errors import UsageError
from turnout.views.terminal import named_values, terminal, text_table

if TYPE_CHECKING:
    from protos import explain_pb2

BAR_WIDTH = 24
EXPLAIN_S = 90.0
"""The first explanation of a version prepares it."""
ROWS_SHOWN = 12
"""Contributions of the table; the rest is one line."""


def explain(
    ctx: typer.Context,
    prediction_id: Annotated[
        str,
        typer.Argument(
            help="The id in hex digits, as `turnout predict` prints it.", show_default=False
        ),
    ] = "",
    row: Annotated[int, typer.Option(min=0, help="Row of the prediction, from 0.")] = 0,
    model: Annotated[str, typer.Option(help="Explain a row of this model, without an id.")] = "",
    version: Annotated[str, typer.Option(help="Label or id of the version, with --model.")] = "",
    named: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="NAME=VALUE of an input, stored features too; may be repeated. Others have their "
            "defaults.",
        ),
    ] = None,
    output: Annotated[
        int | None,
        typer.Option(min=0, help="Position of the output. Default: the predicted one."),
    ] = None,
    language: Annotated[str, typer.Option(help="Language of the reasons, such as en.")] = "",
    reasons: Annotated[int, typer.Option(min=1, max=16, help="Most reasons.")] = 4,
    change: Annotated[
        bool, typer.Option(help="Look for the smallest change that would decide otherwise.")
    ] = True,
) -> None:
    """Explain one score: contributions that add up to it, reasons in words, and a way out.

    The row is the one that was served, from the journal of the system's gateways; or one that is
    given with --model, --version and --input.
    """
    from protos import explain_pb2

    # A row is named by its prediction, or given.
    context: CommandContext = ctx.obj
    if bool(prediction_id) == bool(model or version or named):
        raise UsageError("give a prediction id, or --model, --version and --input of a row")
    # Numbers and words are sent apart.
    numbers, texts = _numbers_and_texts(named or [])
    request = explain_pb2.ExplainRequest(
        prediction_id=parse_prediction_id(prediction_id) if prediction_id else b"",
        row=row,
        output=output,
        reasons_max=reasons,
        model=model,
        version=version,
        named=numbers,
        named_text=texts,
        language=language,
        without_change=not change,
    )
    # The table shows what the JSON value has.
    reply = asyncio.run(_ask(context, request))
    shown = explanation_view(reply, with_change=change)
    terminal(context.json).result(explanation_json(reply), *shown)


def _numbers_and_texts(named: Sequence[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the inputs by name: numbers, and what is none, which is a category."""
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    for name, value in (parse_input(text) for text in named):
        try:
            numbers[name] = float32_number(name, value)
        except ValueError:
            texts[name] = value
    return numbers, texts


async def _ask(
    context: CommandContext, request: "explain_pb2.ExplainRequest"
) -> "explain_pb2.ExplainReply":
    async with open_explainer(context) as call:
        return await call(request, EXPLAIN_S)


def explanation_json(reply: "explain_pb2.ExplainReply") -> dict[str, Any]:
    """Return an explanation as JSON values."""
    # Contributions and reasons are in order, the largest first.
    lists = {
        "contributions": [
            {
                "feature": item.feature,
                "inputs": list(item.inputs),
                "values": list(item.texts),
                "contribution": item.contribution,
            }
            for item in reply.contributions
        ],
        "reasons": [
            {
                "group": item.group,
                "inputs": list(item.inputs),
                "contribution": item.contribution,
                "share": item.share,
                "text": item.text,
                "problem": item.problem,
            }
            for item in reply.reasons
        ],
        # What a person would have to change.
        "change": [
            {"feature": item.feature, "before": item.before, "after": item.after}
            for item in reply.change
        ],
    }
    # The rest are single values.
    return {
        "model": reply.model,
        "version": reply.version,
        "digest": reply.version_digest,
        "output": reply.output,
        "score": reply.score,
        "threshold": reply.threshold,
        "decision": reply.Decision.Name(reply.decision).lower(),
        "unit": reply.unit,
        "base": reply.base,
        "margin": reply.margin,
        "background": reply.background,
        "explanation_id": reply.explanation_id,
        "served_unix_ns": reply.served_unix_ns,
        "reasons_note": reply.reasons_note,
        "changed_score": reply.changed_score if reply.change else None,
        "change_note": reply.change_note,
        **lists,
    }


def explanation_view(reply: "explain_pb2.ExplainReply", *, with_change: bool = True) -> list[Any]:
    """Return what people see: the score, a bar for each input, reasons and the change.

    with_change  the change was asked for; else nothing is said of it.
    """
    decision = reply.Decision.Name(reply.decision).lower()
    head = named_values(
        {
            "model": f"{reply.model} {reply.version}",
            "score": f"{reply.score:.6g} ({reply.output}; threshold {reply.threshold:.6g})",
            **({} if not reply.decision else {"decision": decision}),
            "unit": f"{reply.unit}: {reply.base:+.4f} on average, {reply.margin:+.4f} here",
            "against": reply.background,
            "explanation": reply.explanation_id,
        }
    )
    return [head, _contributions(reply), *_reasons(reply), *(_change(reply) if with_change else ())]


def _contributions(reply: "explain_pb2.ExplainReply") -> Any:  # noqa: ANN401  a rich renderable
    """Return the table of contributions; the bars of one table have one scale."""
    largest = max((abs(item.contribution) for item in reply.contributions), default=0.0) or 1.0
    shown, rest = reply.contributions[:ROWS_SHOWN], reply.contributions[ROWS_SHOWN:]
    rows = [
        (
            item.feature,
            ", ".join(item.texts),
            f"{item.contribution:+.4f}",
            _bar(item.contribution / largest),
        )
        for item in shown
    ]
    if rest:
        left = math.fsum(item.contribution for item in rest)
        rows.append((f"{len(rest)} others", "", f"{left:+.4f}", _bar(left / largest)))
    return text_table(("input", "value", reply.unit, ""), rows)


def _bar(share: float) -> Text:
    """Return a bar to the right for what raises the margin, and to the left for what lowers it."""
    half = BAR_WIDTH // 2
    length = min(half, round(abs(share) * half))
    if share < 0:
        return Text(" " * (half - length) + "█" * length + "│" + " " * half, style="blue")
    return Text(" " * half + "│" + "█" * length, style="red")


def _reasons(reply: "explain_pb2.ExplainReply") -> list[Any]:
    if not reply.reasons:
        return [Text(f"No reasons: {reply.reasons_note}.")] if reply.reasons_note else []
    lines: list[Any] = [Text("Reasons, against rows with the favourable decision:", style="bold")]
    for number, item in enumerate(reply.reasons, 1):
        told = item.text or f"not to be told: {item.problem}"
        lines.append(Text(f"  {number}. {told} ({item.share:.0%} of the difference)"))
    return lines


def _change(reply: "explain_pb2.ExplainReply") -> list[Any]:
    if not reply.change:
        return [Text(f"No change: {reply.change_note}.")] if reply.change_note else []
    changed = " and ".join(
        f"{item.feature} from {item.before} to {item.after}" for item in reply.change
    )
    return [
        Text(
            f"Would have decided otherwise: {changed} (score {reply.changed_score:.6g}, scored by "
            "the version)."
        )
    ]
