"""The `turnout` command: parses the line, runs the command, turns errors into exit codes."""

import os
import sys
from typing import Annotated

import typer

from turnout.cli.context import common_options_first, context_from_options
from turnout.cli.exit_codes import exit_message
from turnout.commands import audit, features, models, predict, rollout, splits, versions
from turnout.commands.drill import drill
from turnout.commands.restart import restart
from turnout.commands.up import up
from turnout.demo.command import demo
from turnout.views.terminal import terminal

app = typer.Typer(
    name="turnout",
    help="Train, approve, canary, watch and roll back tabular models. Start with: turnout demo",
    epilog="--folder, --registry, --gateway, --as, --token-file and --json may stand anywhere on "
    "the line. Exit codes: 0 ok, 1 the answer is no, 2 wrong usage, 3 system not reachable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(
    ctx: typer.Context,
    folder: Annotated[str, typer.Option(help="State folder [.turnout; TURNOUT_FOLDER].")] = "",
    registry: Annotated[str, typer.Option(help="host:port [TURNOUT_REGISTRY].")] = "",
    gateway: Annotated[str, typer.Option(help="host:port [TURNOUT_GATEWAY].")] = "",
    actor: Annotated[str, typer.Option("--as", help="Who asks [login; TURNOUT_ACTOR].")] = "",
    token_file: Annotated[
        str, typer.Option(help="Holds your token [TURNOUT_TOKEN_FILE, TURNOUT_TOKEN].")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
) -> None:
    """Read what every command may be told."""
    ctx.obj = context_from_options(
        folder, registry, gateway, actor, as_json, os.environ, token_file
    )


app.command()(up)
app.command()(demo)
app.command()(drill)
app.command()(restart)
app.command()(models.models)
app.add_typer(versions.app, name="versions")
app.add_typer(splits.app, name="splits")
app.add_typer(rollout.app, name="rollout")
app.add_typer(audit.app, name="audit")
app.command()(predict.predict)
app.command()(predict.outcome)
app.add_typer(features.app, name="features")


def main(arguments: list[str] | None = None) -> None:
    """Run one command; leaves by SystemExit with one of turnout.errors.Exit."""
    line = common_options_first(sys.argv[1:] if arguments is None else arguments)
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
