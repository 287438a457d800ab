"""Fits the recipe's scikit-learn model on float32 rows, in one thread, from the recipe's seed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with sklearn

from training.errors import RecipeError
from training.export import convert
from training.export.thresholds import round_boosted_thresholds
from training.learner import CALIBRATION_FOLDS, Learner
from training.learners.fitted import FittedLearner, Targets
from training.recipe import Recipe

ROWS_AT_ONCE = 65_536
"""Rows that are copied or centred at once."""
_CALIBRATED: Any = CalibratedClassifierCV
_CLASSES: dict[str, Any] = {
    "logistic": LogisticRegression,
    "forest": RandomForestClassifier,
    "boosting": HistGradientBoostingClassifier,
}


@dataclass(frozen=True, eq=False, slots=True)
class FittedClassifier:
    """A fitted classifier of scikit-learn with two classes.

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


def fit_recipe(
    recipe: Recipe,
    rows: NDArray[np.float32],
    targets: Targets,
    fitted: NDArray[np.bool_] | None = None,
) -> FittedLearner:
    """Return the recipe's learner, fitted.

    rows      (N, F) float32. A model fitted on float64 would differ from its own ONNX graph,
              because that is served float32.
    targets   the outcomes of the N rows.
    fitted    (N,) bool, the rows to fit on; None takes all.

    Raises RecipeError when scikit-learn refuses the parameters or the rows.
    """
    try:
        chosen = np.arange(len(rows)) if fitted is None else np.flatnonzero(fitted)
        assert targets.values is not None
        estimator = _fit(
            recipe, _learner_rows(recipe.learner, rows, chosen), targets.values[chosen]
        )
        return FittedClassifier(estimator, recipe.negatives_share)
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
