"""Makes a version from a recipe: read rows, split, fit, convert, certify, evaluate, compare, gate.

`train_version` shows these steps in order. Nothing here talks to a registry: the caller fetches the
champion and registers the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from features.contract import ModelContract
from features.offline import Spine, TrainingSet
from features.storage.unjoined import Unjoined
from features.views import View
from registry import bundle, scoring
from registry.bundle import Bundle
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
from training.export.edge_rows import base_rows, contract_edges, threshold_neighbours
from training.export.lint import lint_recipe
from training.export.onnx_model import OnnxModel
from training.export.parity import ParityCertificate, certify_parity
from training.joined import JoinedView, joined_rows
from training.labelled_rows import LabelledRows
from training.recipe import Recipe
from training.retrain.build_record import SECTION, build_facts, code_digest, maturity_facts
from training.retrain.champion_now import ChampionNow
from training.retrain.step_cache import NO_STEPS, StepCache, StepResult
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

    def ingested(self, view: View) -> tuple[int, str]:
        """Return the number of the view's last ingest, and the SHA-256 of all ingests."""


@dataclass(frozen=True, eq=False)
class TrainedVersion:
    """A version that passed its gate: its files, and the numbers that they were made from.

    files     model.onnx, contract.json, golden.npz, reference.json, card.json.
    model     the fitted scikit-learn classifier; None if an interrupted training had fitted it.
    rows      (N, F) float32, the model inputs of all labelled rows.
    joined    what the labelled rows found in each view.
    held_out  (N,) bool, True for the rows by which the version is judged.
    threshold a score at or above it is a positive decision.
    scores    (N,) float32, P(positive) of *rows* by ONNX Runtime.
    gain      AUC(candidate) - AUC(champion); None without a champion.
    shift     expected shift from the champion; None without a champion.
    """

    recipe: Recipe
    files: dict[str, bytes]
    model: Any
    rows: NDArray[np.float32]
    joined: list[JoinedView]
    held_out: NDArray[np.bool_]
    threshold: float
    scores: NDArray[np.float32]
    metrics: dict[str, Estimate]
    gain: Estimate | None
    parity: ParityCertificate
    shift: ExpectedShift | None

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

    threshold  the threshold of decisions, chosen on the held-out rows if the recipe says so.
    leakage    the check of the gate that no column alone tells the labels apart.
    """

    rows: NDArray[np.float32]
    split: Split
    model: Any
    onnx: bytes
    edges: NDArray[np.float32]
    scores: NDArray[np.float32]
    threshold: float
    parity: ParityCertificate
    leakage: gate.GateCheck

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
    champion_now: ChampionNow | None = None,
    commit: str = "unknown",
    steps: StepCache = NO_STEPS,
    progress: Progress = lambda _step: None,
) -> TrainedVersion:
    """Make a version of the recipe's model, and compare it with *champion*.

    champion      the version to compare with, of any recipe; None for a model's first version.
    champion_now  what the champion is worth on the newest labels, for the card.
    commit        git commit of the code, for the card (`host.git.commit_of`).
    steps         has the finished steps of an interrupted training, which are not repeated.

    The same recipe, data, champion and packages give the same bytes in every file. Raises
    RecipeError before any data is read, LabelsError, JoinError, ConversionError or GateFailedError.
    """
    lint_recipe(recipe)
    built = build_facts(recipe, store, labels, "" if champion is None else champion.digest)
    inputs = {**built, "packages": card.package_versions(), "code": code_digest()}
    # Read the features as they were known at each label's instant, and split the rows.
    progress("rows")
    rows, joined = _rows(recipe, store, labels, steps, inputs)
    split = split_rows(recipe, labels)
    # Fit on the other rows, convert to ONNX, and certify that both score alike.
    progress("fit and convert")
    fitted = _kept_fit(recipe, rows, split, labels.positive, steps, inputs)
    # Judge the ONNX scores of the held-out rows, by themselves and beside the champion's.
    found = _evaluate(recipe, store, labels, fitted, champion, progress)
    # The gate raises unless every check passes. It loads the very files of the version.
    files = _files(recipe, fitted)
    progress("gate")
    evidence = {
        **_data_facts(recipe, store, labels, split, joined),
        **_evaluation_facts(recipe, fitted, found, champion_now),
        SECTION: built,
    }
    checks = _pass_gate(recipe, labels, files, fitted, found, evidence)
    # The card says how the version was made. An approver accepts sections of it with the shift.
    how = {**card.recipe_facts(recipe, fitted.threshold), **card.code_facts(commit)}
    facts = {**how, **evidence, "gate": checks}
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
    )


def _rows(
    recipe: Recipe,
    store: FeatureSource,
    labels: LabelledRows,
    steps: StepCache,
    inputs: dict[str, Any],
) -> tuple[NDArray[np.float32], list[JoinedView]]:
    """Return the model inputs of the labelled rows, (N, F), and what the rows found in each view.

    inputs  what the version is made from, by which the rows are kept.
    """
    kept = steps.load("rows", inputs)
    if kept is not None:
        return kept.arrays["rows"], [JoinedView(**view) for view in kept.facts["joined"]]
    rows, joined = joined_rows(
        f"{recipe.model}/{recipe.setting}",
        store,
        recipe.contract,
        labels,
        without_row_max=recipe.gate.without_row_max,
    )
    facts = {"joined": [asdict(view) for view in joined]}
    steps.keep("rows", inputs, StepResult(facts, {"rows": rows}))
    return rows, joined


def _kept_fit(
    recipe: Recipe,
    rows: NDArray[np.float32],
    split: Split,
    positive: NDArray[np.bool_],
    steps: StepCache,
    inputs: dict[str, Any],
) -> _Fitted:
    """Do as `_fit` does, unless the fit of *inputs* is kept. A kept fit has no fitted model."""
    # The fit of an interrupted training.
    kept = steps.load("fit", inputs)
    if kept is not None:
        return _Fitted(
            rows=rows,
            split=split,
            model=None,
            onnx=kept.files["model.onnx"],
            edges=kept.arrays["edges"],
            scores=kept.arrays["scores"],
            threshold=kept.facts["threshold"],
            parity=ParityCertificate(**kept.facts["parity"]),
            leakage=gate.GateCheck(**kept.facts["leakage"]),
        )
    fitted = _fit(recipe, rows, split, positive)
    # A fit that the gate will refuse is not worth keeping.
    if not fitted.parity.passed:
        return fitted
    facts = {
        "threshold": fitted.threshold,
        "parity": asdict(fitted.parity),
        "leakage": asdict(fitted.leakage),
    }
    arrays = {"edges": fitted.edges, "scores": fitted.scores}
    steps.keep("fit", inputs, StepResult(facts, arrays, {"model.onnx": fitted.onnx}))
    return fitted


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


def _data_facts(
    recipe: Recipe,
    store: FeatureSource,
    labels: LabelledRows,
    split: Split,
    joined: list[JoinedView],
) -> dict[str, Any]:
    """Return the card's facts about labels, stored data, and what both found in each other."""
    snapshot = store.digest([use.view for use in recipe.contract.views])
    return {
        "data": {
            **card.data_facts(recipe, labels, split, snapshot=snapshot),
            **maturity_facts(labels),
        },
        "joined": {view.view: view.definition() for view in joined},
    }


def _evaluation_facts(
    recipe: Recipe, fitted: _Fitted, found: _Evaluation, champion_now: ChampionNow | None
) -> dict[str, Any]:
    """Return the card's facts about metrics and their intervals, fairness, parity and champion."""
    return {
        **({} if champion_now is None else {"champion": champion_now.definition()}),
        "metrics": {name: estimate.definition() for name, estimate in found.metrics.items()},
        "auc_gain": None if found.gain is None else found.gain.definition(),
        "intervals": Bootstrap(int(fitted.held_out.sum()), seed=recipe.seed).definition(),
        "fairness": found.fairness,
        "parity": {**fitted.parity.definition(), "onnx_sha256": sha256_hex(fitted.onnx)},
    }


def _shift_facts(facts: dict[str, Any], shift: ExpectedShift | None) -> dict[str, Any]:
    """Return the card's `expected_shift`, which has digests also without a champion."""
    without = shift_without_champion(section_digests(facts))
    return {"expected_shift": without if shift is None else shift.definition()}


def _pass_gate(
    recipe: Recipe,
    labels: LabelledRows,
    files: dict[str, bytes],
    fitted: _Fitted,
    found: _Evaluation,
    evidence: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return the passed checks for the card; raise GateFailedError with *evidence* if one fails."""
    checks = gate.quality_checks(
        recipe.gate,
        held_out_rows=int(fitted.held_out.sum()),
        auc=found.metrics["auc"],
        gain=found.gain,
        parity=fitted.parity,
    )
    checks.append(gate.held_out_classes_check(labels.positive[fitted.held_out]))
    checks.append(fitted.leakage)
    checks.append(gate.servable_check({**files, "card.json": b"{}"}, model=recipe.model))
    try:
        gate.enforce_gate(f"{recipe.model}/{recipe.setting}", checks)
    except GateFailedError as error:
        error.facts = evidence
        raise
    return [check.definition() for check in checks]


def _fit(
    recipe: Recipe,
    rows: NDArray[np.float32],
    split: Split,
    positive: NDArray[np.bool_],
) -> _Fitted:
    # Imported here because scikit-learn and skl2onnx take a second to import, and other commands
    # import this module without fitting.
    from training.export.convert import convert_to_onnx
    from training.export.on_demand_graph import on_demand_front
    from training.learners.fit import fit_recipe, probabilities

    # Compute the on-demand features, fit on the rows that are not held out, and convert.
    front = on_demand_front(recipe.contract.names, recipe.learner_inputs, recipe.on_demand_terms)
    columns = front.columns(rows)
    held_out, kept = split.held_out, recipe.negatives_share
    leakage = gate.leakage_check(
        recipe.gate, recipe.learner_columns, columns, positive, split.fitted
    )
    model = fit_recipe(recipe, columns, positive, split.fitted)
    learner = convert_to_onnx(
        model,
        name=recipe.model,
        width=len(recipe.learner_columns),
        model_contract=recipe.contract.model_contract,
        negatives_share=kept,
    )
    onnx = front.before(learner)
    onnx_model = OnnxModel(onnx)
    # Compare scikit-learn with the whole graph, on the held-out rows and the edges of the contract.
    edges = contract_edges(recipe.contract, base_rows(rows[held_out]))
    certified = np.concatenate([rows[held_out], edges])
    fitted = [probabilities(model, front.columns(certified), negatives_share=kept)]
    converted = [onnx_model.scores(certified)[:, 0]]
    # Thresholds of trees are values of the learner's columns, which are model inputs as well only
    # where nothing is computed.
    neighbours = threshold_neighbours(learner, base_rows(columns[held_out]))
    if len(neighbours):
        fitted.append(probabilities(model, neighbours, negatives_share=kept))
        converted.append(OnnxModel(learner).scores(neighbours)[:, 0])
    if not recipe.on_demand:
        edges = np.concatenate([edges, neighbours])
    scores = onnx_model.scores(rows)[:, 0]
    threshold = choose_threshold(recipe.threshold, positive[held_out], scores[held_out])
    parity = certify_parity(
        np.concatenate(fitted),
        np.concatenate(converted),
        held_out_rows=int(held_out.sum()),
        threshold=threshold,
        difference_allowed=recipe.gate.difference_max,
    )
    return _Fitted(rows, split, model, onnx, edges, scores, threshold, parity, leakage)


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
    rows, _ = joined_rows(
        f"{recipe.model}/{recipe.setting}, champion {champion.digest[:16]}",
        store,
        champion.contract,
        held_out_labels,
        without_row_max=recipe.gate.without_row_max,
    )
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
