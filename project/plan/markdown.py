"""A plan as Markdown, for the comment of a merge request."""

from collections.abc import Iterator

from project.definitions import NOUNS
from project.plan.plan import Plan
from project.plan.sample import FEATURE_COLUMNS, FEATURES_SHOWN

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
        yield "| new edition | rows to back-fill | keys online | online store bytes at most |"
        yield "|---|---|---|---|"
        for cost in plan.costs:
            counts = (cost.rows, cost.entities, cost.store_bytes_max)
            yield f"| `{cost.view}` | {' | '.join(map(_number, counts))} |"
    yield from _sample_lines(plan)
    yield ""
    yield (
        f"Compared with revision {plan.expected_revision}; plan `{plan.digest[:DIGEST_SHOWN]}`. "
        + ("Nothing to apply." if plan.is_empty else "`turnout apply` writes it.")
    )


def _sample_lines(plan: Plan) -> Iterator[str]:
    """Yield what the rows of added and changed views are like, and what cannot be read."""
    if plan.problems:
        yield ""
        yield "**Problems**"
        yield ""
        for problem in plan.problems:
            yield f"- {_cell(str(problem))}"
    texts = [text for item in plan.samples for text in item.texts]
    if texts:
        yield ""
        yield "**A sample of the rows**"
        yield ""
        for text in texts:
            yield f"- {_cell(text)}"
    rows = [row for item in plan.samples for row in item.feature_rows[:FEATURES_SHOWN]]
    if rows:
        yield ""
        yield f"| {' | '.join(FEATURE_COLUMNS)} |"
        yield "|---" * len(FEATURE_COLUMNS) + "|"
        for row in rows:
            yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """Return text that breaks no table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _number(count: int | None) -> str:
    return "not counted" if count is None else f"{count:,}"
