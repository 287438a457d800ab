"""Makes a version from a recipe: read rows, split, fit, convert, certify, evaluate, compare, gate.

`train_version` shows these steps in order. Nothing here talks to a registry: the caller fetches the
champion and registers the result.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json, sha256_hex
from registry import bundle
from registry.bundle import Bundle
from registry.golden import ScoreTolerance
from training.adoption.graph.tree_rows import leaf_rows, threshold_neighbours
from training.artifacts import card, golden_rows, reference
from training.audit import fairness_report
from training.evaluation import gate
from training.evaluation.expected_shift import (
    ExpectedShift,
    section_digests,
    shift_without_champion,
)
from training.evaluation.metrics import Bootstrap, Estimate
from training.export.edge_rows import base_rows, contract_edges
from training.export.lint import lint_recipe
from training.export.onnx_model import OnnxModel
from training.export.parity import ParityCertificate, certify_parity
from training.joined import JoinedView
from training.labelled_rows import LabelledRows
from training.learners.fitted import FittedLearner
from training.recipe import Recipe, Task
from training.split import Split, split_rows
from training.tasks.anomaly import AnomalyOutcomes
from training.tasks.binary import BinaryOutcomes
from training.tasks.comparison import FeatureSource, compare_with_champion, model_rows
from training.tasks.multiclass import ClassOutcomes
from training.tasks.outcomes import Outcomes
from training.tasks.ranking import RankedOutcomes
from training.tasks.regression import ValueOutcomes

TASKS: dict[Task, type[Outcomes]] = {
    "binary": BinaryOutcomes,
    "multiclass": ClassOutcomes,
    "regression": ValueOutcomes,
    "ranking": RankedOutcomes,
    "anomaly": AnomalyOutcomes,
}

Progress = Callable[[str], None]
"""A function that is called with the name of each step when the step begins."""


@dataclass(frozen=True, eq=False)
class TrainedVersion:
    """A version that passed its gate: its files, and the numbers that they were made from.

    files     model.onnx, contract.json, golden.npz, reference.json, card.json.
    model     the fitted learner.
    rows      (N, F) float32, the model inputs of all labelled rows. Those of a call are beside
              each other.
    joined    what the labelled rows found in each view.
    held_out  (N,) bool, True for the rows by which the version is judged.
    threshold a score at or above it is a positive decision, in a task that decides at one.
    scores    (N, K) float32, the scores of *rows* by ONNX Runtime.
    native    who scores in gateways, as JSON values: `used`, and the `reason` if not.
    gain      gain over the champion in the main metric of the task, such as AUC(candidate) -
              AUC(champion); above 0 if the candidate is better. None without a champion.
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

    held_out_outcomes  what the labels say of the held-out rows.
    scores             (N, K) by ONNX Runtime.
    threshold          the threshold of decisions, chosen on the held-out rows if it may be.
    leakage            the check of the gate that no column alone tells the labels apart.
    native             who scores in gateways, as the card has it.
    """

    rows: NDArray[np.float32]
    split: Split
    held_out_outcomes: Outcomes
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

    @property
    def judged_scores(self) -> NDArray[np.float32]:
        """(M, K) the scores of the held-out rows."""
        return self.scores[self.split.held_out]


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """What the scores of the held-out rows are worth, and how they differ from the champion's."""

    metrics: dict[str, Estimate]
    skill: list[gate.GateCheck]
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
    TASKS[recipe.task].check_bounds(recipe)
    # Read the features as they were known at each label's instant, and split the rows.
    progress("rows")
    labels = labels.by_group()
    outcomes, split = _split_outcomes(recipe, labels)
    rows, joined = model_rows(recipe, store, recipe.contract, labels)
    # Fit on the other rows, convert to ONNX, and certify that both score alike.
    progress("fit and convert")
    fitted = _fit(recipe, rows, split, outcomes)
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
        "score_tolerance": asdict(_tolerance(outcomes, fitted.judged_scores, card.EXACT)),
        **card.code_facts(commit, recipe.learner.packages),
        "data": card.data_facts(recipe, labels, split, outcomes.facts(), snapshot=snapshot),
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


def _split_outcomes(recipe: Recipe, labels: LabelledRows) -> tuple[Outcomes, Split]:
    """Return what the labels say, and what each row is for; LabelsError if they do not fit."""
    outcomes = TASKS[recipe.task](recipe, labels)
    split = split_rows(recipe, labels)
    outcomes.check_split(split)
    return outcomes, split


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
    held_out_labels, outcomes = labels.selected(fitted.held_out), fitted.held_out_outcomes
    scores, threshold = fitted.judged_scores.astype(np.float64), fitted.threshold
    metrics = outcomes.evaluate(scores, threshold=threshold)
    skill = outcomes.skill_checks(scores, metrics)
    fairness = fairness_report(
        recipe,
        store,
        held_out_labels,
        lambda attribute: outcomes.compare_groups(attribute, scores, threshold=threshold),
    )
    # The champion scores the same rows.
    progress("compare with the champion")
    gain, shift = None, None
    if champion is not None:
        gain, shift = compare_with_champion(
            outcomes, store, champion, fitted.judged_scores, threshold=threshold
        )
    return _Evaluation(metrics, skill, fairness, gain, shift)


def _evaluation_facts(recipe: Recipe, fitted: _Fitted, found: _Evaluation) -> dict[str, Any]:
    """Return the card's facts about metrics and their intervals, fairness and parity."""
    gain = found.gain
    return {
        "metrics": {name: estimate.definition() for name, estimate in found.metrics.items()},
        f"{TASKS[recipe.task].main_metric}{gate.GAIN}": None if gain is None else gain.definition(),
        "intervals": Bootstrap(int(fitted.held_out.sum()), seed=recipe.seed).definition(),
        "fairness": found.fairness,
        "parity": {**fitted.parity.definition(), "onnx_sha256": sha256_hex(fitted.onnx)},
        "native": fitted.native,
    }


def _shift_facts(facts: dict[str, Any], shift: ExpectedShift | None) -> dict[str, Any]:
    """Return the card's `expected_shift`, which has digests also without a champion."""
    without = shift_without_champion(section_digests(facts))
    return {"expected_shift": without if shift is None else shift.definition()}


def _pass_gate(
    recipe: Recipe,
    files: dict[str, bytes],
    fitted: _Fitted,
    found: _Evaluation,
) -> list[dict[str, Any]]:
    """Return the passed checks for the card; raise GateFailedError if one fails."""
    task, gain = fitted.held_out_outcomes, None
    if found.gain is not None:
        gain = gate.gain_check(task.main_metric, task.main_shown, found.gain, task.gain_low_min)
    checks = gate.quality_checks(
        recipe.gate,
        held_out_rows=int(fitted.held_out.sum()),
        skill=[*found.skill, *gate.metric_checks(recipe.gate, found.metrics)],
        gain=gain,
        parity=fitted.parity,
    )
    checks.append(fitted.leakage)
    checks.append(gate.servable_check({**files, "card.json": b"{}"}, model=recipe.model))
    gate.enforce_gate(f"{recipe.model}/{recipe.setting}", checks)
    return [check.definition() for check in checks]


def _fit(recipe: Recipe, rows: NDArray[np.float32], split: Split, outcomes: Outcomes) -> _Fitted:
    # Imported here because scikit-learn and skl2onnx take a second to import, and other commands
    # import this module without fitting.
    from training.adoption.native_form import why_not_native
    from training.export.on_demand_graph import on_demand_front
    from training.learners.fit import fit_recipe

    # Compute the on-demand features, fit on the rows that are not held out, and convert.
    front = on_demand_front(recipe.contract.names, recipe.learner_inputs, recipe.on_demand_terms)
    columns, held_out = front.columns(rows), split.held_out
    leakage = gate.leakage_check(
        recipe.gate, recipe.learner_columns, columns, outcomes.leak_events, split.fitted
    )
    model = fit_recipe(recipe, columns, outcomes.targets, split.fitted)
    learner = model.to_onnx(
        name=recipe.model,
        width=len(recipe.learner_columns),
        model_contract=recipe.contract.model_contract,
    )
    onnx = front.before(learner)
    scores, judged = OnnxModel(onnx).scores(rows), outcomes.selected(held_out)
    threshold = judged.threshold(scores[held_out])
    # Compare the library with the whole graph on the held-out rows and the edges of the contract.
    edges = contract_edges(recipe.contract, base_rows(rows[held_out]))
    by_library = [model.outputs(columns[held_out]), model.outputs(front.columns(edges))]
    by_graph = [scores[held_out], OnnxModel(onnx).scores(edges)]
    # Thresholds of trees are values of the learner's columns, which are model inputs as well only
    # where nothing is computed. Each leaf gets a row that leads to it.
    bases = base_rows(columns[held_out])
    neighbours = threshold_neighbours(learner, bases)
    of_trees = np.concatenate([neighbours, leaf_rows(learner, bases)])
    if len(of_trees):
        by_library.append(model.outputs(of_trees))
        by_graph.append(OnnxModel(learner).scores(of_trees))
    if not recipe.on_demand:
        edges = np.concatenate([edges, neighbours])
    parity = certify_parity(
        np.concatenate(by_library),
        np.concatenate(by_graph),
        held_out_rows=int(held_out.sum()),
        threshold=threshold,
        tolerance=_tolerance(judged, scores[held_out], recipe.gate.difference_max),
        truth_by=model.truth_by,
    )
    reason = why_not_native(learner)
    native = {"used": not reason, "reason": reason}
    return _Fitted(
        rows, split, judged, model, onnx, edges, scores, threshold, parity, leakage, native
    )


def _tolerance(outcomes: Outcomes, scores: NDArray[np.float32], part: float) -> ScoreTolerance:
    """Return how exact scores (M, K) are: *part* of a probability, or of a value and its size."""
    from training.adoption.certificate import usual_tolerance

    return ScoreTolerance(part, 0.0) if outcomes.probable else usual_tolerance(scores, part)


def _files(recipe: Recipe, fitted: _Fitted) -> dict[str, bytes]:
    """Return the version's files except card.json."""
    # A value of 1e30 in a column may take the score of an edge row beyond float32.
    model, edges = OnnxModel(fitted.onnx), fitted.edges
    finite = np.isfinite(model.scores(edges)).all(axis=1)
    inputs = golden_rows.choose_golden_rows(fitted.rows[fitted.held_out], edges[finite])
    return {
        "model.onnx": fitted.onnx,
        "contract.json": canonical_json(recipe.contract.definition()),
        "golden.npz": golden_rows.write_golden(inputs, model.scores(inputs)),
        "reference.json": reference.write_reference(
            names=recipe.contract.names,
            rows=fitted.rows[~fitted.held_out],
            scores=fitted.judged_scores,
            outputs=recipe.contract.outputs,
            task=recipe.task,
            threshold=fitted.threshold,
        ),
    }
