"""One training run of a project: read labels, train, compare with a champion, register."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

from features.canonical import canonical_json, sha256_hex
from features.offline import OfflineStore
from host.git import commit_of
from project.definitions import ProjectDefinitions
from protos import registry_pb2
from registry import bundle
from registry.bundle import Bundle
from registry.client import RegistryClient
from training import champion
from training.errors import GateFailedError
from training.label_reader import read_labels
from training.recipe import Recipe
from training.retrain.champion_now import ChampionNow, judge_champion
from training.retrain.step_cache import NO_STEPS, StepCache
from training.train import TrainedVersion, train_version
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.training_runs.run_record import RunRecord, recorded_run

PRODUCTION = "production"
NO_CHAMPION = "none"
BY_HAND = "by hand"
STEPS_FOLDER = "steps"
"""Folder in the state folder with the finished steps of interrupted runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """What to train.

    champion  label of the version to compare with, PRODUCTION or NO_CHAMPION.
    out       a new folder for the sealed version; None: it is registered only.
    run_key   the same key trains no second time; empty: the run has none.
    cause     why it is trained, for the list of runs.
    """

    model: str
    setting: str = ""
    champion: str = PRODUCTION
    offline: Path | None = None
    out: Path | None = None
    register: bool = True
    run_key: str = ""
    cause: str = BY_HAND


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What came of an order.

    run      as the registry keeps it; None when no registry was needed.
    trained  None when a run with the order's key was there before, or the champion was kept.
    version  the registered version, or None.
    not_better  why the champion stays, if the version passes every other check.
    """

    run: registry_pb2.Run | None
    trained: TrainedVersion | None = None
    version: registry_pb2.Version | None = None
    not_better: GateFailedError | None = None


async def train_and_register(
    context: CommandContext,
    definitions: ProjectDefinitions,
    order: TrainingOrder,
    progress: Callable[[str], None],
) -> TrainingResult:
    """Train a version from the project's recipe of a model, and register it.

    The champion is judged on the newest labels first. The run is kept in the registry, also when it
    fails. Without a registry, for a version that is written to a folder and compared with no
    champion, nothing is kept of it.

    Raises LabelsError, SourceError, RecipeError, JoinError, ConversionError or GateFailedError, and
    RegistryError.
    """
    # Without a registry nothing is kept.
    recipe = definitions.recipe(order.model, order.setting)
    if not order.register and order.champion == NO_CHAMPION:
        trained = await asyncio.to_thread(_train, context, recipe, order, None, progress)
        _write(context, trained, order.out, time_ns() // 1_000_000)
        return TrainingResult(None, trained)
    async with clients.open_registry(context) as client:
        # The run is begun before its first step, so that it is kept if it is killed.
        best = await _champion(client, order)
        reply = await client.begin_run(
            recipe.model,
            recipe.setting,
            key=order.run_key,
            cause=order.cause,
            inputs=_inputs(context, recipe, best),
        )
        if not reply.begun:
            return TrainingResult(await client.get_run(reply.run.id))
        return await _run(context, client, recipe, order, best, progress, reply.run)


async def _run(
    context: CommandContext,
    client: RegistryClient,
    recipe: Recipe,
    order: TrainingOrder,
    best: Bundle | None,
    progress: Callable[[str], None],
    run: registry_pb2.Run,
) -> TrainingResult:
    """Train and register, and keep every step of it in the registry."""
    version, steps = None, StepCache(context.folder / STEPS_FOLDER)
    try:
        async with recorded_run(client, run) as record:

            def note(step: str) -> None:
                record.step(step)
                progress(step)

            trained = await asyncio.to_thread(
                _train, context, recipe, order, best, note, steps, record
            )
            # The next attempt of a run seals the same bytes, so it registers no second version.
            sealed = _write(context, trained, order.out, run.begun_unix_ms)
            if order.register:
                note("register")
                version = await client.register(order.model, sealed)
                record.registered(trained, version)
            else:
                record.written(trained, sha256_hex(sealed["manifest.json"]))
    except GateFailedError as error:
        # The run has its end, so nothing will ask for its steps again.
        steps.forget_used()
        if not error.only_better:
            raise
        return TrainingResult(record.run, not_better=error)
    steps.forget_used()
    return TrainingResult(record.run, trained, version)


def _inputs(context: CommandContext, recipe: Recipe, best: Bundle | None) -> bytes:
    """Return what the run is made from, as canonical JSON."""
    environment = context.required_environment()
    definition = recipe.definition()
    return canonical_json(
        {
            "recipe": definition,
            "recipe_sha256": sha256_hex(canonical_json(definition)),
            "project": environment.project.name,
            "environment": environment.name,
            "commit": commit_of(environment.project.root),
            "champion": "" if best is None else best.digest,
        }
    )


async def _champion(client: RegistryClient, order: TrainingOrder) -> Bundle | None:
    if order.champion == NO_CHAMPION:
        return None
    if order.champion == PRODUCTION:
        return await champion.fetch_production(client, order.model)
    return await champion.fetch_registered(client, order.model, order.champion)


def _train(
    context: CommandContext,
    recipe: Recipe,
    order: TrainingOrder,
    best: Bundle | None,
    progress: Callable[[str], None],
    steps: StepCache = NO_STEPS,
    record: RunRecord | None = None,
) -> TrainedVersion:
    """Read the labels, judge the champion on the newest of them, and train."""
    if recipe.labels is None:
        raise OperatorError(
            f"recipe {recipe.model}/{recipe.setting} names no labels; give it labels=... of a file "
            "below labels/"
        )
    environment = context.required_environment()
    # A source in a database needs its address, which may be a secret.
    connections = environment.connections() if recipe.labels.source.kind == "table" else {}
    progress("labels")
    rows = read_labels(recipe.labels, root=environment.project.root, connections=connections)
    store = OfflineStore(order.offline or context.offline_folder())
    # The run has what the champion is worth now, whatever becomes of the version.
    champion_now: ChampionNow | None = None
    if best is not None:
        progress("judge the champion")
        champion_now = judge_champion(recipe, store, rows, best)
        if record is not None:
            record.judged(champion_now)
    return train_version(
        recipe,
        store,
        rows,
        champion=best,
        champion_now=champion_now,
        commit=commit_of(environment.project.root),
        steps=steps,
        progress=progress,
    )


def _write(
    context: CommandContext, trained: TrainedVersion, out: Path | None, created_unix_ms: int
) -> dict[str, bytes]:
    """Return the sealed version, written to *out* if that is given."""
    sealed = trained.sealed(author=context.actor, created_unix_ms=created_unix_ms)
    if out is not None:
        bundle.write_version_folder(out, sealed)
    return sealed
