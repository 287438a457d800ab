"""Contributions of sealed versions against shap 0.51.0: the same Shapley values, and served scores.

Ours come from the version's ONNX file, as explanations of a running system do; shap's come from the
estimator that the file was made of, in the library that fitted it.
"""

import base64
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.explanation.explainer import VersionExplainer
from registry.explanation.model_form import find_form
from stats.tree_shapley import TreeExplainer
from tests.registry.explanation.test_explainer import RIDGE, TRAINED, version, with_contract
from tests.registry.explanation.versions import explainer_of, version_files
from tests.stats.oracles.oracle_environments import ask_libraries
from tests.training.learners.fits import BOOSTED, FOREST, LOGISTIC, rows_of, small_targets
from tests.training.population import ALL_COLUMNS, profile_recipe
from training.learner import Learner
from training.learners.boosters import FITS, open_booster
from training.learners.fitted import Targets, TargetTask
from training.learners.opened_learner import OpenedLearner
from training.learners.scikit import fit_estimator, fit_scikit, learner_rows

pytestmark = [pytest.mark.nightly, pytest.mark.walk, pytest.mark.timeout(2_400)]

Floats = NDArray[np.float64]

LEARNERS = {**BOOSTED, "forest": FOREST, "logistic": LOGISTIC, "ridge": RIDGE}
EXPLAINED = 40
"""Rows that are explained. Some stand on a threshold, because two columns are whole numbers."""
CASES: list[tuple[str, TargetTask]] = [
    ("boosting", "binary"),
    ("boosting", "multiclass"),
    ("boosting", "regression"),
    ("lightgbm", "binary"),
    ("lightgbm", "multiclass"),
    ("xgboost", "binary"),
    ("xgboost", "regression"),
    # shap has one output for CatBoost's several classes, and then its process ends with SIGSEGV.
    ("catboost", "binary"),
    ("forest", "binary"),
    ("forest", "regression"),
    ("logistic", "binary"),
    ("logistic", "multiclass"),
    ("ridge", "regression"),
]


@cache
def estimator(kind: str, task: TargetTask, *, missing: bool = False) -> Any:  # noqa: ANN401  the libraries have no common type
    """The estimator of `version`: the same learner, seed and rows give the same model."""
    learner = LEARNERS[kind]
    seed = profile_recipe(learner).seed
    chosen = np.arange(TRAINED)
    rows = learner_rows(learner, rows_of(missing=missing), chosen)
    targets = small_targets(task).selected(chosen)
    if kind in FITS:
        return FITS[kind](learner.parameters, seed, rows, targets)
    fit = fit_estimator if learner.kind == "sklearn" else fit_scikit
    return fit(learner, seed, rows, targets)


def pickled(model: Any) -> str:  # noqa: ANN401  see above
    """Return a model as JSON can have it."""
    return base64.b64encode(pickle.dumps(model)).decode("ascii")


def question(model: Any, explainer: VersionExplainer, rows: NDArray[np.float32]) -> dict[str, Any]:  # noqa: ANN401  see above
    """Return a question about *rows*, against the background of the version."""
    return {
        "kind": "linear" if explainer.form.trees is None else "trees",
        "model": pickled(model),
        "background": explainer.background.rows.tolist(),
        "rows": rows.tolist(),
    }


def values_of(answer: dict[str, Any]) -> tuple[Floats, Floats]:
    """Return shap's base (K,) and values (N, C, K)."""
    return np.array(answer["base"]), np.array(answer["values"])


def ours(
    explainer: VersionExplainer, rows: NDArray[np.float32], output: int = 0
) -> tuple[float, Floats]:
    """Return base and contributions (N, F), each row as a caller's question is answered."""
    names = explainer.bundle.contract.names
    found = np.zeros((len(rows), len(names)))
    base = 0.0
    for index, row in enumerate(rows):
        explained = explainer.explain(row, output)
        base = explained.base
        for item in explained.contributions:
            found[index, names.index(item.name)] = item.contribution
    return base, found


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_contributions_are_those_of_shap(kind: str, task: TargetTask) -> None:
    """Trees and linear models have the same values, by column, row and output.

    shap explains the raw score of each class, and ours that against the mean of all classes, which
    the served probabilities determine (decision 0074). Of two classes there is one margin; of a
    forest, shap has the probability of both.
    """
    explainer, rows = version(kind, task)
    rows = rows[:EXPLAINED]
    (answer,) = ask_libraries([question(estimator(kind, task), explainer, rows)])
    base, values = values_of(answer)
    if task == "multiclass":
        base, values = base - base.mean(), values - values.mean(axis=2, keepdims=True)
    elif kind == "forest" and task == "binary":
        base, values = base[1:], values[:, :, 1:]
    outputs = len(explainer.bundle.contract.outputs)
    assert len(base) == values.shape[2] == outputs
    for output in range(outputs):
        our_base, contributions = ours(explainer, rows, output)
        size = float(np.abs(values[:, :, output]).max())
        assert size > 0.01
        assert our_base == pytest.approx(base[output], rel=1e-5, abs=1e-5)
        np.testing.assert_allclose(contributions, values[:, :, output], atol=1e-5 * max(size, 1.0))


@pytest.mark.parametrize("kind", ["boosting", "lightgbm", "xgboost", "catboost"])
def test_missing_values_go_the_same_way(kind: str) -> None:
    """In explained rows and in the background."""
    explainer, rows = version(kind, "binary", missing=True)
    rows = rows[np.isnan(rows).any(axis=1)][:EXPLAINED]
    assert np.isnan(explainer.background.rows).any()
    (answer,) = ask_libraries([question(estimator(kind, "binary", missing=True), explainer, rows)])
    base, values = values_of(answer)
    our_base, contributions = ours(explainer, rows)
    assert our_base == pytest.approx(base[0], abs=1e-5)
    np.testing.assert_allclose(contributions, values[:, :, 0], atol=1e-5)


def test_shap_leaves_catboosts_constant_out_of_the_base() -> None:
    """CatBoost's regression starts at the mean of the targets, which shap does not read.

    Its values do not add up to the prediction. The contributions are the same, and ours add up.
    """
    explainer, rows = version("catboost", "regression")
    rows, model = rows[:EXPLAINED], estimator("catboost", "regression")
    (answer,) = ask_libraries([question(model, explainer, rows)])
    base, values = values_of(answer)
    our_base, contributions = ours(explainer, rows)
    predicted = model.predict(rows)
    _, constant = model.get_scale_and_bias()
    assert constant > 1_000
    assert our_base - base[0] == pytest.approx(constant, rel=1e-5)
    np.testing.assert_allclose(base[0] + values.sum(axis=(1, 2)), predicted - constant, rtol=1e-5)
    np.testing.assert_allclose(our_base + contributions.sum(axis=1), predicted, rtol=1e-5)
    np.testing.assert_allclose(
        contributions, values[:, :, 0], atol=1e-5 * float(np.abs(values).max())
    )


def test_left_out_negatives_are_in_the_base_alone() -> None:
    """The estimator learnt from half of the negatives, so shap's base is not the served score's.

    Ours has the logarithm of the share in the base, and the contributions are shap's.
    """
    explainer, rows = version("boosting", negatives_share=0.5)
    rows = rows[:EXPLAINED]
    (answer,) = ask_libraries([question(estimator("boosting", "binary"), explainer, rows)])
    base, values = values_of(answer)
    our_base, contributions = ours(explainer, rows)
    assert our_base - base[0] == pytest.approx(np.log(0.5), abs=1e-5)
    np.testing.assert_allclose(contributions, values[:, :, 0], atol=1e-5)


def test_computed_columns_are_added_up_by_input() -> None:
    """An encoder makes three columns, which shap explains, and ours explains their input.

    Ours is the sum of shap's three.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    from training.adoption.convert.pipelines import open_estimator

    # Fit, and seal the version.
    encode = OneHotEncoder(sparse_output=False)
    columns = ColumnTransformer([("code", encode, [2])], remainder="passthrough")
    learner = Learner.estimator(Pipeline([("columns", columns), ("last", LogisticRegression())]))
    rows, targets = rows_of(missing=False), small_targets("binary")
    model = fit_estimator(learner, 0, rows[:TRAINED], targets.selected(np.arange(TRAINED)))
    fitted = OpenedLearner.of(open_estimator(model, "the test"), targets, 1.0)
    graph = fitted.to_onnx(name="own", width=rows.shape[1], model_contract="c0")
    files = version_files(with_contract(graph, ALL_COLUMNS), rows[:TRAINED], ALL_COLUMNS)
    explainer, rows = explainer_of(files), rows[TRAINED : TRAINED + EXPLAINED]
    # Columns 0 to 2 are of the plan; the others follow in their order.
    (answer,) = ask_libraries([question(model, explainer, rows)])
    base, values = values_of(answer)
    assert values.shape[1] == 6
    folded = [values[:, 3, 0], values[:, 4, 0], values[:, :3, 0].sum(axis=1), values[:, 5, 0]]
    our_base, contributions = ours(explainer, rows)
    assert our_base == pytest.approx(base[0], abs=1e-5)
    np.testing.assert_allclose(contributions, np.column_stack(folded), atol=1e-5)


def test_leaves_below_many_columns_have_shaps_values() -> None:
    """Leaves below more than eight columns have no table, and are summed for each row."""
    generator = np.random.default_rng(8)
    rows = generator.normal(size=(1_000, 20)).round(1).astype(np.float32)
    values = np.tanh(rows).sum(axis=1) + rows[:, 0] * rows[:, 1]
    targets = Targets("regression", values.astype(np.float64))
    model = FITS["xgboost"]({"n_estimators": 8, "max_depth": 14}, 1, rows, targets)
    graph = OpenedLearner.of(open_booster("xgboost", model), targets, 1.0).to_onnx(
        name="own", width=20, model_contract="c0"
    )
    form = find_form(graph, 1)
    assert form.trees is not None
    background, rows = rows[:50], rows[-EXPLAINED:]
    explainer = TreeExplainer(form.trees.paths, background)
    assert len(explainer._pairs.leaf) > 1_000
    question = {"kind": "trees", "model": pickled(model)}
    (answer,) = ask_libraries(
        [question | {"background": background.tolist(), "rows": rows.tolist()}]
    )
    base, theirs = values_of(answer)
    combined = form.combined[0]
    assert explainer.base(combined) + form.shifts[0] == pytest.approx(base[0], abs=1e-4)
    np.testing.assert_allclose(explainer.contributions(rows, combined), theirs[:, :, 0], atol=1e-4)
