"""Fit what the recipe asks for, on float32, on one thread, from one seed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with sklearn

from training.recipe import Learner, Recipe

CALIBRATION_FOLDS = 3
_CALIBRATED: Any = CalibratedClassifierCV
_CLASSES: dict[str, Any] = {
    "logistic": LogisticRegression,
    "forest": RandomForestClassifier,
    "boosting": HistGradientBoostingClassifier,
}


def fit_recipe(recipe: Recipe, rows: NDArray[np.float32], positive: NDArray[np.bool_]) -> Any:  # noqa: ANN401  scikit-learn has no common type
    """Return the fitted scikit-learn classifier.

    rows      (N, F) float32, as the view gives them: a model fitted on float64 disagrees with its
              own ONNX once it is fed float32.
    positive  (N,) bool.

    One thread: sums in OpenMP and BLAS depend on how many share the work, and the same recipe on
    the same data must give the same bytes.
    """
    learner = recipe.learner
    with threadpool_limits(limits=1):
        if learner.scaling == "standard":
            return _fit_scaled(learner, recipe.seed, rows, positive)
        model = _unfitted(learner, recipe.seed)
        if learner.calibration == "sigmoid":
            model = _CALIBRATED(model, method="sigmoid", cv=CALIBRATION_FOLDS)
        fitted = model.fit(rows, positive.astype(np.int64))
    _round_thresholds_down(fitted)
    return fitted


def probabilities(model: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:  # noqa: ANN401
    """P(positive) by scikit-learn itself; (N,) float64."""
    with threadpool_limits(limits=1):
        return np.asarray(model.predict_proba(rows)[:, 1], dtype=np.float64)


def _unfitted(learner: Learner, seed: int) -> Any:  # noqa: ANN401
    parameters = dict(learner.parameters)
    if learner.kind == "boosting":
        parameters.setdefault("early_stopping", False)
    return _CLASSES[learner.kind](**parameters, random_state=seed)


def _round_thresholds_down(model: Any) -> None:  # noqa: ANN401
    """Make each boosted split's threshold the largest float32 at or below it, in place.

    No float32 row meets another branch for that (x <= threshold), and the nearest float32, which
    skl2onnx 1.20 writes, is then the threshold itself. Left alone, 12 of the offers model's 365
    thresholds were rounded up, and a price that lay there scored .13 apart.
    """
    folds = getattr(model, "calibrated_classifiers_", None)
    for one in [model] if folds is None else [fold.estimator for fold in folds]:
        if not isinstance(one, HistGradientBoostingClassifier):
            continue
        for tree in (tree for trees in one._predictors for tree in trees):
            exact = tree.nodes["num_threshold"]
            with np.errstate(over="ignore"):
                near = exact.astype(np.float32)
            above = near > exact
            near[above] = np.nextafter(near[above], np.float32(-np.inf))
            tree.nodes["num_threshold"] = near


def _fit_scaled(
    learner: Learner, seed: int, rows: NDArray[np.float32], positive: NDArray[np.bool_]
) -> Any:  # noqa: ANN401
    """Fit on standardised columns, then fold mean and scale into the coefficients.

    The graph then sees raw float32 and holds no scaler, whose float32 rounding would differ.
    """
    wide = rows.astype(np.float64)
    mean, scale = wide.mean(axis=0), wide.std(axis=0)
    scale[scale == 0.0] = 1.0
    model = _unfitted(learner, seed).fit((wide - mean) / scale, positive.astype(np.int64))
    model.coef_ = model.coef_ / scale
    model.intercept_ = model.intercept_ - model.coef_ @ mean
    return model
