"""Arguments and options that several commands take."""

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="The model's name.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; written into the history.")]
PolicyName = Annotated[
    str,
    typer.Option(
        help="Name of the rollout policy; `turnout rollout policies` lists them. Default: the "
        "model's default policy in its project, or else standard."
    ),
]
