"""`turnout plan` and `turnout apply`: what a project would change, and the change itself."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnout.cli import clients
from turnout.cli.arguments import Reason, check_new_file
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.views.terminal import terminal

COMPARED = {
    "format": "the format of plan files",
    "project": "the project's name",
    "environment": "the environment",
    "expected_revision": "the applied revision",
    "definitions_digest": "the project's files",
    "changes": "the changes and what they touch",
}
"""Key of a plan file that says what is applied -> its name in a sentence."""

SampleRows = Annotated[
    int,
    typer.Option(
        "--sample",
        min=0,
        help="Rows to look at in the source of each added or changed view. 0: none.",
    ),
]
SAMPLE_ROWS = 10_000
"""Rows are looked at in each source unless --sample says another number."""

if TYPE_CHECKING:
    from project.plan.plan import Plan


def plan(
    ctx: typer.Context,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a merge request.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the plan as JSON, for `turnout apply FILE`.")
    ] = None,
    sample: SampleRows = SAMPLE_ROWS,
) -> None:
    """Compare the project with what is applied: what changes, and what that touches.

    Exit code 1 when there is something to apply, or a source of an added or changed view cannot be
    read.
    """
    # SQLGlot and the registry's client are imported when the command runs.
    from project.plan.markdown import plan_markdown
    from turnout.views.plan_view import plan_tables

    context: CommandContext = ctx.obj
    check_new_file("--out", out)
    made = asyncio.run(_plan(context, sample))
    if out is not None:
        out.write_text(json.dumps(made.to_json(), indent=1) + "\n", encoding="utf-8")
    if markdown and not context.json:
        typer.echo(plan_markdown(made), nl=False)
    else:
        terminal(context.json).result(made.to_json(), *plan_tables(made))
    if not made.is_empty:
        raise typer.Exit(1)


def apply(
    ctx: typer.Context,
    reason: Reason,
    plan_file: Annotated[
        Path | None,
        typer.Argument(
            exists=True, dir_okay=False, help="A plan of `turnout plan --out`: apply that or none."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Apply without asking.")] = False,
    sample: SampleRows = SAMPLE_ROWS,
) -> None:
    """Apply the project: one revision, written only if nothing has changed since the plan.

    With a plan file its digest must be that of the plan that is made now.
    """
    context: CommandContext = ctx.obj
    # The plan is made anew, so that an old file cannot hide what has changed since.
    made = asyncio.run(_plan(context, sample))
    if plan_file is not None:
        _check_plan_file(plan_file, made.to_json())
    apply_after_question(context, made, reason, ask=not yes and plan_file is None)


def apply_after_question(context: CommandContext, made: "Plan", reason: str, *, ask: bool) -> None:
    """Show the plan, ask if *ask* is set, apply it and print the new revision.

    Raises OperatorError when the registry would refuse the plan.
    """
    from turnout.cli.projects import apply_plan, revision_json
    from turnout.views.plan_view import plan_tables

    screen = terminal(context.json)
    if made.is_empty:
        value = {"applied": False, "revision": made.expected_revision}
        screen.result(value, "Nothing to apply.")
        return
    # People see it before they are asked.
    if not context.json:
        for item in plan_tables(made):
            screen.stderr.print(item)
    if made.blocking:
        raise OperatorError(f"the registry would refuse this: {made.blocking[0].text}")
    if made.problems:
        raise OperatorError("; ".join(map(str, made.problems)))
    if ask and context.json:
        raise OperatorError("--json asks no question: apply a plan file, or accept it with --yes")
    if ask:
        typer.confirm(f"Apply this to {made.environment}?", abort=True, err=True)
    # What was applied in between is refused by the registry.
    revision = asyncio.run(apply_plan(context, made, reason))
    screen.result(
        {"applied": True, **revision_json(revision)},
        f"Applied revision {revision.revision} of {revision.name} ({revision.digest[:12]}).",
    )


async def _plan(context: CommandContext, sample_rows: int) -> "Plan":
    from project.environment import require_production_rules
    from project.loading.loader import load_project
    from turnout.cli.projects import plan_change, sample_settings

    require_production_rules(context.required_environment())
    loaded = await load_project(context.required_project())
    local, sample = loaded.required(), sample_settings(context, loaded, sample_rows)
    async with clients.open_registry(context) as client:
        return await plan_change(context, client, local, sample)


def _check_plan_file(path: Path, made: dict[str, Any]) -> None:
    """Raise OperatorError when the plan in the file is not the plan of now."""
    try:
        planned = json.loads(path.read_text(encoding="utf-8"))
        stated = planned["plan_digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OperatorError(f"{path} is no plan of `turnout plan --out`: {error!r}") from error
    if stated == made["plan_digest"]:
        return
    # Say what differs, so that the reader need not compare two files. Costs are estimates.
    differing = [name for key, name in COMPARED.items() if planned.get(key) != made[key]]
    raise OperatorError(
        f"{path} is plan {str(stated)[:12]} and the plan of now is {made['plan_digest'][:12]}; "
        f"what differs: {', '.join(differing)}. Nothing was applied; make a new plan and look at it"
    )
