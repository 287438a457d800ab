"""Fits a recipe's learner, and certifies that its ONNX graph scores alike."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.golden import ScoreTolerance
from training.adoption.graph.tree_rows import leaf_rows, threshold_neighbours
from training.evaluation import gate
from training.export.edge_rows import base_rows, contract_edges
from training.export.onnx_model import OnnxModel
from training.export.parity import ParityCertificate, certify_parity
from training.learners.fitted import FittedLearner
from training.recipe import Recipe
from training.split import Split
from training.tasks.outcomes import Outcomes


@dataclass(frozen=True, eq=False)
class CertifiedFit:
    """A fitted model, its ONNX graph, the certified edge rows, and the scores of all rows.

    model              None if an interrupted training had fitted it.
    held_out_outcomes  what the labels say of the held-out rows.
    scores             (N, K) by ONNX Runtime.
    threshold          the threshold of decisions, chosen on the held-out rows if it may be.
    leakage            the check of the gate that no column alone tells the labels apart.
    native             who scores in gateways, as the card has it.
    """

    rows: NDArray[np.float32]
    split: Split
    held_out_outcomes: Outcomes
    model: FittedLearner | None
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


def fit_and_certify(
    recipe: Recipe, rows: NDArray[np.float32], split: Split, outcomes: Outcomes
) -> CertifiedFit:
    """Fit the recipe's learner, convert it, and compare its scores with those of the graph.

    rows  (N, F) float32, the model inputs of all labelled rows.

    Raises RecipeError and ConversionError. The certificate may have failed, which the gate says.
    """
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
        tolerance=score_tolerance(judged, scores[held_out], recipe.gate.difference_max),
        truth_by=model.truth_by,
    )
    reason = why_not_native(learner)
    native = {"used": not reason, "reason": reason}
    return CertifiedFit(
        rows, split, judged, model, onnx, edges, scores, threshold, parity, leakage, native
    )


def score_tolerance(outcomes: Outcomes, scores: NDArray[np.float32], part: float) -> ScoreTolerance:
    """Return how exact scores (M, K) are: *part* of a probability, or of a value and its size."""
    from training.adoption.certificate import usual_tolerance

    return ScoreTolerance(part, 0.0) if outcomes.probable else usual_tolerance(scores, part)
