"""A plan as Markdown, for the comment of a merge request."""

from collections.abc import Iterator

from project.definitions import NOUNS
from project.plan.plan import Plan

DIGEST_SHOWN = 12


def plan_markdown(plan: Plan) -> str:
    """Return the plan as one Markdown text."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"### Plan of project `{plan.definitions.name}` for `{plan.environment}`"
    yield ""
    if not plan.changes:
        yield f"Nothing to do: revision {plan.expected_revision} is what the files declare."
        return
    # One row for each change, and below it what it touches.
    yield "| what | change | class | details |"
    yield "|---|---|---|---|"
    for item in plan.changes:
        change = item.change
        details = "<br>".join(_cell(text) for text in change.details)
        name = f"{NOUNS[change.section]} `{change.name}`"
        yield f"| {name} | {change.kind} | {change.impact or '-'} | {details or '-'} |"
    # What it touches, and what it costs.
    effects = [effect for item in plan.changes for effect in item.effects]
    if effects:
        yield ""
        yield "**Touches**"
        yield ""
        for effect in effects:
            yield f"- {'**refused:** ' if effect.blocking else ''}{_cell(effect.text)}"
    if plan.costs:
        yield ""
        yield "| new edition | rows to back-fill | bytes in the online store, at most |"
        yield "|---|---|---|"
        for cost in plan.costs:
            yield f"| `{cost.view}` | {_number(cost.rows)} | {_number(cost.store_bytes_max)} |"
    yield ""
    yield (
        f"Compared with revision {plan.expected_revision}; plan `{plan.digest[:DIGEST_SHOWN]}`. "
        + ("Nothing to apply." if plan.is_empty else "`turnout apply` writes it.")
    )


def _cell(text: str) -> str:
    """Return text that breaks no table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _number(count: int | None) -> str:
    return "not counted" if count is None else f"{count:,}"
