"""The `turnout` command: reads the command line, runs the command, turns errors into exit codes.

This module imports every command, so what takes long to import (gRPC, numpy, DuckDB, ONNX Runtime)
is imported inside the command that needs it.
"""

import io
import os
import sys
from typing import Annotated

import typer

from host.text import in_utf8
from turnout.adoption.command import adopt
from turnout.cli.context import common_options_first, context_from_options
from turnout.cli.exit_codes import exit_message
from turnout.commands import (
    audit,
    debug,
    features,
    models,
    predict,
    rollout,
    splits,
    versions,
)
from turnout.commands.drill import drill
from turnout.commands.projects import labels, plan, project, retraining, runs
from turnout.commands.projects.first_hour import try_project
from turnout.commands.projects.train import train
from turnout.commands.restart import restart
from turnout.commands.up import up
from turnout.demo.command import demo
from turnout.explaining.command import explain
from turnout.incidents import command as incidents
from turnout.monitoring import command as monitor
from turnout.policy_suggestion.command import policy_app
from turnout.report.command import print_report
from turnout.review import command as review
from turnout.views.terminal import terminal

app = typer.Typer(
    name="turnout",
    help="Run, release and watch models for tabular data. Start with: turnout demo",
    epilog="--folder, --registry, --registry-certificate, --gateway, --store, --project, --env, "
    "--as, --token-file and --json may stand anywhere on the command line. Exit codes: 0 success, "
    "1 the command failed or its answer is no, 2 wrong usage, 3 the system cannot be reached, "
    "4 a training was not better than its champion.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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


@app.callback()
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


app.command("up")(up)
app.command("demo")(demo)
app.add_typer(models.app, name="models")
app.command("init")(project.init)
app.command("plan")(plan.plan)
app.command("apply")(plan.apply)
app.command("train")(train)
app.command("try")(try_project)
app.command("adopt")(adopt)
app.add_typer(project.app, name="project")
app.add_typer(project.env_app, name="env")
app.add_typer(versions.app, name="versions")
app.add_typer(splits.app, name="splits")
app.add_typer(rollout.app, name="rollout")
app.add_typer(runs.app, name="runs")
app.add_typer(retraining.run_app, name="run")
retraining.run_app.command("monitoring")(monitor.run_monitoring)
retraining.run_app.command("journal-reader")(monitor.run_journal_reader)
app.add_typer(retraining.schedules_app, name="schedules")
app.add_typer(monitor.app, name="monitor")
monitor.app.add_typer(policy_app, name="policy")
app.add_typer(labels.app, name="labels")
app.add_typer(incidents.app, name="incidents")
app.command("predict")(predict.predict)
app.command("outcome")(predict.outcome)
app.command("explain")(explain)
app.add_typer(features.app, name="features")
app.add_typer(audit.app, name="audit")
app.command("report")(print_report)
app.add_typer(review.app, name="review")
app.command("restart")(restart)
app.command("drill")(drill)
app.add_typer(debug.app, name="debug")


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
    try:
        app(args=line, prog_name="turnout")
    except Exception as error:
        known = exit_message(error)
        if known is None:
            raise
        terminal("--json" in line).error(known.text)
        raise SystemExit(known.exit_code) from error


if __name__ == "__main__":
    main()
