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
GatewayHost = Annotated[
    str,
    typer.Option(
        "--host",
        help="Address that the gateway's gRPC server listens at. localhost: both 127.0.0.1 and "
        "::1. 0.0.0.0 or ::: other machines may call too.",
    ),
]
GatewayPort = Annotated[
    int, typer.Option("--port", min=0, max=65_535, help="Port of the gateway. 0: any free port.")
]
MetricsHost = Annotated[
    str,
    typer.Option(help="Address of /metrics and /healthz. Beyond this machine: with --identities."),
]
MetricsPort = Annotated[
    int, typer.Option(min=0, max=65_535, help="Port of /metrics and /healthz. 0: any free port.")
]


def parse_input(text: str) -> tuple[str, str]:
    """Read NAME=VALUE. UsageError when there is no name or no equals sign."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"{text!r} is not NAME=VALUE")
    return name, value
