"""Models of each library beside their graphs, on rows where float32 and rounding show."""

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from host.sandbox.exchange import Message, pack_message, unpack_message
from training.adoption.convert.child import answer
from training.adoption.convert.pipelines import open_estimator
from training.adoption.convert.thresholds import round_thresholds
from training.adoption.foreign_session import ForeignSession
from training.export.thresholds import float32_not_above

pytestmark = pytest.mark.walk

ROWS = 3_000
TOLERANCE = 5e-6
"""Largest difference of a score, relative to it where it is above 1; float32 has 6e-8."""

TREES = (
    *("lightgbm", "lightgbm values", "xgboost", "xgboost values", "catboost", "catboost values"),
    *("boosting", "forest", "gradient boosting"),
)
"""Learners whose trees split the columns themselves, so that there are edge rows."""

Rows = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def columns() -> Rows:
    """Three columns of numbers and two of texts; `cell` has whole numbers above 2^23."""
    drawn = np.random.default_rng(1)
    return {
        "cell": 9_000_000.0 + drawn.integers(0, 3_000, ROWS),
        "calls": drawn.integers(0, 50, ROWS).astype(np.float64),
        "trend": drawn.normal(size=ROWS).astype(np.float32).astype(np.float64),
        "plan": drawn.choice(np.array(["a", "b", "c"], dtype=object), ROWS),
        "city": drawn.choice(np.array(["x", "y"], dtype=object), ROWS),
    }


def numbers_of(columns: Rows) -> NDArray[np.float64]:
    """Return the columns of numbers, (ROWS, 3)."""
    return np.stack([columns[name] for name in ("cell", "calls", "trend")], axis=1)


def labels_of(columns: Rows, task: str) -> NDArray[Any]:
    """Return labels of a task: binary, classes or values."""
    noise = np.random.default_rng(2).normal(size=ROWS)
    risk = (columns["cell"] - 9_001_500) / 900 + columns["trend"] + noise
    if task == "binary":
        return (risk > 0).astype(np.int64)
    if task == "classes":
        return np.array(["low", "middle", "top"])[np.digitize(risk, [-0.5, 0.5])]
    return columns["trend"] * 3_000 + columns["calls"] * 10 + 1e5


def pipeline(learner: Any, *, scaled: bool = True) -> Any:  # noqa: ANN401  scikit-learn has no common type
    """Return *learner* behind scaled numbers and encoded texts."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    scale = make_pipeline(SimpleImputer(), StandardScaler()) if scaled else "passthrough"
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    transform = [("n", scale, ["cell", "calls", "trend"]), ("t", encode, ["plan", "city"])]
    return make_pipeline(ColumnTransformer(transform), learner)


def learners() -> Mapping[str, tuple[Callable[[], Any], str, bool]]:
    """Return name -> (what makes the learner, its task, whether it stands in a pipeline)."""
    import catboost
    import lightgbm as lgb
    import xgboost as xgb
    from sklearn import calibration, ensemble, linear_model
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    def cat(kind: Any) -> Callable[[], Any]:  # noqa: ANN401
        return lambda: kind(iterations=10, verbose=0, allow_writing_files=False, thread_count=1)

    # Few trees are enough: each has thresholds.
    few = {"n_estimators": 10}
    quiet = {**few, "verbose": -1, "n_jobs": 1}
    logistic = linear_model.LogisticRegression
    boosting = ensemble.HistGradientBoostingClassifier
    forest = {**few, "max_depth": 6, "random_state": 1}
    return {
        # On numbers alone.
        "lightgbm": (lambda: lgb.LGBMClassifier(**quiet), "binary", False),
        "lightgbm classes": (lambda: lgb.LGBMClassifier(**quiet), "classes", False),
        "lightgbm values": (lambda: lgb.LGBMRegressor(**quiet), "values", False),
        "xgboost": (lambda: xgb.XGBClassifier(**few), "binary", False),
        "xgboost values": (lambda: xgb.XGBRegressor(**few), "values", False),
        "catboost": (cat(catboost.CatBoostClassifier), "binary", False),
        "catboost classes": (cat(catboost.CatBoostClassifier), "classes", False),
        "catboost values": (cat(catboost.CatBoostRegressor), "values", False),
        "boosting": (lambda: boosting(max_iter=10), "binary", False),
        "boosting classes": (lambda: boosting(max_iter=5), "classes", False),
        "forest": (lambda: ensemble.RandomForestClassifier(**forest), "binary", False),
        "gradient boosting": (lambda: ensemble.GradientBoostingClassifier(**few), "binary", False),
        "polynomials": (
            lambda: make_pipeline(StandardScaler(), PolynomialFeatures(2), logistic()),
            "binary",
            False,
        ),
        # On named columns with texts, scaled.
        "pipeline, logistic": (logistic, "binary", True),
        "pipeline, ridge": (linear_model.Ridge, "values", True),
        "pipeline, forest": (lambda: ensemble.RandomForestClassifier(**forest), "binary", True),
        "pipeline, boosting": (lambda: boosting(max_iter=10), "binary", True),
        "pipeline, lightgbm": (lambda: lgb.LGBMClassifier(**quiet), "binary", True),
        "pipeline, xgboost": (lambda: xgb.XGBClassifier(**few), "binary", True),
        "pipeline, xgboost values": (lambda: xgb.XGBRegressor(**few), "values", True),
        "pipeline, calibrated": (
            lambda: calibration.CalibratedClassifierCV(logistic()),
            "binary",
            True,
        ),
        "pipeline, vote": (
            lambda: ensemble.VotingClassifier(
                [("a", logistic()), ("b", ensemble.RandomForestClassifier(**forest))],
                voting="soft",
            ),
            "binary",
            True,
        ),
    }


NAMES = (
    *("lightgbm", "lightgbm classes", "lightgbm values", "xgboost", "xgboost values"),
    *("catboost", "catboost classes", "catboost values", "boosting", "boosting classes"),
    *("forest", "gradient boosting", "polynomials", "pipeline, logistic", "pipeline, ridge"),
    *("pipeline, forest", "pipeline, boosting", "pipeline, lightgbm", "pipeline, xgboost"),
    *("pipeline, xgboost values", "pipeline, calibrated", "pipeline, vote"),
)


def opened(path: Path, sample: Rows) -> Message:
    """Return the child's answer, without a sandbox: these files are our own."""
    request = Message({"path": str(path), "shown": path.name}, sample)
    return unpack_message(answer(pack_message(request), lambda _: None))


@pytest.mark.parametrize("name", NAMES)
def test_graph_scores_as_its_library(name: str, columns: Rows, tmp_path: Path) -> None:
    """Every sample row and every edge row at a threshold is within the tolerance."""
    import pandas

    make, task, in_pipeline = learners()[name]
    numbers, labels = numbers_of(columns), labels_of(columns, task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = pipeline(make()) if in_pipeline else make()
        model.fit(pandas.DataFrame(columns) if in_pipeline else numbers, labels)
        path = tmp_path / "model.pkl"
        path.write_bytes(pickle.dumps(model))
        # Without names, the columns are called by the graph's input.
        sample = columns
        if not in_pipeline:
            (given,) = opened(path, {}).document["inputs"]
            sample = dict(zip(given[2], numbers.T, strict=True))
        message = opened(path, sample)
    assert "refused" not in message.document, message.document
    # Rows with NaN are for the certificate: forests differ there (sklearn-onnx#1253).
    prefix = "truth/"
    (output,) = [key for key in message.arrays if key.startswith(prefix)]
    truth = message.arrays[output]
    rows = {
        key.removeprefix("rows/"): part
        for key, part in message.arrays.items()
        if key.startswith("rows/")
    }
    known = ~np.any(
        [np.isnan(part).any(axis=1) for part in rows.values() if part.dtype.kind == "f"], axis=0
    )
    scores = ForeignSession(message.files["onnx"]).run(rows, output.removeprefix(prefix))
    differences = np.abs(scores - truth) / np.maximum(1, np.abs(truth))
    assert message.document["sample_rows"] == ROWS
    if name in TREES:
        assert known.sum() > ROWS
    assert differences[known].max() <= TOLERANCE


def test_every_learner_is_tried() -> None:
    """The list of names is complete."""
    assert set(NAMES) == set(learners())


def test_threshold_is_the_largest_float32_not_above() -> None:
    """A threshold between two neighbours becomes the lower one; NaN and infinities stay."""
    exact = np.array([9_000_000.75, -9_000_000.75, 0.1, 1.0, 1e300, np.inf, -np.inf, np.nan])
    rounded = float32_not_above(exact)
    assert (rounded[:4] <= exact[:4]).all()
    assert (np.nextafter(rounded[:4], np.float32(np.inf)) > exact[:4]).all()
    assert rounded[4] == np.finfo(np.float32).max
    assert rounded[5:7].tolist() == [np.inf, -np.inf]
    assert np.isnan(rounded[7])


def test_rounded_lightgbm_scores_float32_rows_as_before(columns: Rows) -> None:
    """Only doubles between two float32 values take other branches."""
    import lightgbm

    numbers, labels = numbers_of(columns), labels_of(columns, "binary")
    model = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1).fit(numbers, labels)
    before = model.predict_proba(numbers)
    text = model.booster_.model_to_string()
    round_thresholds(model, computed=False)
    assert model.booster_.model_to_string() != text
    assert (model.predict_proba(numbers) == before).all()


def test_categories_of_lightgbm_are_cut_to_whole_numbers(columns: Rows, tmp_path: Path) -> None:
    """Edge rows stand beside each category: 7.000001 is the category 7 for LightGBM."""
    import lightgbm

    numbers = numbers_of(columns)
    labels = labels_of(columns, "binary") ^ (columns["calls"] % 3 == 0)
    names = ["cell", "calls", "trend"]
    data = lightgbm.Dataset(numbers, labels, feature_name=names, categorical_feature=["calls"])
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_per_group": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        booster = lightgbm.train(settings, data, num_boost_round=5)
        booster.save_model(tmp_path / "model.txt")
        sample = dict(zip(names, numbers.T, strict=True))
        message = opened(tmp_path / "model.txt", sample)
    truth, rows = message.arrays["truth/probabilities"], message.arrays["rows/inputs"]
    assert "num_cat=0" not in booster.model_to_string()
    assert (rows[ROWS:, 1] % 1 != 0).sum() > 3
    scores = ForeignSession(message.files["onnx"]).run({"inputs": rows}, "probabilities")
    assert np.abs(scores - truth).max() < TOLERANCE


def test_columns_keep_their_names_whatever_the_graph_calls_them(columns: Rows) -> None:
    """ONNX has no blanks in names, and a column that was looked up by another name was all NaN."""
    import pandas
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    names = {"calls": "calls made", "trend": "calls_made", "plan": "Tarif €"}
    frame = pandas.DataFrame({new: columns[old] for old, new in names.items()})
    parts = (SimpleImputer(), ["calls_made", "calls made"]), (OneHotEncoder(), ["Tarif €"])
    model = make_pipeline(make_column_transformer(*parts), RandomForestClassifier(5, max_depth=4))
    model.fit(frame, labels_of(columns, "binary"))
    opened = open_estimator(model, "churn.pkl")
    assert [name for (name,) in opened.columns.values()] == list(frame)
    feed = {
        graph_input: frame[[name]].to_numpy(object if name == "Tarif €" else np.float32)
        for graph_input, (name,) in opened.columns.items()
    }
    assert opened.score is not None
    scores = ForeignSession(opened.onnx).run(feed, opened.output)
    np.testing.assert_allclose(opened.score(feed), scores, atol=TOLERANCE)
