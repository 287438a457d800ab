"""Arguments and options that several commands take."""

from typing import Annotated

import typer

from turnout.errors import UsageError

Model = Annotated[str, typer.Argument(help="The model's name.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; written into the history.")]
PolicyName = Annotated[
    str,
    typer.Option(
        help="Name of the rollout policy; `turnout rollout policies` lists them. Default: the "
        "model's default policy in its project, or else standard."
    ),
]

MonitoringAddress = Annotated[
    str,
    typer.Option(
        "--monitoring",
        help="host:port of monitoring, where it runs alone. Default: the registry's.",
    ),
]


def parse_input(text: str) -> tuple[str, str]:
    """Read NAME=VALUE. UsageError when there is no name or no equals sign."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"{text!r} is not NAME=VALUE")
    return name, value
