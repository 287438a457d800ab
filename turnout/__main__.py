"""The `turnout` command: reads the command line, runs the command, turns errors into exit codes.

Only the modules of the commands that the line names are imported. The help knows all others by
SUMMARIES. What takes long to import (gRPC, numpy, DuckDB, ONNX Runtime) is imported inside the
function that needs it, because a group is imported whole.
"""

import io
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer

from host.text import in_utf8
from turnout.cli.context import common_options_first, context_from_options

COMMANDS = {
    "up": "turnout.commands.up:up",
    "demo": "turnout.demo.command:demo",
    "models": "turnout.commands.models:app",
    "init": "turnout.commands.projects.project:init",
    "plan": "turnout.commands.projects.plan:plan",
    "apply": "turnout.commands.projects.plan:apply",
    "train": "turnout.commands.projects.train:train",
    "try": "turnout.commands.projects.first_hour:try_project",
    "adopt": "turnout.adoption.command:adopt",
    "project": "turnout.commands.projects.project:app",
    "env": "turnout.commands.projects.project:env_app",
    "versions": "turnout.commands.versions:app",
    "splits": "turnout.commands.splits:app",
    "rollout": "turnout.commands.rollout:app",
    "runs": "turnout.commands.projects.runs:app",
    "run": "turnout.commands.projects.retraining:run_app",
    "schedules": "turnout.commands.projects.retraining:schedules_app",
    "monitor": "turnout.monitoring.command:app",
    "labels": "turnout.commands.projects.labels:app",
    "incidents": "turnout.incidents.command:app",
    "predict": "turnout.calls.predict:predict",
    "outcome": "turnout.calls.outcome:outcome",
    "explain": "turnout.explaining.command:explain",
    "features": "turnout.commands.features:app",
    "audit": "turnout.commands.audit:app",
    "report": "turnout.report.command:print_report",
    "review": "turnout.review.command:app",
    "restart": "turnout.commands.restart:restart",
    "drill": "turnout.commands.drill:drill",
    "debug": "turnout.commands.debug:app",
}
"""Command -> its module and the function or group there, in the order of the help."""

SUBCOMMANDS = {
    "run": {
        "monitoring": "turnout.monitoring.command:run_monitoring",
        "journal-reader": "turnout.monitoring.command:run_journal_reader",
    },
    "monitor": {"policy": "turnout.policy_suggestion.command:policy_app"},
}
"""Group of COMMANDS -> those of its commands that are in another module."""

SUMMARIES = {
    "up": "Run store, control, gateway, pushed rows and the journal's reader here until Ctrl-C.",
    "demo": "Show everything on real data: features, training, approval, canary, promotion, "
    "rollback.",
    "models": "List the models, which versions answer calls now, and how old the rows are "
    "that they read; add models that run elsewhere.",
    "init": "Write a project: folders for views, labels, recipes, models and policies, with "
    "examples.",
    "plan": "Compare the project with what is applied: what changes, and what that touches.",
    "apply": "Apply the project: one revision, written only if nothing has changed since the plan.",
    "train": "Train a version from the recipe of a model, and register it in your name.",
    "try": "Plan, apply, ingest, train, approve, deploy and predict once, in a development system.",
    "adopt": "Make a version of a model that another tool trained, prove it, and register it.",
    "project": "Check a project's files; show and restore what was applied.",
    "env": "Try the environments of a project.",
    "versions": "Register, list, show, export, approve, reject and archive versions.",
    "splits": "Show and change which version answers which customers.",
    "rollout": "Roll out a version under a policy, which judges it by its evidence.",
    "runs": "List, show and compare training runs; queue and cancel them; print their logs.",
    "run": "Run a part of the system in this terminal.",
    "schedules": "List the schedules that are applied, and what came of them.",
    "monitor": "Watch models in service.",
    "labels": "Make labels from reported outcomes.",
    "incidents": "List, show and work on incidents: what monitoring or a person found wrong.",
    "predict": "Score one row, such as one customer, or the rows of a file, through the gateway.",
    "outcome": "Report the outcome of a prediction, or the outcomes of a file.",
    "explain": "Explain one score: contributions that add up to it, reasons in words, and a "
    "way out.",
    "features": "Feature views, and their rows in the online store.",
    "audit": "List and verify the hash-chained history of all changes; close reviews.",
    "report": "Print the five measures: time to production, monitored models, incidents, "
    "rollbacks, uplift.",
    "review": "The weekly review of models in service.",
    "restart": "Replace every gateway worker, one after another; no call fails.",
    "drill": "Roll out a deliberately bad version to 10 % of customers and time its rollback.",
    "debug": "Show what is inside a running system.",
}
"""Command -> its line in the help of all commands: the first paragraph of its own help.

So that help imports no command.
"""

RUN_OTHERS = {"adopt", "try"}
"""Commands that run other commands of the same program, which then has all commands."""

COMPLETING = "_TURNOUT_COMPLETE"
"""The variable by which a shell asks for completions (click)."""

StoreUrl = Annotated[
    str,
    typer.Option(
        help="URL of the online store, or file:PATH of a file with it. "
        "Default: $TURNOUT_STORE, or the system's."
    ),
]
ProjectPath = Annotated[
    str,
    typer.Option(
        "--project",
        help="Folder of the project. Default: $TURNOUT_PROJECT, or the one around this folder.",
    ),
]
EnvironmentName = Annotated[
    str, typer.Option(help="Environment of the project. Default: $TURNOUT_ENV, or dev.")
]


def common(
    ctx: typer.Context,
    folder: Annotated[
        str, typer.Option(help="The system's state folder. Default: $TURNOUT_FOLDER, or .turnout.")
    ] = "",
    registry: Annotated[
        str,
        typer.Option(
            help="host:port of the registry. Default: $TURNOUT_REGISTRY, or the running system's."
        ),
    ] = "",
    gateway: Annotated[
        str,
        typer.Option(
            help="host:port of the gateway. Default: $TURNOUT_GATEWAY, or the running system's."
        ),
    ] = "",
    actor: Annotated[
        str,
        typer.Option(
            "--as", help="Your name in the history. Default: $TURNOUT_ACTOR, or your login name."
        ),
    ] = "",
    token_file: Annotated[
        str,
        typer.Option(
            help="File with your token. Default: $TURNOUT_TOKEN_FILE, or the token $TURNOUT_TOKEN."
        ),
    ] = "",
    registry_certificate: Annotated[
        str,
        typer.Option(
            help="File of the registry's certificate, a copy of keys/control.crt in its folder. "
            "Default: $TURNOUT_REGISTRY_CERTIFICATE, or the running system's."
        ),
    ] = "",
    store: StoreUrl = "",
    project_folder: ProjectPath = "",
    env: EnvironmentName = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON value to stdout.")
    ] = False,
) -> None:
    """Read the options that every command takes."""
    # Commands read it as `ctx.obj`.
    #
    # What is empty here is filled in from the environment there, and the addresses of the running
    # system are read when a command needs them.
    ctx.obj = context_from_options(
        *(folder, registry, gateway, actor, as_json, os.environ, token_file, registry_certificate),
        store=store,
        project=project_folder,
        env=env,
    )


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the program, and import the modules of the COMMANDS in *names*.

    The help has the others as well, but they cannot be run.
    """
    app = typer.Typer(
        name="turnout",
        help="Run, release and watch models for tabular data. Start with: turnout demo",
        epilog="--folder, --registry, --registry-certificate, --gateway, --store, --project, "
        "--env, --as, --token-file and --json may stand anywhere on the command line. Exit codes: "
        "0 success, 1 the command failed or its answer is no, 2 wrong usage, 3 the system cannot "
        "be reached, 4 a training was not better than its champion.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(common)
    asked_for = set(names)
    for name in COMMANDS:
        if name in asked_for:
            _add(app, name, _load(name))
        else:
            app.command(name, help=SUMMARIES[name])(_not_loaded)
    return app


def commands_of(line: Sequence[str]) -> set[str]:
    """Return which of COMMANDS a command line needs."""
    # A word of the line that names a command may be only the value of an option; then an import too
    # many does no harm. A line without such a word asks for the help or is wrong.
    named = COMMANDS.keys() & line
    return set(COMMANDS) if named & RUN_OTHERS else named


def _not_loaded() -> None:
    """Stand for a command that the line does not name."""
    raise AssertionError("the line names no such command")


@cache
def _load(name: str) -> Any:  # noqa: ANN401  a function or a group
    """Return a command of COMMANDS, with its subcommands."""
    command = _import(COMMANDS[name])
    for child, path in SUBCOMMANDS.get(name, {}).items():
        _add(command, child, _import(path))
    return command


def _import(path: str) -> Any:  # noqa: ANN401  a function or a group
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def _add(group: typer.Typer, name: str, command: Any) -> None:  # noqa: ANN401  a function or a group
    if isinstance(command, typer.Typer):
        group.add_typer(command, name=name)
    else:
        group.command(name)(command)


def main(arguments: list[str] | None = None) -> None:
    """Run one command line, by default this process's own.

    Always ends with SystemExit, with a code of turnout.errors.ExitCode.
    """
    # A text of somebody else may have letters that the locale of this process lacks.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    typed = sys.argv[1:] if arguments is None else arguments
    line = common_options_first([in_utf8(argument) for argument in typed])
    # A shell that completes a line has its words in the environment.
    program = make_app(COMMANDS if COMPLETING in os.environ else commands_of(line))
    try:
        program(args=line, prog_name="turnout")
    except Exception as error:
        from turnout.cli.exit_codes import exit_message  # it imports protobuf

        known = exit_message(error)
        if known is None:
            raise
        from turnout.views.terminal import terminal  # it imports rich

        terminal("--json" in line).error(known.text)
        raise SystemExit(known.exit_code) from error


if __name__ == "__main__":
    main()
