"""Fits the recipe's scikit-learn model on float32 rows, in one thread, from the recipe's seed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with sklearn

from training.export.thresholds import round_boosted_thresholds
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

    rows      (N, F) float32. A model fitted on float64 would differ from its own ONNX graph,
              because that is served float32.
    positive  (N,) bool, the labels.
    """
    learner = recipe.learner
    # One thread: sums in OpenMP and BLAS depend on the number of threads, and the same recipe must
    # give the same bytes.
    with threadpool_limits(limits=1):
        if learner.scaling == "standard":
            return _fit_scaled(learner, recipe.seed, rows, positive)
        model = _unfitted(learner, recipe.seed)
        if learner.calibration == "sigmoid":
            model = _CALIBRATED(model, method="sigmoid", cv=CALIBRATION_FOLDS)
        fitted = model.fit(rows, positive.astype(np.int64))
    _round_thresholds(fitted)
    return fitted


def probabilities(model: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:  # noqa: ANN401
    """Return P(positive) of each row by scikit-learn, (N,) float64."""
    with threadpool_limits(limits=1):
        return np.asarray(model.predict_proba(rows)[:, 1], dtype=np.float64)


def _unfitted(learner: Learner, seed: int) -> Any:  # noqa: ANN401
    parameters = dict(learner.parameters)
    if learner.kind == "boosting":
        parameters.setdefault("early_stopping", False)
    return _CLASSES[learner.kind](**parameters, random_state=seed)


def _round_thresholds(model: Any) -> None:  # noqa: ANN401
    """Round thresholds of boosted trees, also inside of a calibrated model."""
    folds = getattr(model, "calibrated_classifiers_", None)
    for estimator in [model] if folds is None else [fold.estimator for fold in folds]:
        round_boosted_thresholds(estimator)


def _fit_scaled(
    learner: Learner, seed: int, rows: NDArray[np.float32], positive: NDArray[np.bool_]
) -> Any:  # noqa: ANN401
    """Fit on standardised columns, then fold means and scales into the coefficients.

    So the ONNX graph has no scaler, whose rounding in float32 would differ.
    """
    wide = rows.astype(np.float64)
    mean, scale = wide.mean(axis=0), wide.std(axis=0)
    scale[scale == 0.0] = 1.0
    model = _unfitted(learner, seed).fit((wide - mean) / scale, positive.astype(np.int64))
    model.coef_ = model.coef_ / scale
    model.intercept_ = model.intercept_ - model.coef_ @ mean
    return model
