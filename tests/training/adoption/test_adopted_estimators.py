"""The table of exporters, shapes, missing values and categories, with the scores of the library.

Estimators of scikit-learn are fitted, exported by skl2onnx, adapted and certified.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from skl2onnx.convert import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from tests.training.adoption.graphs import adoption, opened, sample_rows
from training.adoption.adapt_graph import adapt_graph
from training.adoption.certificate import certify_graph
from training.adoption.edge_feed import edge_feed
from training.adoption.foreign import Adaptation, Feed, ForeignModel
from training.adoption.library_certificate import certify_library
from training.errors import AdoptionError

pytestmark = pytest.mark.walk

COUNT = 600
ROWS = 2_500
"""Rows of a certificate in these tests; a user's has 10,000."""
RNG = np.random.default_rng(11)
NUMBERS = RNG.normal(size=(COUNT, 4)).astype(np.float32)
POSITIVE = (NUMBERS[:, 0] + NUMBERS[:, 1] * NUMBERS[:, 2] > 0).astype(int)
CLASSES = np.array(["loyal", "waver", "leave"])[np.digitize(NUMBERS[:, 0], [-0.5, 0.5])]
AMOUNTS = 5000.0 + 3000 * NUMBERS[:, 0] + 1000 * NUMBERS[:, 1]
WITH_NAN = np.where(RNG.random(NUMBERS.shape) < 0.1, np.float32(np.nan), NUMBERS)

Fitted = tuple[Any, bytes, Feed, str]
"""Estimator, its ONNX file, sample rows as the graph takes them, method that scores."""


def exported(model: Any, types: list[tuple[str, Any]], feed: Feed, method: str) -> Fitted:  # noqa: ANN401
    """Export a fitted estimator as skl2onnx does by default, dictionaries of classes included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = to_onnx(model, initial_types=types, target_opset={"": 21, "ai.onnx.ml": 3})
    return model, bytes(file.SerializeToString()), feed, method


def of_numbers(model: Any, target: NDArray[Any], method: str, rows: Any = NUMBERS) -> Fitted:  # noqa: ANN401
    """Fit on one matrix of float32."""
    types = [("X", FloatTensorType([None, 4]))]
    fitted = model.fit(rows, target)
    _, content, feed, _ = exported(rounded_down(fitted), types, {"X": rows}, method)
    return fitted, content, feed, method


def rounded_down(model: Any) -> Any:  # noqa: ANN401  an estimator
    """Return a copy of boosting whose thresholds are the largest float32 not above them.

    Float32 rows take the same branches, and skl2onnx then writes the thresholds as they are.
    """
    rounded = copy.deepcopy(model)
    for tree in (tree for trees in getattr(rounded, "_predictors", ()) for tree in trees):
        exact = tree.nodes["num_threshold"]
        nearest = exact.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
        tree.nodes["num_threshold"] = np.where(nearest > exact, below, nearest)
    return rounded


def of_doubles() -> Fitted:
    """Fit and export in float64, where a scaler stands before a linear model."""
    rows = NUMBERS.astype(np.float64)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, POSITIVE)
    return exported(model, [("X", DoubleTensorType([None, 4]))], {"X": rows}, "predict_proba")


def of_columns(encoder: Any, learner: Any, target: NDArray[Any]) -> Fitted:  # noqa: ANN401
    """Fit on an input a column: a number, a text, a whole number and a boolean."""
    words = np.array(["pre", "post", "biz"], object)[RNG.integers(0, 3, (COUNT, 1))]
    feed = {
        "age": NUMBERS[:, :1],
        "plan": words,
        "calls": RNG.integers(0, 90, (COUNT, 1)),
        "abroad": RNG.random((COUNT, 1)) < 0.2,
    }
    model = make_pipeline(
        ColumnTransformer([("code", encoder, [1]), ("rest", "passthrough", [0, 2, 3])]), learner
    ).fit(joined(feed), target)
    types = [
        ("age", FloatTensorType([None, 1])),
        ("plan", StringTensorType([None, 1])),
        ("calls", Int64TensorType([None, 1])),
        ("abroad", BooleanTensorType([None, 1])),
    ]
    return exported(model, types, feed, "predict_proba")


def joined(feed: Feed) -> NDArray[Any]:
    """Return the matrix that the estimator takes, of objects if there are texts."""
    parts = list(feed.values())
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part.astype(object) for part in parts], axis=1)


def with_truth(fitted: Fitted, *, missing: bool) -> tuple[ForeignModel, Adaptation]:
    """Open the file, and let scikit-learn score its sample and its edge rows."""
    estimator, content, sample, method = fitted
    model = opened(content)
    adaptation, _ = adoption(model)
    edges = edge_feed(model.onnx, sample, missing=missing)
    rows = {name: np.concatenate([part, edges[name]]) for name, part in sample.items()}
    truth = getattr(estimator, method)(joined(rows))
    return (
        replace(
            model,
            rows=rows,
            sample_rows=COUNT,
            truth={adaptation.output: truth},
            truth_by="scikit-learn",
        ),
        adaptation,
    )


boosting = {"max_iter": 12, "random_state": 0}
forest = {"n_estimators": 10, "max_depth": 6, "random_state": 0}

CASES: dict[str, tuple[Callable[[], Fitted], bool]] = {
    "forest, (B, 2) by dictionaries": (
        lambda: of_numbers(RandomForestClassifier(**forest), POSITIVE, "predict_proba"),
        False,
    ),
    "boosting, two classes, NaN": (
        lambda: of_numbers(
            HistGradientBoostingClassifier(**boosting), POSITIVE, "predict_proba", WITH_NAN
        ),
        True,
    ),
    "boosting, three classes of texts": (
        lambda: of_numbers(HistGradientBoostingClassifier(**boosting), CLASSES, "predict_proba"),
        False,
    ),
    "boosting, amounts in the thousands, NaN": (
        lambda: of_numbers(HistGradientBoostingRegressor(**boosting), AMOUNTS, "predict", WITH_NAN),
        True,
    ),
    "forest, amounts in the thousands": (
        lambda: of_numbers(RandomForestRegressor(**forest), AMOUNTS, "predict"),
        False,
    ),
    "linear, amounts in the thousands": (
        lambda: of_numbers(LinearRegression(), AMOUNTS, "predict"),
        False,
    ),
    "network, two classes": (
        lambda: of_numbers(MLPClassifier((8,), max_iter=30), POSITIVE, "predict_proba"),
        False,
    ),
    "anomaly, beside a label": (
        lambda: of_numbers(
            IsolationForest(n_estimators=10, random_state=0), POSITIVE, "decision_function"
        ),
        False,
    ),
    "float64, scaled, linear": (of_doubles, False),
    "texts one-hot, whole numbers, booleans": (
        lambda: of_columns(
            OneHotEncoder(handle_unknown="ignore"), LogisticRegression(max_iter=500), POSITIVE
        ),
        False,
    ),
    "texts as codes before boosting": (
        lambda: of_columns(
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
            HistGradientBoostingClassifier(**boosting),
            CLASSES,
        ),
        True,
    ),
}
"""Case -> what fits and exports, and whether the library takes NaN or unknown texts."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_estimators_are_adopted_with_the_scores_of_their_library(case: str) -> None:
    """Library, foreign graph and adapted graph agree, on edge rows too."""
    fit, missing = CASES[case]
    model, adaptation = with_truth(fit(), missing=missing)
    _, contract = adoption(model, reverse=True)

    library = certify_library(model, adaptation)
    assert library.sample_rows == COUNT
    assert library.difference_max <= library.tolerance.absolute * 2

    file = adapt_graph(model, adaptation, contract)
    graph = certify_graph(model, adaptation, contract, file, sample_rows(contract), count=ROWS)
    assert graph.rows >= ROWS
    assert graph.single_rows >= 64
    assert graph.company_max <= graph.tolerance.absolute * 2


def test_a_forest_that_is_given_nan_is_refused() -> None:
    """scikit-learn sends NaN another way than its graph does (sklearn-onnx#1253)."""
    fitted = of_numbers(RandomForestClassifier(**forest), POSITIVE, "predict_proba", WITH_NAN)
    model, adaptation = with_truth(fitted, missing=True)
    with pytest.raises(AdoptionError, match=r"rows score differently by scikit-learn.* has NaN"):
        certify_library(model, adaptation)


def test_a_threshold_that_the_converter_rounds_up_is_refused() -> None:
    """One edge row of a thousand shows it, and no row of the sample."""
    fitted = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(NUMBERS, CLASSES)
    types = [("X", FloatTensorType([None, 4]))]
    model, adaptation = with_truth(
        exported(fitted, types, {"X": NUMBERS}, "predict_proba"), missing=False
    )
    with pytest.raises(AdoptionError, match=r"rows score differently .*on a threshold of a tree"):
        certify_library(model, adaptation)
    sample = {name: values[:COUNT] for name, values in model.rows.items()}
    truth = {name: values[:COUNT] for name, values in model.truth.items()}
    assert certify_library(replace(model, rows=sample, truth=truth), adaptation)
