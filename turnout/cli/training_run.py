"""One training run of a project: read labels, train, compare with a champion, register."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

from features.offline import OfflineStore
from host.git import commit_of
from project.definitions import ProjectDefinitions
from protos import registry_pb2
from registry import bundle
from registry.bundle import Bundle
from registry.client import RegistryClient
from training import champion
from training.label_reader import read_labels
from training.train import TrainedVersion, train_version
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError

PRODUCTION = "production"
NO_CHAMPION = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """What to train.

    champion  label of the version to compare with, PRODUCTION or NO_CHAMPION.
    out       a new folder for the sealed version; None: it is registered only.
    """

    model: str
    setting: str = ""
    champion: str = PRODUCTION
    offline: Path | None = None
    out: Path | None = None
    register: bool = True


async def train_and_register(
    context: CommandContext,
    definitions: ProjectDefinitions,
    order: TrainingOrder,
    progress: Callable[[str], None],
) -> tuple[TrainedVersion, registry_pb2.Version | None]:
    """Train a version from the project's recipe of a model.

    Return it, and what the registry made of it; None when it was only written to a folder. Raises
    LabelsError, SourceError, RecipeError, JoinError, ConversionError or GateFailedError, and
    RegistryError.
    """
    if not order.register and order.champion == NO_CHAMPION:
        trained = await asyncio.to_thread(_train, context, definitions, order, None, progress)
        _write(context, trained, order.out)
        return trained, None
    async with clients.open_registry(context) as client:
        best = await _champion(client, order)
        trained = await asyncio.to_thread(_train, context, definitions, order, best, progress)
        sealed = _write(context, trained, order.out)
        if not order.register:
            return trained, None
        progress("register")
        return trained, await client.register(order.model, sealed)


async def _champion(client: RegistryClient, order: TrainingOrder) -> Bundle | None:
    if order.champion == NO_CHAMPION:
        return None
    if order.champion == PRODUCTION:
        return await champion.fetch_production(client, order.model)
    return await champion.fetch_registered(client, order.model, order.champion)


def _train(
    context: CommandContext,
    definitions: ProjectDefinitions,
    order: TrainingOrder,
    best: Bundle | None,
    progress: Callable[[str], None],
) -> TrainedVersion:
    recipe = definitions.recipe(order.model, order.setting)
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
    return train_version(
        recipe,
        OfflineStore(order.offline or context.offline_folder()),
        rows,
        champion=best,
        commit=commit_of(environment.project.root),
        progress=progress,
    )


def _write(context: CommandContext, trained: TrainedVersion, out: Path | None) -> dict[str, bytes]:
    sealed = trained.sealed(author=context.actor, created_unix_ms=time_ns() // 1_000_000)
    if out is not None:
        bundle.write_version_folder(out, sealed)
    return sealed
