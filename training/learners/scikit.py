"""Fits scikit-learn: three kinds that a recipe names, and estimators that its author declares."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with sklearn

from training.errors import RecipeError
from training.export import convert
from training.export.thresholds import round_boosted_thresholds
from training.learner import CALIBRATION_FOLDS, Learner, estimator_of
from training.learners.fitted import Targets

ROWS_AT_ONCE = 65_536
"""Rows that are copied or centred at once."""
_CALIBRATED: Any = CalibratedClassifierCV
_CLASSIFIERS: dict[str, Any] = {
    "logistic": LogisticRegression,
    "forest": RandomForestClassifier,
    "boosting": HistGradientBoostingClassifier,
}
_REGRESSORS: dict[str, Any] = {
    "forest": RandomForestRegressor,
    "boosting": HistGradientBoostingRegressor,
}


@dataclass(frozen=True, eq=False, slots=True)
class FittedClassifier:
    """A fitted classifier of scikit-learn with two classes (FittedLearner).

    estimator        it knows the rows that it was fitted on only.
    negatives_share  share of the negative rows among these. The odds that the estimator learnt are
                     too high by its inverse.
    """

    estimator: Any
    negatives_share: float = 1.0

    @property
    def truth_by(self) -> str:
        """scikit-learn and its version."""
        return f"scikit-learn {sklearn.__version__}"

    def outputs(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return P(positive) of *rows* (N, F), as (N, 1)."""
        with threadpool_limits(limits=1):
            learnt = np.asarray(self.estimator.predict_proba(rows)[:, 1:], dtype=np.float64)
        if self.negatives_share == 1.0:
            return learnt
        return learnt / (learnt + (1.0 - learnt) / self.negatives_share)

    def to_onnx(self, *, name: str, width: int, model_contract: str) -> bytes:
        """Return the graph, as FittedLearner says."""
        return convert.convert_to_onnx(
            self.estimator,
            name=name,
            width=width,
            model_contract=model_contract,
            negatives_share=self.negatives_share,
        )


def learner_rows(
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


def fit_scikit(learner: Learner, seed: int, rows: NDArray[Any], targets: Targets) -> Any:  # noqa: ANN401  scikit-learn has no common type
    """Return the fitted estimator of a learner of the kinds "logistic", "forest" and "boosting".

    rows  (N, F) as `learner_rows` gives them. They may be overwritten.
    """
    assert targets.values is not None
    values = targets.values
    values = values if targets.task == "regression" else values.astype(np.int64)
    # One thread: sums in OpenMP and BLAS depend on the number of threads, and the same recipe must
    # give the same bytes.
    with threadpool_limits(limits=1):
        if learner.scaling == "standard":
            return _fit_scaled(learner, seed, rows, values)
        model = _unfitted(learner, seed, _REGRESSORS if targets.task == "regression" else None)
        if learner.calibration == "sigmoid":
            model = _CALIBRATED(model, method="sigmoid", cv=CALIBRATION_FOLDS)
        fitted = model.fit(rows, values)
    _round_thresholds(fitted)
    return fitted


def fit_estimator(learner: Learner, seed: int, rows: NDArray[np.float32], targets: Targets) -> Any:  # noqa: ANN401  scikit-learn has no common type
    """Return the fitted estimator of a learner of the kind "sklearn".

    Every part of it gets the recipe's seed and one thread. Raises RecipeError.
    """
    from sklearn.base import is_classifier, is_outlier_detector, is_regressor

    # The estimator must learn what the task serves.
    estimator = estimator_of(learner.parameters)
    is_fit: Any = {
        "regression": is_regressor,
        "anomaly": is_outlier_detector,
    }.get(targets.task, is_classifier)
    if not is_fit(estimator):
        raise RecipeError(
            f"{type(estimator).__name__} does not learn the task {targets.task!r}: a "
            "classifier learns binary and multiclass, a regressor regression, and IsolationForest "
            "anomaly"
        )
    # Every part gets the recipe's seed.
    parts = estimator.get_params(deep=True)
    seeds = {name: seed for name in parts if name.split("__")[-1] == "random_state"}
    # scikit-learn uses one thread unless it is told otherwise; the other libraries use all.
    threads = {
        f"{name}__n_jobs".removeprefix("__"): 1
        for name, part in {"": estimator, **parts}.items()
        if type(part).__module__.startswith(("lightgbm", "xgboost"))
    }
    estimator.set_params(**seeds, **threads)
    values = targets.values
    if values is not None and targets.task != "regression":
        values = values.astype(np.int64)
    with threadpool_limits(limits=1):
        return estimator.fit(rows) if values is None else estimator.fit(rows, values)


def _unfitted(learner: Learner, seed: int, classes: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
    parameters = dict(learner.parameters)
    if learner.kind == "boosting":
        parameters.setdefault("early_stopping", False)
    return (classes or _CLASSIFIERS)[learner.kind](**parameters, random_state=seed)


def _round_thresholds(model: Any) -> None:  # noqa: ANN401
    """Round thresholds of boosted trees, also inside of a calibrated model."""
    folds = getattr(model, "calibrated_classifiers_", None)
    for estimator in [model] if folds is None else [fold.estimator for fold in folds]:
        round_boosted_thresholds(estimator)


def _fit_scaled(
    learner: Learner, seed: int, rows: NDArray[np.float64], values: NDArray[np.int64]
) -> Any:  # noqa: ANN401
    """Fit on standardised columns, then fold means and scales into the coefficients.

    So the ONNX graph has no scaler, whose rounding in float32 would differ. *rows* are overwritten.
    """
    mean, scale = rows.mean(axis=0), _deviations(rows)
    scale[scale == 0.0] = 1.0
    rows -= mean
    rows /= scale
    model = _unfitted(learner, seed).fit(rows, values)
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
