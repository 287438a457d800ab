"""`turnout init` writes a project; `turnout project` checks it, and shows what was applied."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnout.cli import clients
from turnout.cli.arguments import Reason
from turnout.cli.context import CommandContext
from turnout.views.terminal import named_values, terminal, text_table

if TYPE_CHECKING:
    from project.guess.columns import Guess
    from project.plan.differences import Change
    from project.plan.plan import Plan
    from registry.types import ProjectRevision
    from turnout.cli.environment_checks import EnvironmentCheck

app = typer.Typer(
    help="Check a project's files; show and restore what was applied.", no_args_is_help=True
)

env_app = typer.Typer(help="Try the environments of a project.", no_args_is_help=True)

WITHOUT_TABLE = "write view, labels and recipe as the examples in its folders show, turnout try"

Revision = Annotated[int, typer.Argument(min=1, help="Number of an applied revision.")]


def init(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the project, and of its folder.")],
    into: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="An existing folder, such as a repository's."
        ),
    ] = None,
    owner: Annotated[str, typer.Option(help="Who answers for it. Default: your name.")] = "",
    table: Annotated[
        Path | None,
        typer.Option(
            "--from",
            exists=True,
            dir_okay=False,
            help="A Parquet, CSV or JSON lines file: guess view, labels and recipe from it.",
        ),
    ] = None,
    entity: Annotated[str, typer.Option(help="Its column with the id.")] = "",
    time: Annotated[str, typer.Option(help="Its column with the instant of each row.")] = "",
    label: Annotated[str, typer.Option(help="Its column with the outcome.")] = "",
    positive: Annotated[str, typer.Option(help="The value of the label that is positive.")] = "",
) -> None:
    """Write a project: folders for views, labels, recipes, models and policies, with examples.

    Files that are there stay as they are. With --from, what is not given is guessed, and each
    guess stands in the files with its reason.
    """
    from project.new_project import write_new_project

    context: CommandContext = ctx.obj
    root, owner = into or Path(name), owner or context.actor
    # A table is looked at first, so that nothing is written when it cannot be used.
    guess: Guess | None = None
    extra: dict[str, str] = {}
    if table is not None:
        from project.guess.files import guessed_files  # it needs DuckDB

        guess = guess_table(table, entity=entity, time=time, label=label, positive=positive)
        extra = guessed_files(guess, table, root, owner)
    made = write_new_project(root, name, owner, into_existing=into is not None, extra=extra)
    screen = terminal(context.json)
    # Say what was written, and what was guessed.
    shown = {"project": str(made.root), "written": f"{len(made.written)} files"}
    if made.untouched:
        shown["left as they were"] = ", ".join(made.untouched)
    # Scripts get the same as people.
    value: dict[str, Any] = {
        "project": str(made.root),
        "written": made.written,
        "untouched": made.untouched,
    }
    if guess is not None:
        value["left_out"] = [asdict(item) for item in guess.left_out]
        shown |= guess_summary(guess)
    screen.result(value, named_values(shown))
    screen.hint(f"next: cd {made.root}, {WITHOUT_TABLE if guess is None else 'turnout try'}")


def guess_table(table: Path, *, entity: str, time: str, label: str, positive: str) -> "Guess":
    """Return what was guessed from the file; an empty text means that it is guessed."""
    from project.guess.columns import guess_columns
    from project.guess.table import open_table

    now_ms = time_ns() // 1_000_000
    with open_table(table) as opened:
        return guess_columns(
            opened, entity=entity, time=time, label=label, positive=positive, now_ms=now_ms
        )


def guess_summary(guess: "Guess") -> dict[str, str]:
    """Return what was guessed in a few lines, for a terminal."""
    leaks = [f"{item.column}: {item.reason}" for item in guess.left_out if item.leaks]
    others = [item.column for item in guess.left_out if not item.leaks]
    return {
        "entity": f"{guess.entity}: {guess.entity_reason}",
        "time": f"{guess.time}: {guess.time_reason}",
        "label": f"{guess.label}: {guess.label_reason}",
        "features": f"{len(guess.features)} of {guess.table}",
        **({"left out, they leak the label": "; ".join(leaks)} if leaks else {}),
        **({"left out": ", ".join(others)} if others else {}),
    }


@app.command()
def check(ctx: typer.Context) -> None:
    """Load every file of the project, and name what is wrong. No system is asked.

    Exit code 1 when something is wrong. In production mode its rules are checked too.
    """
    from project.definitions import SECTIONS
    from project.environment import production_problems
    from project.loading.loader import load_project

    context: CommandContext = ctx.obj
    project, environment = context.required_project(), context.environment
    loaded = asyncio.run(load_project(project))
    problems = [
        *loaded.problems,
        *([] if environment is None else production_problems(environment)),
    ]
    counts = {name: len(loaded.definitions.section(name)) for name in SECTIONS}
    value = {
        "project": project.name,
        "digest": loaded.definitions.digest,
        **counts,
        "problems": [asdict(problem) for problem in problems],
    }
    rows = [(problem.file, problem.line or "", problem.text) for problem in problems]
    screen = terminal(context.json)
    shown = [text_table(("file", "line", "problem"), rows)] if problems else []
    screen.result(value, named_values({"project": project.name, **counts}), *shown)
    if problems:
        raise typer.Exit(1)


@app.command()
def history(ctx: typer.Context) -> None:
    """List the applied revisions of the project, newest first."""
    from turnout.cli.projects import revision_json
    from turnout.views.plan_view import revisions_table

    context: CommandContext = ctx.obj

    async def read() -> "list[ProjectRevision]":
        async with clients.open_registry(context) as client:
            return await client.list_projects(context.required_project().name)

    revisions = asyncio.run(read())
    terminal(context.json).result(
        [revision_json(revision) for revision in revisions], revisions_table(revisions)
    )


@app.command()
def diff(
    ctx: typer.Context,
    old: Annotated[int, typer.Argument(min=0, help="Applied revision. 0: the newest.")] = 0,
    new: Annotated[
        int, typer.Argument(min=0, help="Applied revision to compare with. 0: the files.")
    ] = 0,
) -> None:
    """Show what differs between an applied revision and the files, or between two revisions."""
    from project.plan.differences import changes_between
    from turnout.cli.projects import load_definitions, revision_definitions
    from turnout.views.plan_view import changes_table

    context: CommandContext = ctx.obj

    async def compare() -> "tuple[Change, ...]":
        name = context.required_project().name
        async with clients.open_registry(context) as client:
            before = await revision_definitions(client, name, old)
            after = (
                await revision_definitions(client, name, new)
                if new
                else await load_definitions(context)
            )
        return changes_between(before, after)

    changes = asyncio.run(compare())
    shown = changes_table(changes) if changes else "Nothing differs."
    terminal(context.json).result([asdict(change) for change in changes], shown)


@app.command()
def rollback(
    ctx: typer.Context,
    revision: Revision,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Apply without asking.")] = False,
) -> None:
    """Apply the definitions of an older revision as a new one. The files stay as they are."""
    from turnout.cli.projects import plan_change, revision_definitions
    from turnout.commands.projects.plan import apply_after_question

    context: CommandContext = ctx.obj

    async def plan_rollback() -> "Plan":
        async with clients.open_registry(context) as client:
            name = context.required_project().name
            older = await revision_definitions(client, name, revision)
            return await plan_change(context, client, older)

    made = asyncio.run(plan_rollback())
    apply_after_question(context, made, reason or f"rollback to revision {revision}", ask=not yes)


@env_app.command("check")
def check_env(ctx: typer.Context) -> None:
    """Try every address, token, source and folder of the environment, and say what is wrong.

    It takes 10 s at most.

    Exit code 1 when something is wrong. --env names the environment.
    """
    from project.loading.loader import load_project
    from turnout.cli.environment_checks import check_environment

    context: CommandContext = ctx.obj

    async def check_all() -> "list[EnvironmentCheck]":
        loaded = await load_project(context.required_project())
        # Broken files are the task of `turnout project check`; the addresses are tried anyhow.
        definitions = None if loaded.problems else loaded.definitions
        return await check_environment(context, definitions)

    checks = asyncio.run(check_all())
    rows = [(item.part, "ok" if item.passed else "FAILED", item.text) for item in checks]
    terminal(context.json).result(
        [asdict(item) for item in checks], text_table(("part", "", "what was found"), rows)
    )
    if not all(item.passed for item in checks):
        raise typer.Exit(1)
