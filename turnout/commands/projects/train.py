"""`turnout train`: a version from a recipe of the project."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnout.cli.arguments import Model
from turnout.cli.context import CommandContext
from turnout.errors import UsageError
from turnout.views.cards import joined_lines
from turnout.views.terminal import named_values, terminal

if TYPE_CHECKING:
    from protos import registry_pb2
    from training.train import TrainedVersion
    from turnout.cli.training_run import TrainingOrder


def train(
    ctx: typer.Context,
    model: Model,
    setting: Annotated[
        str, typer.Option(help="The recipe's setting, when the model has several recipes.")
    ] = "",
    champion: Annotated[
        str, typer.Option(help='Version to compare with: a label, "production" or "none".')
    ] = "production",
    offline: Annotated[
        Path | None,
        typer.Option(help="Folder of the offline store. Default: the environment's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder to write the sealed version to.")
    ] = None,
    register: Annotated[
        bool, typer.Option("--register/--no-register", help="Register the version.")
    ] = True,
) -> None:
    """Train a version from the recipe of a model, and register it in your name.

    Nothing is registered unless the gate passes. Another person approves the version then.
    """
    # scikit-learn and ONNX take seconds to import.
    from project.environment import require_production_rules
    from turnout.cli.training_run import TrainingOrder

    context: CommandContext = ctx.obj
    if not register and out is None:
        raise UsageError("--no-register needs --out FOLDER, or the version would be lost")
    # What is trained in production must be traceable to a commit.
    require_production_rules(context.required_environment())
    order = TrainingOrder(
        model=model,
        setting=setting,
        champion=champion,
        offline=offline,
        out=out,
        register=register,
    )
    trained, version = asyncio.run(_run(context, order))
    _report(context, trained, version, out)


async def _run(
    context: CommandContext, order: "TrainingOrder"
) -> "tuple[TrainedVersion, registry_pb2.Version | None]":
    """Train, and name each step while it runs."""
    from turnout.cli.projects import load_definitions, usable_definitions
    from turnout.cli.training_run import NO_CHAMPION, train_and_register

    # Without a registry there is nothing applied, and nothing to compare with.
    needs_registry = order.register or order.champion != NO_CHAMPION
    definitions = await (
        usable_definitions(context) if needs_registry else load_definitions(context)
    )
    screen = terminal(context.json)
    return await train_and_register(
        context, definitions, order, lambda step: screen.hint(f"{step} ...")
    )


def _report(
    context: CommandContext,
    trained: "TrainedVersion",
    version: "registry_pb2.Version | None",
    out: Path | None,
) -> None:
    """Print the version, what its labels were joined with, and its metrics."""
    # Scripts get every metric, people those that have a value.
    model, screen = trained.recipe.model, terminal(context.json)
    joined = {view.view: view.definition() for view in trained.joined}
    shown = {
        "version": "not registered" if version is None else f"{model} {version.label}",
        "rows": f"{len(trained.rows):,}, of which {int(trained.held_out.sum()):,} are held out",
        **joined_lines(joined),
        **{
            name: f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
            for name, estimate in trained.metrics.items()
            if estimate.value is not None
        },
    }
    value: dict[str, Any] = {
        "model": model,
        "version": None if version is None else version.label,
        "digest": None if version is None else version.digest,
        "joined": joined,
        "metrics": {name: item.definition() for name, item in trained.metrics.items()},
        "out": None if out is None else str(out),
    }
    screen.result(value, named_values(shown))
    # What comes next is another person's task.
    if version is not None:
        screen.hint(
            f"Next, by another person: turnout versions approve {model} {version.label} "
            "--policy standard (or initial for a model's first version)"
        )
