"""`turnout train`: a version from a recipe of the project."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protos import registry_pb2
from turnout.cli.arguments import check_new_folder
from turnout.cli.context import CommandContext
from turnout.errors import ExitCode, OperatorError, UsageError
from turnout.views.cards import joined_lines, metric_lines
from turnout.views.golden_evidence import evidence_lines, scorer_line
from turnout.views.proposals import next_step, proposal_json, proposal_lines
from turnout.views.runs import state_name
from turnout.views.terminal import named_values, terminal, text_table

if TYPE_CHECKING:
    from training.train import TrainedVersion
    from turnout.training_runs.order import TrainingOrder, TrainingResult
    from turnout.training_runs.rebuild import Rebuilt


Offline = Annotated[
    Path | None, typer.Option(help="Folder of the offline store. Default: the environment's.")
]
Out = Annotated[Path | None, typer.Option(help="New folder to write the sealed version to.")]
RunKey = Annotated[
    str,
    typer.Option(
        help="Name of this run, such as a scheduler's: the same name trains no second time."
    ),
]
Verify = Annotated[
    str,
    typer.Option(
        metavar="MODEL/VERSION",
        help="Build this version again, and compare it byte by byte; nothing is registered.",
    ),
]


def train(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of the model.", show_default=False)] = "",
    setting: Annotated[
        str, typer.Option(help="The recipe's setting, when the model has several recipes.")
    ] = "",
    champion: Annotated[
        str, typer.Option(help='Version to compare with: a label, "production" or "none".')
    ] = "production",
    offline: Offline = None,
    out: Out = None,
    register: Annotated[
        bool, typer.Option("--register/--no-register", help="Register the version.")
    ] = True,
    run_key: RunKey = "",
    cause: Annotated[
        str, typer.Option(help="Why it is trained, for `turnout runs`. Default: by hand.")
    ] = "",
    verify: Verify = "",
) -> None:
    """Train a version from the recipe of a model, and register it in your name.

    The champion is judged on the newest labels first. Nothing is registered unless the gate passes:
    exit code 4 says that the version is valid and no better than its champion. Another person
    approves the version then. The run is kept, also if it fails: `turnout runs list`.
    """
    # scikit-learn and ONNX take seconds to import.
    from project.environment import require_production_rules
    from turnout.training_runs.order import BY_HAND, TrainingOrder

    # Either a new version or one that is there.
    context: CommandContext = ctx.obj
    if bool(model) == bool(verify):
        raise UsageError("name the model to train, or the version to build again with --verify")
    if verify:
        _verify(context, verify, offline)
        return
    if not register and out is None:
        raise UsageError("--no-register needs --out FOLDER, or the version would be lost")
    check_new_folder("--out", out)
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
    if result.trained is not None:
        _report(context, result.trained, result, out)
    elif result.run is not None:
        _report_run(context, result.run, before=result.not_better is None)


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
    card = json.loads(trained.files["card.json"])
    joined = {view.view: view.definition() for view in trained.joined}
    shown: dict[str, object] = {
        "version": "not registered" if version is None else f"{model} {version.label}",
        "task": f"{trained.recipe.task}: {', '.join(trained.recipe.contract.outputs)}",
        "rows": f"{len(trained.rows):,}, of which {int(trained.held_out.sum()):,} are held out",
        **_left_out_lines(card["data"]),
        "scored": scorer_line(trained.native),
        # A version that nothing proves says so wherever it is shown.
        **(evidence_lines(card) if card["parity"].get("without_truth") else {}),
        **joined_lines(joined),
        **metric_lines(card, places=4),
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
    if run is not None:
        value |= proposal_json(run)
        shown |= proposal_lines(run)
    screen.result(value, named_values(shown))
    # What comes next is another person's task.
    if version is not None and run is not None:
        screen.hint(f"Next, by another person: {next_step(run)}")


def _left_out_lines(data: Mapping[str, Any]) -> dict[str, object]:
    """Return how many labels were left out and why, where some were."""
    counts = {
        "without an outcome": data.get("without_outcome", 0),
        "whose horizon is not over": data.get("immature_rows", 0),
    }
    texts = [f"{count:,} {why}" for why, count in counts.items() if count]
    return {"left out": ", ".join(texts)} if texts else {}


def _report_run(context: CommandContext, run: registry_pb2.Run, *, before: bool) -> None:
    """Print what came of a run that made no version just now.

    before  whether the run has the key and had ended before.

    Raises OperatorError when it failed or has not ended, and Exit when the champion was kept.
    """
    # A run that is under way, or failed.
    state, run_id = state_name(run), run.id[:8]
    kept = run.state == registry_pb2.Run.CHAMPION_KEPT
    if not run.ended_unix_ms:
        raise OperatorError(
            f"run {run_id} of this key is {state}; turnout runs logs {run_id} -f shows it. If its "
            "trainer was killed, the key may be taken again 120 s after its last sign of life"
        )
    if run.error and not kept:
        raise OperatorError(
            f"run {run_id} of this key has ended before ({state}): {run.error}. Give another "
            "--run-key to train again"
        )
    # A run that kept the champion, or made a version.
    screen = terminal(context.json)
    value = {**proposal_json(run), "ended_before": before}
    if kept:
        screen.result(value, "No better, champion kept.", named_values(proposal_lines(run)))
        screen.hint(f"Each number: turnout runs show {run_id}")
        raise typer.Exit(ExitCode.NO_BETTER)
    label = f"{run.model} {run.version}" if run.version else run.version_digest[:12]
    screen.result(value, f"Run {run_id} of this key has ended before, with {label}.")


def _verify(context: CommandContext, named: str, offline: Path | None) -> None:
    """Build a version again, and print whether it is identical. Exit code 1 if it is not."""
    from turnout.training_runs.rebuild import rebuild_version

    model, slash, version = named.partition("/")
    if not (slash and model and version):
        raise UsageError(f"--verify {named!r}: write MODEL/VERSION, such as churn/7")
    screen = terminal(context.json)
    found = asyncio.run(
        rebuild_version(context, model, version, offline, lambda step: screen.hint(f"{step} ..."))
    )
    screen.result(found.as_json(), *_rebuilt_text(found))
    if not found.identical:
        raise typer.Exit(ExitCode.FAILED)


def _rebuilt_text(found: "Rebuilt") -> list[Any]:
    """Return what people see of a version that was built again."""
    name = f"{found.model} {found.version}"
    if found.identical:
        return [f"Identical: {name} was built again as {found.digest}."]
    lines: list[Any] = [f"Different: {name} is not what its inputs give here."]
    if found.failed:
        lines.append(f"It cannot be built again: {found.failed}")
    # Inputs explain files, and files explain scores.
    if found.inputs:
        lines.append(text_table(("input", "recorded", "now"), found.inputs))
    elif not found.failed:
        lines.append(
            "No recorded input differs. Another processor may round a sum differently, and a "
            "learner may depend on what is not recorded."
        )
    files = [(name, "identical" if same else "different") for name, same in found.files.items()]
    if files:
        lines.append(text_table(("file", ""), files))
    if found.graph:
        rows = [(item.kind, item.name, item.difference) for item in found.graph]
        lines.append(text_table(("in model.onnx", "name", "recorded -> now"), rows))
    if found.score_difference is not None:
        lines.append(
            f"The largest difference of a golden row's score is {found.score_difference:.3g}."
        )
    if found.card:
        lines.append(text_table(("in card.json", "recorded", "now"), found.card))
    return lines
