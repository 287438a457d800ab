"""`turnout train`: a version from a recipe of the project."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnout.cli.arguments import Model
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError, UsageError
from turnout.views.cards import joined_lines, metric_lines
from turnout.views.golden_evidence import scorer_line
from turnout.views.runs import state_name
from turnout.views.terminal import named_values, terminal

if TYPE_CHECKING:
    from training.train import TrainedVersion
    from turnout.training_runs.order import TrainingOrder, TrainingResult


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
    run_key: Annotated[
        str,
        typer.Option(
            help="Name of this run, such as a scheduler's: the same name trains no second time."
        ),
    ] = "",
    cause: Annotated[
        str, typer.Option(help="Why it is trained, for `turnout runs`. Default: by hand.")
    ] = "",
) -> None:
    """Train a version from the recipe of a model, and register it in your name.

    Nothing is registered unless the gate passes. Another person approves the version then. The run
    is kept, also if it fails: `turnout runs list`.
    """
    # scikit-learn and ONNX take seconds to import.
    from project.environment import require_production_rules
    from turnout.training_runs.order import BY_HAND, TrainingOrder

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
        run_key=run_key,
        cause=cause or BY_HAND,
    )
    # A run with this key may have been there before.
    result = asyncio.run(_run(context, order))
    if result.trained is None:
        _report_earlier_run(context, result)
    else:
        _report(context, result.trained, result, out)


async def _run(context: CommandContext, order: "TrainingOrder") -> "TrainingResult":
    """Train, and name each step while it runs."""
    from turnout.cli.projects import load_definitions, usable_definitions
    from turnout.training_runs.order import NO_CHAMPION, train_and_register

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
    context: CommandContext, trained: "TrainedVersion", result: "TrainingResult", out: Path | None
) -> None:
    """Print the version, what its labels were joined with, and its metrics."""
    version, run = result.version, result.run
    # The card has what a metric's unit is.
    model, screen = trained.recipe.model, terminal(context.json)
    joined = {view.view: view.definition() for view in trained.joined}
    shown = {
        "version": "not registered" if version is None else f"{model} {version.label}",
        "task": f"{trained.recipe.task}: {', '.join(trained.recipe.contract.outputs)}",
        "rows": f"{len(trained.rows):,}, of which {int(trained.held_out.sum()):,} are held out",
        "scored": scorer_line(trained.native),
        **joined_lines(joined),
        **metric_lines(json.loads(trained.files["card.json"]), places=4),
    }
    value: dict[str, Any] = {
        "model": model,
        "task": trained.recipe.task,
        "outputs": list(trained.recipe.contract.outputs),
        "version": None if version is None else version.label,
        "digest": None if version is None else version.digest,
        "run": None if run is None else run.id,
        "joined": joined,
        "native": trained.native,
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


def _report_earlier_run(context: CommandContext, result: "TrainingResult") -> None:
    """Print the run that has the key. Raises OperatorError unless it made a version."""
    run = result.run
    assert run is not None, "without a run there is a trained version"
    state = state_name(run)
    if not run.ended_unix_ms:
        raise OperatorError(
            f"run {run.id[:8]} of this key is {state}; turnout runs logs {run.id[:8]} -f shows it"
        )
    if run.error:
        raise OperatorError(
            f"run {run.id[:8]} of this key has ended before ({state}): {run.error}. Give another "
            "--run-key to train again"
        )
    value = {
        "model": run.model,
        "version": run.version or None,
        "digest": run.version_digest,
        "run": run.id,
        "ended_before": True,
    }
    label = f"{run.model} {run.version}" if run.version else run.version_digest[:12]
    terminal(context.json).result(
        value, f"Run {run.id[:8]} of this key has ended before, with {label}."
    )
