"""Builds a registered version again from what its card says, and compares both byte by byte."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from features.canonical import canonical_json
from features.errors import SourceError
from features.offline import OfflineStore
from host.git import commit_of
from host.sandbox.run import Isolation
from protos import registry_pb2
from registry import bundle
from registry.bundle import Bundle
from registry.client import RegistryClient
from registry.scoring import score_differences
from training import champion
from training.artifacts.card import package_versions
from training.errors import (
    ConversionError,
    GateFailedError,
    JoinError,
    LabelsError,
    RecipeError,
)
from training.label_reader import read_labels
from training.labelled_rows import LabelledRows
from training.recipe import Recipe
from training.retrain.build_record import (
    SECTION,
    BuildRecord,
    build_facts,
    read_build,
)
from training.retrain.champion_now import judge_champion
from training.retrain.sandboxed_scores import GraphDifference, score_side_by_side
from training.train import TrainedVersion, train_version
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.cli.projects import usable_definitions
from turnout.errors import OperatorError
from turnout.views.runs import differences

Difference = tuple[str, str, str]
"""What differs, as recorded, as it is now."""
NOT_BUILT = (ConversionError, GateFailedError, JoinError, LabelsError, RecipeError, SourceError)
"""Errors by which a version is not built again."""


@dataclass(slots=True, kw_only=True)
class Rebuilt:
    """A version that was built again.

    identical  whether all files are, and the version's id with them.
    inputs     inputs that are not what the card recorded.
    files      name -> whether the file is identical; empty when nothing could be built.
    graph      parts of model.onnx that differ.
    score_difference  largest difference of a golden row's score; None where graphs are identical.
    card       values of card.json that differ.
    failed     why it cannot be built again; empty when it was.
    """

    model: str
    version: str
    digest: str
    identical: bool = False
    inputs: list[Difference] = field(default_factory=list)
    files: dict[str, bool] = field(default_factory=dict)
    graph: tuple[GraphDifference, ...] = ()
    score_difference: float | None = None
    card: list[Difference] = field(default_factory=list)
    failed: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""

        def named(found: list[Difference]) -> list[dict[str, str]]:
            return [{"field": name, "recorded": old, "now": new} for name, old, new in found]

        return {**asdict(self), "inputs": named(self.inputs), "card": named(self.card)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What a version is built again from.

    record  None for a card that does not say it; then the recipe is the project's.
    """

    bundle: Bundle
    version: registry_pb2.Version
    recipe: Recipe
    record: BuildRecord | None
    champion: Bundle | None
    commit: str


async def rebuild_version(
    context: CommandContext,
    model: str,
    label: str,
    offline: Path | None,
    progress: Callable[[str], None],
    *,
    isolation: Isolation | None = None,
) -> Rebuilt:
    """Build a version again from its recorded recipe, data and champion, and compare the files.

    Nothing is registered, and no kept step is used.

    offline    folder of the offline store; None: the environment's.
    isolation  of the child that opens both graphs; None chooses one.

    Raises OperatorError when its card does not say enough, CertifyError when the graphs differ and
    cannot be compared, and RegistryError.
    """
    # What it is, and what it was built from.
    environment = context.required_environment()
    commit = commit_of(environment.project.root)
    async with clients.open_registry(context) as client:
        version = await client.get_version(model, label)
        files = await client.fetch(model, label)
        found = bundle.verify_bundle(files, trusted_key=None, expected_digest=version.digest)
        order = await _order(context, client, version, found, commit)
    store = OfflineStore(offline or context.offline_folder(), until=_until(order.record))
    result = Rebuilt(model=model, version=version.label, digest=version.digest)
    # Build it again. What cannot be built is explained by its inputs.
    try:
        progress("labels")
        labels = _labels(context, order)
        result.inputs = _changed_inputs(order, store, labels, commit)
        trained = await asyncio.to_thread(_train, order, store, labels, progress)
    except NOT_BUILT as error:
        result.failed = str(error)
        return result
    # Compare what was built.
    sealed = trained.sealed(author=version.author, created_unix_ms=version.created_unix_ms)
    names = sorted({*files, *sealed} - {"signature.json"})
    result.files = {name: files.get(name) == sealed.get(name) for name in names}
    result.identical = all(result.files.values())
    if not result.files["card.json"]:
        result.card = differences(found.card, json.loads(sealed["card.json"]))
    if not result.files["model.onnx"]:
        progress("comparing the graphs")
        _compare_graphs(result, found, trained, isolation)
    return result


async def _order(
    context: CommandContext,
    client: RegistryClient,
    version: registry_pb2.Version,
    found: Bundle,
    commit: str,
) -> _Order:
    """Return what a version is built again from. OperatorError when its card does not say it."""
    # What the card records suffices, whatever the work tree has.
    recorded_commit = str(found.card.get("commit", "unknown"))
    name = f"{version.model}/{version.label}"
    try:
        record = read_build(found.card, found.contract)
    except RecipeError as error:
        raise OperatorError(
            f"{name} cannot be built again: {error}. Stand at commit {recorded_commit}, with the "
            "release of Turnout that made it"
        ) from error
    if record is not None:
        best = None
        if record.champion:
            best = await champion.fetch_registered(client, version.model, record.champion)
        return _Order(
            bundle=found,
            version=version,
            recipe=record.recipe,
            record=record,
            champion=best,
            commit=recorded_commit,
        )
    # Older cards name the commit and the setting. The recipe is that of the files there.
    setting = found.card.get("setting")
    if not isinstance(setting, str):
        raise OperatorError(
            f"{name} was not made by `turnout train`: its card names no recipe. `turnout adopt` "
            "proves such a version from its own model"
        )
    if commit != recorded_commit:
        raise OperatorError(
            f"{name} was made before cards recorded their recipe, from commit {recorded_commit}, "
            f"and this work tree is at {commit}. Check out that commit, and repeat the command"
        )
    definitions = await usable_definitions(context)
    # Its champion is named in the expected shift.
    shift = found.card.get("expected_shift") or {}
    best = None
    if shift.get("champion"):
        best = await champion.fetch_registered(client, version.model, shift["champion"])
    return _Order(
        bundle=found,
        version=version,
        recipe=definitions.recipe(version.model, setting),
        record=None,
        champion=best,
        commit=recorded_commit,
    )


def _until(record: BuildRecord | None) -> Mapping[str, int]:
    """Return edition -> the last ingest that the version was made from."""
    if record is None:
        return {}
    return {name: int(view["ingest"]) for name, view in record.views.items()}


def _labels(context: CommandContext, order: _Order) -> LabelledRows:
    """Read the labels that were known when the version was made."""
    declared, environment = order.recipe.labels, context.required_environment()
    if declared is None:
        raise LabelsError(
            "its recipe names no labels, because code gave them; build it again with that code"
        )
    connections = environment.connections() if declared.source.kind == "table" else {}
    data = order.bundle.card.get("data") or {}
    return read_labels(
        declared,
        root=environment.project.root,
        connections=connections,
        known_until_ms=int(data.get("known_until_ms", 0)),
    )


def _changed_inputs(
    order: _Order, store: OfflineStore, labels: LabelledRows, commit: str
) -> list[Difference]:
    """Return the recorded inputs that are different now."""
    card = order.bundle.card
    now: dict[str, Any] = {"commit": commit, "packages": package_versions()}
    recorded = {name: card.get(name) for name in now}
    # Each view and the labels have a digest of their own; older cards have one of all views.
    if order.record is not None:
        champion_id = "" if order.champion is None else order.champion.digest
        now |= build_facts(order.recipe, store, labels, champion_id)
        recorded |= card[SECTION]
    else:
        now["snapshot"] = store.digest([use.view for use in order.recipe.contract.views])
        now["labels"] = {"rows": len(labels), "positives": int(labels.positive.sum())}
        data = card.get("data") or {}
        recorded["snapshot"] = data.get("snapshot")
        recorded["labels"] = {"rows": data.get("rows"), "positives": data.get("positives")}
    # As JSON, because a card has lists where definitions may have tuples.
    return differences(recorded, json.loads(canonical_json(now)))


def _train(
    order: _Order,
    store: OfflineStore,
    labels: LabelledRows,
    progress: Callable[[str], None],
) -> TrainedVersion:
    # The card says whether the champion was judged on the newest labels.
    champion_now = None
    if order.champion is not None and "champion" in order.bundle.card:
        progress("judge the champion")
        champion_now = judge_champion(order.recipe, store, labels, order.champion)
    return train_version(
        order.recipe,
        store,
        labels,
        champion=order.champion,
        champion_now=champion_now,
        commit=order.commit,
        progress=progress,
    )


def _compare_graphs(
    result: Rebuilt, found: Bundle, trained: TrainedVersion, isolation: Isolation | None
) -> None:
    """Note in which parts the graphs differ, and by how much the golden rows' scores."""
    if trained.recipe.contract.width != found.contract.width:
        return
    compared = score_side_by_side(
        found.onnx,
        trained.files["model.onnx"],
        found.golden_inputs,
        len(found.contract.outputs),
        graphs=True,
        isolation=isolation,
    )
    result.graph = compared.graph
    result.score_difference = float(np.max(score_differences(compared.first, compared.second)))
