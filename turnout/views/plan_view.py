"""A plan, problems of a project and revisions, as tables for a terminal."""

import datetime as dt
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from project.definitions import NOUNS
from project.plan.differences import Change
from project.plan.plan import Plan
from project.plan.sample import FEATURE_COLUMNS, FEATURES_SHOWN
from registry.types import ProjectRevision
from turnout.views.terminal import text_table

STYLES = {"breaking": "bold red", "value": "yellow", "formatting": "dim", "descriptive": "dim"}


def plan_tables(plan: Plan) -> Iterator[RenderableType]:
    """Yield the tables and lines that show a plan."""
    if not plan.changes:
        yield f"Nothing to do: revision {plan.expected_revision} is what the files declare."
        return
    yield changes_table([item.change for item in plan.changes])
    # What it touches, with what the registry would refuse first.
    effects = [effect for item in plan.changes for effect in item.effects]
    for effect in sorted(effects, key=lambda effect: not effect.blocking):
        mark = ("refused: ", "bold red") if effect.blocking else ("touches: ", "bold")
        yield Text.assemble(mark, effect.text)
    if plan.costs:
        yield text_table(
            ("new edition", "rows to back-fill", "keys online", "store bytes at most"),
            [
                (cost.view, *map(_number, (cost.rows, cost.entities, cost.store_bytes_max)))
                for cost in plan.costs
            ],
        )
    yield from _sample_tables(plan)
    yield (
        f"plan {plan.digest[:12]} for {plan.environment}, compared with revision "
        f"{plan.expected_revision}"
    )


def _sample_tables(plan: Plan) -> Iterator[RenderableType]:
    """Yield what the rows of added and changed views are like, and what cannot be read."""
    for item in plan.samples:
        yield from item.texts
        hidden = len(item.feature_rows) - FEATURES_SHOWN
        if item.feature_rows:
            yield text_table(FEATURE_COLUMNS, item.feature_rows[:FEATURES_SHOWN])
        if hidden > 0:
            yield f"{item.view}: {hidden} more features are in the output of --json"
    for problem in plan.problems:
        yield Text.assemble(("problem: ", "bold red"), str(problem))


def changes_table(changes: Sequence[Change]) -> RenderableType:
    """Return one row for each change."""
    rows = [
        (
            f"{NOUNS[change.section]} {change.name}",
            change.kind,
            Text(change.impact or "-", style=STYLES.get(change.impact, "")),
            "; ".join(change.details) or "-",
        )
        for change in changes
    ]
    return text_table(("what", "change", "class", "details"), rows)


def revisions_table(revisions: Sequence[ProjectRevision]) -> RenderableType:
    """Return one row for each applied revision."""
    rows = [
        (
            item.revision,
            _local_minute(item.applied_unix_ms),
            item.author,
            (item.commit[:12] or "-") + ("+" if item.dirty else ""),
            item.digest[:12],
            item.reason or "-",
        )
        for item in revisions
    ]
    return text_table(("revision", "applied", "by", "commit", "digest", "reason"), rows)


def _local_minute(unix_ms: int) -> str:
    at = dt.datetime.fromtimestamp(unix_ms / 1_000, tz=dt.UTC).astimezone()
    return at.strftime("%Y-%m-%d %H:%M")


def _number(count: int | None) -> str:
    return "not counted" if count is None else f"{count:,}"
