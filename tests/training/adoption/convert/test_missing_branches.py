"""Tests of missing values in the trees of scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor

from host.onnx_runtime import onnxruntime
from training.adoption.convert.pipelines import open_estimator


def rows(missing: bool) -> NDArray[np.float32]:
    """Return 400 rows of three numbers; with *missing* a fifth of the values are NaN."""
    drawn = np.random.default_rng(3)
    numbers = drawn.normal(size=(400, 3)).astype(np.float32)
    if missing:
        numbers[drawn.random(numbers.shape) < 0.2] = np.nan
    return numbers


@pytest.mark.parametrize("fitted_with_missing", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        RandomForestRegressor(3, max_depth=4, random_state=1),
        RandomForestClassifier(3, max_depth=4, random_state=1),
        DecisionTreeRegressor(max_depth=3, random_state=1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_missing_values_go_where_scikit_learn_sends_them(
    model: RandomForestRegressor, fitted_with_missing: bool
) -> None:
    """Also in a tree that was fitted without any: to the child with more rows."""
    given = rows(fitted_with_missing)
    known = np.nan_to_num(given)
    label = known[:, 0] + known[:, 1] * known[:, 2]
    is_classifier = hasattr(model, "predict_proba")
    model.fit(given, label > 0 if is_classifier else label)
    opened = open_estimator(model, "a test")
    asked = rows(missing=True)
    expected = model.predict_proba(asked) if is_classifier else model.predict(asked)[:, np.newaxis]

    session = onnxruntime.InferenceSession(opened.onnx, providers=["CPUExecutionProvider"])
    scores = session.run([opened.output], {session.get_inputs()[0].name: asked})[0]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
