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
from registry.explanation.background import BACKGROUND
from registry.explanation.reasons import REASONS
from training.artifacts import card, golden_rows, reference
from training.artifacts.explanations import explanation_facts
from training.artifacts.importances import importance_facts
from training.audit import fairness_report
from training.errors import GateFailedError
from training.evaluation import gate
from training.evaluation.expected_shift import (
    ExpectedShift,
    section_digests,
    shift_without_champion,
)
from training.evaluation.metrics import Bootstrap, Estimate
from training.export.lint import lint_recipe
from training.export.onnx_model import OnnxModel
from training.export.parity import ParityCertificate
from training.joined import JoinedView, joined_rows
from training.labelled_rows import LabelledRows
from training.learners.fitted import FittedLearner
from training.recipe import Recipe
from training.retrain.build_record import SECTION, build_facts, code_digest, maturity_facts
from training.retrain.champion_now import ChampionNow
from training.retrain.resumed_fit import resumed_fit
from training.retrain.step_cache import NO_STEPS, StepCache, StepResult
from training.split import Split, split_rows
from training.tasks.certified_fit import CertifiedFit, score_tolerance
from training.tasks.comparison import FeatureSource, compare_with_champion
from training.tasks.outcomes import Outcomes
from training.tasks.table import TASKS

Progress = Callable[[str], None]
"""A function that is called with the name of each step when the step begins."""


@dataclass(frozen=True, eq=False)
class TrainedVersion:
    """A version that passed its gate: its files, and the numbers that they were made from.

    files     model.onnx, contract.json, golden.npz, background.npz, reference.json, card.json, and
              reasons.toml if the recipe has reasons.
    model     the fitted learner; None if an interrupted training had fitted it.
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
    model: FittedLearner | None
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
    champion_now: ChampionNow | None = None,
    commit: str = "unknown",
    steps: StepCache = NO_STEPS,
    progress: Progress = lambda _step: None,
) -> TrainedVersion:
    """Make a version of the recipe's model, and compare it with *champion*.

    champion      the version to compare with, of any recipe; None for a first version.
    champion_now  what the champion is worth on the newest labels, for the card.
    commit        git commit of the code, for the card (`host.git.commit_of`).
    steps         has the finished steps of an interrupted training, which are not repeated.

    The same recipe, data, champion and packages give the same bytes in every file. Raises
    RecipeError before any data is read, LabelsError, JoinError, ConversionError or GateFailedError.
    """
    lint_recipe(recipe)
    built = build_facts(recipe, store, labels, "" if champion is None else champion.digest)
    inputs = {**built, **card.code_facts("", recipe.learner.packages), "code": code_digest()}
    # Read the features as they were known at each label's instant, and split the rows.
    progress("rows")
    outcomes, split = _split_outcomes(recipe, labels.by_group())
    rows, joined = _rows(recipe, store, outcomes.labels, steps, inputs)
    # Fit on the other rows, convert to ONNX, and certify that both score alike.
    progress("fit and convert")
    fitted = resumed_fit(recipe, rows, split, outcomes, steps, inputs)
    # Judge the ONNX scores of the held-out rows, by themselves and beside the champion's.
    found = _evaluate(recipe, store, outcomes.labels, fitted, champion, progress)
    # The gate raises unless every check passes. It loads the very files of the version.
    files = _files(recipe, fitted)
    progress("gate")
    evidence = {
        **_data_facts(store, outcomes, split, joined),
        **_evaluation_facts(recipe, fitted, found, champion_now, files),
        SECTION: built,
    }
    checks = _pass_gate(recipe, files, fitted, found, evidence)
    # The card says how the version was made. An approver accepts sections of it with the shift.
    facts = {**_origin_facts(recipe, fitted, commit), **evidence, "gate": checks}
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
    task = TASKS[recipe.task]
    task.check_bounds(recipe)
    outcomes = task(recipe, labels)
    split = split_rows(recipe, labels)
    outcomes.check_split(split)
    return outcomes, split


def _origin_facts(recipe: Recipe, fitted: CertifiedFit, commit: str) -> dict[str, Any]:
    """Return the card's facts that recipe, code and packages determine."""
    tolerance = score_tolerance(fitted.held_out_outcomes, fitted.judged_scores, card.EXACT)
    return {
        **card.recipe_facts(recipe, fitted.threshold),
        "score_tolerance": asdict(tolerance),
        **card.code_facts(commit, recipe.learner.packages),
    }


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


def _evaluate(
    recipe: Recipe,
    store: FeatureSource,
    labels: LabelledRows,
    fitted: CertifiedFit,
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


def _data_facts(
    store: FeatureSource, outcomes: Outcomes, split: Split, joined: list[JoinedView]
) -> dict[str, Any]:
    """Return the card's facts about labels, stored data, and what both found in each other."""
    recipe, labels = outcomes.recipe, outcomes.labels
    snapshot = store.digest([use.view for use in recipe.contract.views])
    return {
        "data": {
            **card.data_facts(recipe, labels, split, outcomes.facts(), snapshot=snapshot),
            **maturity_facts(labels),
        },
        "joined": {view.view: view.definition() for view in joined},
    }


def _evaluation_facts(
    recipe: Recipe,
    fitted: CertifiedFit,
    found: _Evaluation,
    champion_now: ChampionNow | None,
    files: dict[str, bytes],
) -> dict[str, Any]:
    """Return the card's facts about metrics, fairness, parity, champion and model inputs."""
    gain, held_out_rows = found.gain, fitted.rows[fitted.held_out]
    return {
        **({} if champion_now is None else {"champion": champion_now.definition()}),
        "metrics": {name: estimate.definition() for name, estimate in found.metrics.items()},
        f"{TASKS[recipe.task].main_metric}{gate.GAIN}": None if gain is None else gain.definition(),
        "intervals": Bootstrap(int(fitted.held_out.sum()), seed=recipe.seed).definition(),
        "fairness": found.fairness,
        "parity": {**fitted.parity.definition(), "onnx_sha256": sha256_hex(fitted.onnx)},
        "native": fitted.native,
        **explanation_facts(recipe.model, files, held_out_rows),
        **importance_facts(
            recipe.contract.names,
            OnnxModel(fitted.onnx).scores,
            held_out_rows,
            seed=recipe.seed,
        ),
    }


def _shift_facts(facts: dict[str, Any], shift: ExpectedShift | None) -> dict[str, Any]:
    """Return the card's `expected_shift`, which has digests also without a champion."""
    without = shift_without_champion(section_digests(facts))
    return {"expected_shift": without if shift is None else shift.definition()}


def _pass_gate(
    recipe: Recipe,
    files: dict[str, bytes],
    fitted: CertifiedFit,
    found: _Evaluation,
    evidence: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return the passed checks for the card; raise GateFailedError with *evidence* if one fails."""
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
    checks += gate.held_out_classes_checks(task.events)
    checks.append(fitted.leakage)
    checks.append(gate.servable_check({**files, "card.json": b"{}"}, model=recipe.model))
    try:
        gate.enforce_gate(f"{recipe.model}/{recipe.setting}", checks)
    except GateFailedError as error:
        error.facts = evidence
        raise
    return [check.definition() for check in checks]


def _files(recipe: Recipe, fitted: CertifiedFit) -> dict[str, bytes]:
    """Return the version's files except card.json."""
    # A value of 1e30 in a column may take the score of an edge row beyond float32.
    model, edges = OnnxModel(fitted.onnx), fitted.edges
    finite = np.isfinite(model.scores(edges)).all(axis=1)
    inputs = golden_rows.choose_golden_rows(fitted.rows[fitted.held_out], edges[finite])
    # Explanations compare a score with rows that the version was fitted on.
    background = golden_rows.choose_background_rows(fitted.rows[fitted.split.fitted], recipe.seed)
    reasons = {} if recipe.reasons is None else {REASONS: recipe.reasons.to_toml()}
    return {
        BACKGROUND: golden_rows.write_golden(background, model.scores(background)),
        **reasons,
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
            positive=fitted.held_out_outcomes.events["positive"]
            if recipe.task == "binary"
            else None,
        ),
    }
