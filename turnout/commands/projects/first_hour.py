"""`turnout try`: from a project's files to a first prediction, with the commands that do it."""

import asyncio
import io
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.processes.port_checks import accepts_connections
from turnout.processes.system_file import read_system_file
from turnout.views.cards import INITIAL
from turnout.views.scores import score_text
from turnout.views.terminal import terminal

if TYPE_CHECKING:
    from project.definitions import ProjectDefinitions
    from project.environment import Environment
    from training.recipe import Recipe

START_S_MAX = 60.0
POLL_S = 0.1
REASON = "first try"

Runner = Callable[..., Any]
"""Runs one command line with --json as an actor, and returns its JSON value."""


@dataclass(frozen=True, slots=True)
class FirstPrediction:
    """What a try made."""

    recipe: "Recipe"
    version: str
    keys: tuple[str, ...]
    inputs: Mapping[str, float | str]
    """Request inputs that were sent, by name."""
    prediction: Mapping[str, Any]
    seconds: float


def try_project(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Option(help="Model to train. Default: that of the only recipe.")
    ] = "",
    setting: Annotated[
        str, typer.Option(help="The recipe's setting, when the model has several recipes.")
    ] = "",
    approver: Annotated[
        str, typer.Option(help="Name that approves: another person than you.")
    ] = "approver",
) -> None:
    """Plan, apply, ingest, train, approve, deploy and predict once, in a development system.

    If no system runs in the environment's folder, one is started, and it goes on running.
    """
    from turnout.cli.projects import load_definitions

    context: CommandContext = ctx.obj
    environment = context.required_environment()
    if environment.is_production:
        raise OperatorError(
            f"environment {environment.name!r} is in production mode, where one person cannot "
            "train, approve and deploy; try it with --env dev"
        )
    # The files must be right before anything is started.
    began = time.monotonic()
    definitions = asyncio.run(load_definitions(context))
    recipe = definitions.recipe(model or _only_model(definitions), setting)
    # Everything else is a command of its own, against a system that answers.
    started = _start_system(context)
    # It is said at once too, because a later step may fail while the system goes on running.
    if started:
        terminal(context.json).hint(f"started a system; stop it with: kill {started}")
    runner = _runner(ctx, context)
    made = _make_prediction(context, environment, recipe, runner, approver, began)
    _report(context, made, started)


def _only_model(definitions: "ProjectDefinitions") -> str:
    models = sorted({recipe["model"] for recipe in definitions.recipes.values()})
    if not models:
        raise OperatorError(
            "the project has no recipe; write view, labels and recipe as the examples in its "
            "folders show, or let `turnout init NAME --from TABLE` guess them from a table"
        )
    if len(models) > 1:
        raise OperatorError(
            f"the project has recipes of {len(models)} models ({', '.join(models)}); name one with "
            "--model"
        )
    return str(models[0])


def _start_system(context: CommandContext) -> int:
    """Start `turnout up` if no system is known; return its pid, or 0 if one runs already."""
    folder = context.running_folder()
    if _has_remote_system(context) or read_system_file(folder) is not None:
        return 0
    # It outlives this command, because the client code below needs it.
    log = folder / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        command = [sys.executable, "-P", "-m", "turnout", "up", "--folder", str(folder)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "TURNOUT_STORE": ""},
        )
    # Its file appears before every part answers.
    give_up = time.monotonic() + START_S_MAX
    while not asyncio.run(_answers(folder)):
        if process.poll() is not None or time.monotonic() > give_up:
            raise OperatorError(f"the system did not start within {START_S_MAX:g} s; see {log}")
        time.sleep(POLL_S)
    return process.pid


def _has_remote_system(context: CommandContext) -> bool:
    """Whether options or environment name a registry, so that no system of a folder is meant."""
    environment = context.environment
    return bool(context.registry or (environment is not None and environment.registry))


async def _answers(folder: Path) -> bool:
    running = read_system_file(folder)
    return (
        running is not None
        and await accepts_connections(running.registry)
        and await accepts_connections(running.gateway)
    )


def _runner(ctx: typer.Context, context: CommandContext) -> Runner:
    """Return a function that runs a command as a user would type it."""
    root = ctx.find_root().command
    environment = context.required_environment()
    common = ["--json", "--folder", str(context.folder), "--env", environment.name]
    common += ["--project", str(environment.project.root)]
    screen = terminal(context.json)

    def run(*line: str, actor: str = "") -> Any:  # noqa: ANN401  any JSON value
        shown = [*line, *(["--as", actor] if actor else [])]
        screen.hint(f"$ turnout {shlex.join(shown)}")
        with redirect_stdout(io.StringIO()) as output:
            arguments = [*common, "--as", actor or context.actor, *line]
            code = root.main(args=arguments, prog_name="turnout", standalone_mode=False)
        if code not in (None, 0):
            raise OperatorError(f"turnout {shlex.join(line)} ended with exit code {code}")
        return json.loads(output.getvalue() or "null")

    return run


def _make_prediction(
    context: CommandContext,
    environment: "Environment",
    recipe: "Recipe",
    run: Runner,
    approver: str,
    began: float,
) -> FirstPrediction:
    """Run each command from apply to predict."""
    views = dict.fromkeys(use.view.name for use in (*recipe.features, *recipe.audit))
    # The definitions, and the rows of every view that the recipe reads.
    run("apply", "--yes", "--reason", REASON)
    for view in views:
        run("features", "ingest", view)
    # A version, which another person approves. One of the same data beats no champion.
    trained = run("train", recipe.model, "--setting", recipe.setting, "--champion", "none")
    version = str(trained["version"])
    production = asyncio.run(_production(context, recipe.model))
    policy = ["--policy", "standard", "--direct"] if production else ["--policy", INITIAL]
    run(
        *("versions", "approve", recipe.model, version, *policy, "--yes", "--reason", REASON),
        actor=approver,
    )
    # Every worker loads it before it gets the calls.
    run("splits", "preload", recipe.model, version, "--reason", REASON)
    run("splits", "set", recipe.model, "--production", version, "--reason", REASON)
    for view in views:
        run("features", "materialise", view)
    keys, inputs = _some_row(environment, recipe)
    named = [f"--input={name}={value}" for name, value in inputs.items()]
    prediction = run("predict", recipe.model, *keys, *named)
    seconds = time.monotonic() - began
    return FirstPrediction(recipe, version, keys, inputs, prediction, seconds)


async def _production(context: CommandContext, model: str) -> str:
    async with clients.open_registry(context) as client:
        return (await client.deployment(model)).production


def _some_row(
    environment: "Environment", recipe: "Recipe"
) -> tuple[tuple[str, ...], dict[str, float | str]]:
    """Return the ids of one labelled row, in the order of the model's entities, and its inputs."""
    from training.label_reader import read_labels

    assert recipe.labels is not None
    connections = environment.connections() if recipe.labels.source.kind == "table" else {}
    root: Path = environment.project.root
    rows = read_labels(recipe.labels, root=root, connections=connections)
    # The first row in which most inputs are known; a caller leaves out what is missing.
    inputs = {item.name: rows.inputs[item.name].tolist() for item in recipe.inputs}
    known = [sum(_is_known(values[at]) for values in inputs.values()) for at in range(len(rows))]
    chosen = known.index(max(known))
    keys = tuple(rows.ids[entity][chosen] for entity in recipe.contract.entities)
    values = {name: column[chosen] for name, column in inputs.items()}
    return keys, {name: value for name, value in values.items() if _is_known(value)}


def _is_known(value: float | str | None) -> bool:
    """Whether a label has this input: NULL and NaN are missing."""
    return value is not None and value == value


def _report(context: CommandContext, made: FirstPrediction, started: int) -> None:
    """Print the prediction and the code that asks for it again."""
    address = context.gateway_address()
    code = client_code(address, made.recipe, made.keys, made.inputs)
    local = None if _has_remote_system(context) else read_system_file(context.running_folder())
    value = {
        "model": made.recipe.model,
        "version": made.version,
        "keys": list(made.keys),
        "inputs": dict(made.inputs),
        "prediction": made.prediction,
        "seconds": round(made.seconds, 1),
        "client_code": code,
        "started_pid": started or None,
        "system_pid": local.pid if local else None,
    }
    scores = score_text(made.prediction["scores"][0], made.recipe.contract.outputs)
    unit = f" {made.recipe.unit}" if made.recipe.unit else ""
    screen = terminal(context.json)
    screen.result(
        value,
        f"{made.recipe.model} {made.version} scores {', '.join(made.keys)}: {scores}{unit} "
        f"({made.seconds:.0f} s from the files to here)\n",
        code,
    )
    # A second try says it too: the first one may be hours ago.
    if local:
        screen.hint(f"The system goes on running; stop it with: kill {local.pid}")


def client_code(
    address: str, recipe: "Recipe", keys: Sequence[str], inputs: Mapping[str, float | str]
) -> str:
    """Return a few lines of Python that ask for the same prediction, and use it by the task."""
    row = repr(keys[0]) if len(keys) == 1 else repr([list(keys)])
    named = f", named={dict(inputs)!r}" if inputs else ""
    call = f'prediction = client.predict("{recipe.model}", keys={row}{named})'
    lines = [call, "print(prediction.scores[0][0], prediction.version)"]
    if recipe.task == "multiclass":
        lines = [
            call,
            f"scores = dict(zip({list(recipe.contract.outputs)!r}, prediction.scores[0]))",
            "print(max(scores, key=scores.get), scores, prediction.version)",
        ]
    elif recipe.task == "ranking":
        # A caller sends the offers of one call as its rows.
        offers = repr([list(keys)] if len(keys) > 1 else [keys[0]])
        rows = f"named=[{dict(inputs)!r}] * len(offers)" if inputs else ""
        lines = [
            f"offers = {offers}  # one row for each offer of the call",
            f'prediction = client.predict("{recipe.model}", keys=offers{rows and ", " + rows})',
            "best = max(range(len(offers)), key=lambda row: prediction.scores[row][0])",
            "print(offers[best], prediction.scores[best][0], prediction.version)",
        ]
    body = "".join(f"    {line}\n" for line in lines)
    return (
        "from turnout_client import SyncPredictClient\n\n"
        f'with SyncPredictClient("{address}") as client:\n{body}'
    )
