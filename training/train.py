"""Makes a version from a recipe: read rows, split, fit, convert, certify, evaluate, compare, gate.

`train_version` shows these steps in order. Nothing here talks to a registry: the caller fetches the
champion and registers the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from features.contract import ModelContract, time_columns
from features.offline import Spine, TrainingSet
from features.storage.unjoined import Unjoined
from features.views import View
from registry import bundle, scoring
from registry.bundle import Bundle
from registry.golden import ScoreTolerance
from training.adoption.graph.tree_rows import leaf_rows, threshold_neighbours
from training.artifacts import card, golden_rows, reference
from training.audit import fairness_report
from training.errors import GateFailedError
from training.evaluation import gate
from training.evaluation.expected_shift import (
    ExpectedShift,
    expected_shift,
    section_digests,
    shift_without_champion,
)
from training.evaluation.metrics import Bootstrap, Estimate, auc_gain, evaluate_scores
from training.evaluation.threshold import choose_threshold
from training.export.edge_rows import base_rows, contract_edges
from training.export.lint import lint_recipe
from training.export.onnx_model import OnnxModel
from training.export.parity import ParityCertificate, certify_parity
from training.joined import JoinedView, joined_views, require_joined
from training.labelled_rows import LabelledRows
from training.learners.fitted import FittedLearner, Targets
from training.recipe import Recipe
from training.request_inputs import encode_inputs
from training.split import Split, split_rows

Progress = Callable[[str], None]
"""A function that is called with the name of each step when the step begins."""


class FeatureSource(Protocol):
    """The methods of features.offline.OfflineStore that training needs."""

    def training_set(
        self, contract: ModelContract, spine: Spine, *, with_known: bool = False
    ) -> TrainingSet:
        """Return the features as they were known at each instant of *spine*."""

    def unjoined(self, view: View, spine: Spine) -> Unjoined:
        """Return why no row of *spine* found a fresh row of *view*."""

    def digest(self, views: Sequence[View]) -> str:
        """Return the SHA-256 (hex) of the data that *views* are read from."""


@dataclass(frozen=True, eq=False)
class TrainedVersion:
    """A version that passed its gate: its files, and the numbers that they were made from.

    files     model.onnx, contract.json, golden.npz, reference.json, card.json.
    model     the fitted learner.
    rows      (N, F) float32, the model inputs of all labelled rows.
    joined    what the labelled rows found in each view.
    held_out  (N,) bool, True for the rows by which the version is judged.
    threshold a score at or above it is a positive decision.
    scores    (N,) float32, P(positive) of *rows* by ONNX Runtime.
    native    who scores in gateways, as JSON values: `used`, and the `reason` if not.
    gain      AUC(candidate) - AUC(champion); None without a champion.
    shift     expected shift from the champion; None without a champion.
    """

    recipe: Recipe
    files: dict[str, bytes]
    model: FittedLearner
    rows: NDArray[np.float32]
    joined: list[JoinedView]
    held_out: NDArray[np.bool_]
    threshold: float
    scores: NDArray[np.float32]
    metrics: dict[str, Estimate]
    gain: Estimate | None
    parity: ParityCertificate
    shift: ExpectedShift | None
    native: dict[str, Any]

    def sealed(self, *, author: str, created_unix_ms: int) -> dict[str, bytes]:
        """Return the files with their manifest, ready to be registered."""
        return bundle.seal_files(
            self.files, model=self.recipe.model, author=author, created_unix_ms=created_unix_ms
        )

    def bundle(self, *, author: str, created_unix_ms: int) -> Bundle:
        """Return the sealed version as a verified bundle. It may be another version's champion."""
        return bundle.verify_bundle(
            self.sealed(author=author, created_unix_ms=created_unix_ms), trusted_key=None
        )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The fitted model, its ONNX graph, the certified edge rows, and the scores of all rows.

    threshold   the threshold of decisions, chosen on the held-out rows if the recipe says so.
    leakage     the check of the gate that no column alone tells the labels apart.
    native      who scores in gateways, as the card has it.
    """

    rows: NDArray[np.float32]
    split: Split
    model: FittedLearner
    onnx: bytes
    edges: NDArray[np.float32]
    scores: NDArray[np.float32]
    threshold: float
    parity: ParityCertificate
    leakage: gate.GateCheck
    native: dict[str, Any]

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """(N,) bool, the rows by which the version is judged."""
        return self.split.held_out


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """What the scores of the held-out rows are worth, and how they differ from the champion's."""

    metrics: dict[str, Estimate]
    fairness: dict[str, Any]
    gain: Estimate | None
    shift: ExpectedShift | None


def train_version(
    recipe: Recipe,
    store: FeatureSource,
    labels: LabelledRows,
    *,
    champion: Bundle | None = None,
    commit: str = "unknown",
    progress: Progress = lambda _step: None,
) -> TrainedVersion:
    """Make a version of the recipe's model, and compare it with *champion*.

    champion  the version to compare with, of any recipe; None for a model's first version.
    commit    git commit of the code, for the card (`host.git.commit_of`).

    The same recipe, data, champion and packages give the same bytes in every file. Raises
    RecipeError before any data is read, LabelsError, JoinError, ConversionError or GateFailedError.
    """
    lint_recipe(recipe)
    # Read the features as they were known at each label's instant, and split the rows.
    progress("rows")
    rows, joined = _joined_rows(recipe, store, recipe.contract, labels)
    split = split_rows(recipe, labels)
    # Fit on the other rows, convert to ONNX, and certify that both score alike.
    progress("fit and convert")
    fitted = _fit(recipe, rows, split, Targets.binary(labels.positive))
    # Judge the ONNX scores of the held-out rows, by themselves and beside the champion's.
    found = _evaluate(recipe, store, labels, fitted, champion, progress)
    # The gate raises unless every check passes. It loads the very files of the version.
    files = _files(recipe, fitted)
    progress("gate")
    checks = _pass_gate(recipe, files, fitted, found)
    # The card says how the version was made. An approver accepts sections of it with the shift.
    snapshot = store.digest([use.view for use in recipe.contract.views])
    facts = {
        **card.recipe_facts(recipe, fitted.threshold),
        **card.code_facts(commit),
        "data": card.data_facts(recipe, labels, split, snapshot=snapshot),
        "joined": {view.view: view.definition() for view in joined},
        **_evaluation_facts(recipe, fitted, found),
        "gate": checks,
    }
    shift = None if found.shift is None else replace(found.shift, sections=section_digests(facts))
    return TrainedVersion(
        recipe=recipe,
        files={**files, "card.json": canonical_json({**facts, **_shift_facts(facts, shift)})},
        model=fitted.model,
        rows=rows,
        joined=joined,
        held_out=split.held_out,
        threshold=fitted.threshold,
        scores=fitted.scores,
        metrics=found.metrics,
        gain=found.gain,
        parity=fitted.parity,
        shift=shift,
        native=fitted.native,
    )


def _evaluate(
    recipe: Recipe,
    store: FeatureSource,
    labels: LabelledRows,
    fitted: _Fitted,
    champion: Bundle | None,
    progress: Progress,
) -> _Evaluation:
    """Judge the scores of the held-out rows, by themselves and beside those of *champion*."""
    progress("evaluate")
    held_out_labels = labels.selected(fitted.held_out)
    scores = fitted.scores[fitted.held_out]
    wide = scores.astype(np.float64)
    metrics = evaluate_scores(
        held_out_labels.positive, wide, threshold=fitted.threshold, seed=recipe.seed
    )
    fairness = fairness_report(recipe, store, held_out_labels, wide, fitted.threshold)
    # The champion scores the same rows.
    progress("compare with the champion")
    gain, shift = _compare(recipe, store, held_out_labels, fitted, champion)
    return _Evaluation(metrics, fairness, gain, shift)


def _evaluation_facts(recipe: Recipe, fitted: _Fitted, found: _Evaluation) -> dict[str, Any]:
    """Return the card's facts about metrics and their intervals, fairness and parity."""
    return {
        "metrics": {name: estimate.definition() for name, estimate in found.metrics.items()},
        "auc_gain": None if found.gain is None else found.gain.definition(),
        "intervals": Bootstrap(int(fitted.held_out.sum()), seed=recipe.seed).definition(),
        "fairness": found.fairness,
        "parity": {**fitted.parity.definition(), "onnx_sha256": sha256_hex(fitted.onnx)},
        "native": fitted.native,
    }


def _shift_facts(facts: dict[str, Any], shift: ExpectedShift | None) -> dict[str, Any]:
    """Return the card's `expected_shift`, which has digests also without a champion."""
    without = shift_without_champion(section_digests(facts))
    return {"expected_shift": without if shift is None else shift.definition()}


def _joined_rows(
    recipe: Recipe,
    store: FeatureSource,
    contract: ModelContract,
    labels: LabelledRows,
    *,
    suffix: str = "",
) -> tuple[NDArray[np.float32], list[JoinedView]]:
    """Return the features of the labelled rows, (N, F), and what the rows found in each view.

    suffix  follows the recipe's name in the error, when another version reads the rows.

    Raises JoinError if too many labels found no fresh row.
    """
    rows = store.training_set(contract, labels.spine)
    require_joined(
        f"{recipe.model}/{recipe.setting}{suffix}",
        store,
        contract,
        labels.spine,
        rows,
        without_row_max=recipe.gate.without_row_max,
    )
    blocks = [rows.values]
    if contract.inputs:
        blocks.append(encode_inputs(contract.inputs, labels.inputs))
    if contract.request_time:
        blocks.append(time_columns(labels.as_of_ms))
    matrix = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
    return matrix, joined_views(contract, rows)


def _pass_gate(
    recipe: Recipe,
    files: dict[str, bytes],
    fitted: _Fitted,
    found: _Evaluation,
) -> list[dict[str, Any]]:
    """Return the passed checks for the card; raise GateFailedError if one fails."""
    checks = gate.quality_checks(
        recipe.gate,
        held_out_rows=int(fitted.held_out.sum()),
        auc=found.metrics["auc"],
        gain=found.gain,
        parity=fitted.parity,
    )
    checks.append(fitted.leakage)
    checks.append(gate.servable_check({**files, "card.json": b"{}"}, model=recipe.model))
    gate.enforce_gate(f"{recipe.model}/{recipe.setting}", checks)
    return [check.definition() for check in checks]


def _fit(recipe: Recipe, rows: NDArray[np.float32], split: Split, targets: Targets) -> _Fitted:
    # Imported here because scikit-learn and skl2onnx take a second to import, and other commands
    # import this module without fitting.
    from training.adoption.certificate import usual_tolerance
    from training.adoption.native_form import why_not_native
    from training.export.on_demand_graph import on_demand_front
    from training.learners.fit import fit_recipe

    # Compute the on-demand features, fit on the rows that are not held out, and convert.
    front = on_demand_front(recipe.contract.names, recipe.learner_inputs, recipe.on_demand_terms)
    columns, held_out, positive = front.columns(rows), split.held_out, targets.values
    assert positive is not None
    leakage = gate.leakage_check(
        recipe.gate, recipe.learner_columns, columns, positive, split.fitted
    )
    model = fit_recipe(recipe, columns, targets, split.fitted)
    learner = model.to_onnx(
        name=recipe.model,
        width=len(recipe.learner_columns),
        model_contract=recipe.contract.model_contract,
    )
    onnx = front.before(learner)
    onnx_model = OnnxModel(onnx)
    # Compare the library with the whole graph, on the held-out rows and the edges of the contract.
    edges = contract_edges(recipe.contract, base_rows(rows[held_out]))
    certified = np.concatenate([rows[held_out], edges])
    fitted = [model.outputs(front.columns(certified))]
    converted = [onnx_model.scores(certified)]
    # Thresholds of trees are values of the learner's columns, which are model inputs as well only
    # where nothing is computed. Each leaf gets a row that leads to it.
    bases = base_rows(columns[held_out])
    neighbours = threshold_neighbours(learner, bases)
    of_trees = np.concatenate([neighbours, leaf_rows(learner, bases)])
    if len(of_trees):
        fitted.append(model.outputs(of_trees))
        converted.append(OnnxModel(learner).scores(of_trees))
    if not recipe.on_demand:
        edges = np.concatenate([edges, neighbours])
    scores = onnx_model.scores(rows)[:, 0]
    threshold = choose_threshold(recipe.threshold, positive[held_out], scores[held_out])
    # Probabilities have a size, and other scores have their own.
    tolerance = ScoreTolerance(recipe.gate.difference_max, 0.0)
    if targets.task in ("regression", "anomaly"):
        tolerance = usual_tolerance(fitted[0].astype(np.float32), recipe.gate.difference_max)
    parity = certify_parity(
        np.concatenate(fitted),
        np.concatenate(converted),
        held_out_rows=int(held_out.sum()),
        threshold=threshold,
        tolerance=tolerance,
        truth_by=model.truth_by,
    )
    reason = why_not_native(learner)
    native = {"used": not reason, "reason": reason}
    return _Fitted(rows, split, model, onnx, edges, scores, threshold, parity, leakage, native)


def _files(recipe: Recipe, fitted: _Fitted) -> dict[str, bytes]:
    """Return the version's files except card.json."""
    inputs = golden_rows.choose_golden_rows(fitted.rows[fitted.held_out], fitted.edges)
    return {
        "model.onnx": fitted.onnx,
        "contract.json": canonical_json(recipe.contract.definition()),
        "golden.npz": golden_rows.write_golden(inputs, OnnxModel(fitted.onnx).scores(inputs)),
        "reference.json": reference.write_reference(
            names=recipe.contract.names,
            rows=fitted.rows[~fitted.held_out],
            scores=fitted.scores[fitted.held_out, np.newaxis],
            outputs=recipe.contract.outputs,
            task="binary",
            threshold=fitted.threshold,
        ),
    }


def _compare(
    recipe: Recipe,
    store: FeatureSource,
    held_out_labels: LabelledRows,
    fitted: _Fitted,
    champion: Bundle | None,
) -> tuple[Estimate | None, ExpectedShift | None]:
    """Return the AUC gain over the champion and the expected shift; None, None without one."""
    if champion is None:
        return None, None
    # The champion scores the same rows, with the features of its own contract.
    session = scoring.load_session(champion)
    # With defaults instead of features it would lose every comparison.
    suffix = f", champion {champion.digest[:16]}"
    rows, _ = _joined_rows(recipe, store, champion.contract, held_out_labels, suffix=suffix)
    champion_scores = session.run(rows)
    unusable = int((~np.isfinite(champion_scores).all(axis=1)).sum())
    if unusable:
        text = (
            f"the champion {champion.digest[:16]} scores {unusable} of {len(champion_scores)} "
            "held-out rows NaN or infinite, so no version can be compared with it; train without a "
            "champion, or compare with another version"
        )
        raise GateFailedError(text, (text,))
    # Both comparisons are paired: they use the same rows.
    scores = fitted.scores[fitted.held_out]
    gain = auc_gain(
        held_out_labels.positive,
        champion_scores[:, 0].astype(np.float64),
        scores.astype(np.float64),
        seed=recipe.seed,
    )
    shift = expected_shift(
        champion_scores,
        scores[:, np.newaxis],
        champion=champion.digest,
        scale=champion.reference.scale,
        candidate_threshold=fitted.threshold,
    )
    return gain, shift
