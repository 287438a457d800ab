"""Fits the recipe's scikit-learn model on float32 rows, in one thread, from the recipe's seed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with sklearn

from training.errors import RecipeError
from training.export.thresholds import round_boosted_thresholds
from training.learner import CALIBRATION_FOLDS, Learner
from training.recipe import Recipe

ROWS_AT_ONCE = 65_536
"""Rows that are copied or centred at once."""
_CALIBRATED: Any = CalibratedClassifierCV
_CLASSES: dict[str, Any] = {
    "logistic": LogisticRegression,
    "forest": RandomForestClassifier,
    "boosting": HistGradientBoostingClassifier,
}


def fit_recipe(
    recipe: Recipe,
    rows: NDArray[np.float32],
    positive: NDArray[np.bool_],
    fitted: NDArray[np.bool_] | None = None,
) -> Any:  # noqa: ANN401  scikit-learn has no common type
    """Return the fitted scikit-learn classifier.

    rows      (N, F) float32. A model fitted on float64 would differ from its own ONNX graph,
              because that is served float32.
    positive  (N,) bool, the labels.
    fitted    (N,) bool, the rows to fit on; None takes all.

    Raises RecipeError when scikit-learn refuses the parameters or the rows.
    """
    try:
        chosen = np.arange(len(rows)) if fitted is None else np.flatnonzero(fitted)
        return _fit(recipe, _learner_rows(recipe.learner, rows, chosen), positive[chosen])
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"recipe {recipe.model}/{recipe.setting}: scikit-learn does not fit the learner "
            f"{recipe.learner.kind!r}: {error}"
        ) from error


def _learner_rows(
    learner: Learner, rows: NDArray[np.float32], chosen: NDArray[np.int64]
) -> NDArray[Any]:
    """Return the chosen rows in the type that the learner computes in, so that it copies nothing.

    A float64 has the value of its float32, so the fitted model is the same.
    """
    computes_in_double = learner.kind == "boosting" or learner.scaling == "standard"
    copied = np.empty(
        (len(chosen), rows.shape[1]), np.float64 if computes_in_double else rows.dtype
    )
    for start in range(0, len(chosen), ROWS_AT_ONCE):
        copied[start : start + ROWS_AT_ONCE] = rows[chosen[start : start + ROWS_AT_ONCE]]
    return copied


def _fit(recipe: Recipe, rows: NDArray[Any], positive: NDArray[np.bool_]) -> Any:  # noqa: ANN401
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


def probabilities(
    model: Any,  # noqa: ANN401
    rows: NDArray[np.float32],
    *,
    negatives_share: float = 1.0,
) -> NDArray[np.float64]:
    """Return P(positive) of each row by scikit-learn, (N,) float64.

    negatives_share  share of the negative rows that the model was fitted on. The odds that it
                     learnt are too high by its inverse.
    """
    with threadpool_limits(limits=1):
        learnt = np.asarray(model.predict_proba(rows)[:, 1], dtype=np.float64)
    if negatives_share == 1.0:
        return learnt
    return learnt / (learnt + (1.0 - learnt) / negatives_share)


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
    learner: Learner, seed: int, rows: NDArray[np.float64], positive: NDArray[np.bool_]
) -> Any:  # noqa: ANN401
    """Fit on standardised columns, then fold means and scales into the coefficients.

    So the ONNX graph has no scaler, whose rounding in float32 would differ. *rows* are overwritten.
    """
    mean, scale = rows.mean(axis=0), _deviations(rows)
    scale[scale == 0.0] = 1.0
    rows -= mean
    rows /= scale
    model = _unfitted(learner, seed).fit(rows, positive.astype(np.int64))
    model.coef_ = model.coef_ / scale
    model.intercept_ = model.intercept_ - model.coef_ @ mean
    return model


def _deviations(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the deviation of each column, to the bit that of `rows.std(axis=0)`, in blocks."""
    mean, squares = rows.mean(axis=0), np.zeros((0, rows.shape[1]))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        centred = rows[start : start + ROWS_AT_ONCE] - mean
        centred *= centred
        squares = np.add.reduce(np.concatenate([squares, centred]), axis=0, keepdims=True)
    return np.asarray(np.sqrt(squares[0] / len(rows)))
