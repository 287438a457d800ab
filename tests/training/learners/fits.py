"""Small fits of every learner, and the rows on which they are compared."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.training.learners.own_functions import fit_mean
from tests.training.population import ALL_COLUMNS, profile_labels, profile_matrix, profile_recipe
from training.adoption.graph.tree_rows import leaf_rows, threshold_neighbours
from training.export.edge_rows import base_rows, contract_edges
from training.learner import Learner
from training.learners.fitted import FittedLearner, Targets, TargetTask


def scaled(path: str, **parameters: Any) -> Learner:  # noqa: ANN401  JSON values
    """A learner of a pipeline: a scaler, then the estimator."""
    scaler = Learner.estimator("sklearn.preprocessing.StandardScaler")
    steps = [("scale", scaler), ("last", Learner.estimator(path, **parameters))]
    return Learner.estimator("sklearn.pipeline.Pipeline", steps=steps)


BOOSTED: dict[str, Learner] = {
    "boosting": Learner(kind="boosting", parameters={"max_iter": 6}),
    "lightgbm": Learner(kind="lightgbm", parameters={"n_estimators": 6}),
    "xgboost": Learner(kind="xgboost", parameters={"n_estimators": 6, "max_depth": 6}),
    "catboost": Learner(kind="catboost", parameters={"n_estimators": 6, "depth": 6}),
}
FOREST = Learner(kind="forest", parameters={"n_estimators": 5, "max_depth": 6})
LOGISTIC = Learner(kind="logistic", parameters={"max_iter": 300}, scaling="standard")
SMALL: dict[tuple[str, TargetTask], Learner] = {
    ("logistic", "binary"): LOGISTIC,
    ("logistic", "multiclass"): LOGISTIC,
    **{(name, "binary"): learner for name, learner in BOOSTED.items()},
    **{(name, "multiclass"): learner for name, learner in BOOSTED.items()},
    **{(name, "regression"): learner for name, learner in BOOSTED.items()},
    ("forest", "binary"): FOREST,
    ("forest", "multiclass"): FOREST,
    ("forest", "regression"): FOREST,
    ("network", "binary"): scaled(
        "sklearn.neural_network.MLPClassifier", hidden_layer_sizes=[4], tol=1.0, n_iter_no_change=3
    ),
    ("bayes", "multiclass"): scaled("sklearn.naive_bayes.GaussianNB"),
    ("ridge", "regression"): scaled("sklearn.linear_model.Ridge"),
    ("isolation", "anomaly"): Learner.estimator(
        "sklearn.ensemble.IsolationForest", n_estimators=10
    ),
    ("function", "binary"): Learner.function(fit_mean),
}


def small_targets(task: TargetTask) -> Targets:
    """Outcomes of `profile_matrix`."""
    rows = profile_matrix().astype(np.float64)
    if task == "binary":
        return Targets.binary(profile_labels().positive)
    if task == "multiclass":
        return Targets(task, (rows[:, 2] + (rows[:, 0] > 30)).astype(np.int64) % 3, 3)
    if task == "regression":
        return Targets(task, 1_000 + 5 * rows[:, 1] - 3 * rows[:, 0])
    return Targets("anomaly", None)


def fitted(
    learner: Learner, task: TargetTask, *, missing: bool = False, negatives_share: float = 1.0
) -> tuple[FittedLearner, bytes]:
    """The learner fitted to the first 600 rows, and its graph."""
    from dataclasses import replace

    from training.learners.fit import fit_recipe

    recipe = replace(profile_recipe(learner), negatives_share=negatives_share)
    rows = rows_of(missing=missing)
    model = fit_recipe(recipe, rows, small_targets(task), np.arange(len(rows)) < 600)
    return model, model.to_onnx(name="own", width=rows.shape[1], model_contract="c0")


def rows_of(*, missing: bool) -> NDArray[np.float32]:
    """The population, with a tenth of its values missing if that is wanted."""
    rows = profile_matrix()
    if missing:
        rows[np.random.default_rng(1).random(rows.shape) < 0.1] = np.nan
    return rows


def checked_rows(graph: bytes, *, missing: bool = False) -> NDArray[np.float32]:
    """Rows that were not fitted on, edges of the contract, and rows at thresholds and leaves."""
    rows = rows_of(missing=missing)[600:]
    bases = base_rows(rows)
    return np.concatenate(
        [
            rows,
            contract_edges(ALL_COLUMNS, bases),
            threshold_neighbours(graph, bases),
            leaf_rows(graph, bases),
        ]
    )
