"""The learners that `benchmarks.micro.learners` measures, and the recipes that are refused."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import ViewUse
from features.views import Feature, View
from training.learner import Learner
from training.learners.fitted import Targets, TargetTask
from training.recipe import Recipe

CATEGORIES = 8
CLASSES = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One fit.

    missing  whether a tenth of the numbers is missing.
    """

    name: str
    task: TargetTask
    learner: Learner
    missing: bool = False


def population(rows: int, *, missing: bool) -> NDArray[np.float32]:
    """Return (rows, 8) float32: money, counts, shares, zeros, large numbers and a category."""
    random = np.random.default_rng(7)
    columns = [
        random.lognormal(3, 1, rows).round(2),
        random.integers(0, 73, rows),
        random.random(rows),
        random.normal(0, 1, rows) * (random.random(rows) < 0.5),
        random.integers(1_600_000_000, 1_700_000_000, rows),
        random.normal(1e6, 2e5, rows),
        random.integers(0, CATEGORIES, rows),
        random.random(rows) < 0.2,
    ]
    matrix = np.column_stack(columns).astype(np.float32)
    if missing:
        holes = random.random(matrix.shape) < 0.1
        holes[:, 6] = False
        matrix[holes] = np.nan
    return matrix


def targets_of(task: TargetTask, rows: NDArray[np.float32]) -> Targets:
    """Return outcomes of the rows, which depend on most columns."""
    random = np.random.default_rng(8)
    known = np.nan_to_num(rows.astype(np.float64))
    signal = (
        (np.log1p(known[:, 0]) - known[:, 1] / 30 + 2 * (known[:, 2] > 0.5) + known[:, 3])
        + 0.7 * np.isin(known[:, 6], (1, 4, 5))
        + (known[:, 5] - 1e6) / 4e5
    )
    if task == "binary":
        return Targets.binary(random.random(len(rows)) < 1 / (1 + np.exp(2.5 - signal)))
    if task == "multiclass":
        noisy = signal + random.normal(0, 1, len(rows))
        return Targets(task, np.digitize(noisy, (1.5, 3.0)).astype(np.int64), CLASSES)
    if task == "regression":
        return Targets(task, 3_000 + 700 * signal + random.normal(0, 200, len(rows)))
    return Targets("anomaly", None)


def recipe_of(case: Case) -> Recipe:
    """Return a recipe with the learner of *case*; the rest plays no part in a fit."""
    default = None if case.missing else 0.0
    features = tuple(Feature(name=f"f{index}", default=default) for index in range(8))
    view = View(
        name="measured",
        entities=("subscriber",),
        features=features,
        ttl_ms=86_400_000,
        transform="SELECT * FROM source",
    )
    names = tuple(feature.name for feature in features)
    return Recipe(
        model="measured",
        setting="measured",
        features=(ViewUse(view=view, features=names),),
        label="outcome",
        learner=case.learner,
    )


def own_network(rows: NDArray[np.float32], targets: NDArray[Any], seed: int) -> tuple[bytes, Any]:
    """Fit a small network by scikit-learn and write its graph by hand, as an author might."""
    from onnx import TensorProto, helper, numpy_helper
    from sklearn.linear_model import LogisticRegression

    # Fit on standardised columns, and fold the scaler into the weights.
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    wide = (rows.astype(np.float64) - mean) / scale
    fitted = LogisticRegression(random_state=seed).fit(wide, targets)
    weights = (fitted.coef_[0] / scale).astype(np.float64)
    bias = float(fitted.intercept_[0] - weights @ mean)

    def score(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-(rows.astype(np.float64) @ weights + bias)))

    # The graph computes in float64, as the scores above.
    constants = [
        numpy_helper.from_array(weights[:, np.newaxis], "weights"),
        numpy_helper.from_array(np.array([bias]), "bias"),
    ]
    nodes = [
        helper.make_node("Cast", ["row"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["wide", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["odds"]),
        helper.make_node("Sigmoid", ["odds"], ["p"]),
        helper.make_node("Cast", ["p"], ["probability"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [None, rows.shape[1]])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString(deterministic=True), score


def _scaled(path: str, **parameters: Any) -> Learner:  # noqa: ANN401  JSON values
    """Return a pipeline of a scaler and an estimator."""
    scaler = Learner.estimator("sklearn.preprocessing.StandardScaler")
    steps = [("scale", scaler), ("last", Learner.estimator(path, **parameters))]
    return Learner.estimator("sklearn.pipeline.Pipeline", steps=steps)


SMALL: dict[str, dict[str, Any]] = {
    "logistic": {"max_iter": 200},
    "forest": {"n_estimators": 50, "max_depth": 8},
    "boosting": {"max_iter": 100},
    "lightgbm": {"n_estimators": 100},
    "xgboost": {"n_estimators": 100, "max_depth": 6},
    "catboost": {"n_estimators": 100, "depth": 6},
}


def _learner(kind: Any, **parameters: Any) -> Learner:  # noqa: ANN401  JSON values
    return Learner(kind=kind, parameters={**SMALL[kind], **parameters})


LEARNERS = [
    Case("logistic", "binary", Learner(kind="logistic", scaling="standard")),
    Case("logistic", "multiclass", Learner(kind="logistic", scaling="standard")),
    *(
        Case(f"{kind}{', NaN' if missing else ''}", task, _learner(kind), missing)
        for kind in ("forest", "boosting", "lightgbm", "xgboost", "catboost")
        for task in ("binary", "multiclass", "regression")
        for missing in (False, True)
        if (kind, missing) != ("forest", True)
    ),
    Case("lightgbm, categories", "binary", _learner("lightgbm", categorical_feature=[6])),
    Case("xgboost, depth 7", "binary", _learner("xgboost", max_depth=7)),
    Case("sklearn: scaler, logistic", "binary", _scaled("sklearn.linear_model.LogisticRegression")),
    Case(
        "sklearn: scaler, network",
        "multiclass",
        _scaled("sklearn.neural_network.MLPClassifier", hidden_layer_sizes=[16], max_iter=50),
    ),
    Case(
        "sklearn: scaler, boosting",
        "binary",
        _scaled("sklearn.ensemble.HistGradientBoostingClassifier", early_stopping=False),
    ),
    Case("sklearn: scaler, ridge", "regression", _scaled("sklearn.linear_model.Ridge")),
    Case(
        "sklearn: extra trees",
        "regression",
        Learner.estimator("sklearn.ensemble.ExtraTreesRegressor", n_estimators=30, max_depth=8),
    ),
    Case(
        "sklearn: isolation forest",
        "anomaly",
        Learner.estimator("sklearn.ensemble.IsolationForest"),
    ),
    Case("function: own network", "binary", Learner.function(own_network)),
]

TRAPS = [
    Case("lightgbm, linear_tree=True", "regression", _learner("lightgbm", linear_tree=True)),
    Case(
        "lightgbm, boosting_type=rf",
        "binary",
        _learner("lightgbm", boosting_type="rf", bagging_freq=1, bagging_fraction=0.7),
    ),
    Case("lightgbm, boosting_type=dart", "binary", _learner("lightgbm", boosting_type="dart")),
    Case("lightgbm, zero_as_missing=True", "binary", _learner("lightgbm", zero_as_missing=True)),
    Case(
        "lightgbm, zero_as_missing=True, NaN",
        "binary",
        _learner("lightgbm", zero_as_missing=True),
        True,
    ),
    Case(
        "lightgbm, use_missing=False, NaN", "binary", _learner("lightgbm", use_missing=False), True
    ),
    Case("lightgbm, categorical_feature", "binary", _learner("lightgbm", categorical_feature=[6])),
    Case(
        "lightgbm, categorical_feature, NaN",
        "binary",
        _learner("lightgbm", categorical_feature=[6]),
        True,
    ),
    Case("lightgbm, sigmoid=2", "binary", _learner("lightgbm", sigmoid=2.0)),
    Case("lightgbm, reg_sqrt=True", "regression", _learner("lightgbm", reg_sqrt=True)),
    Case("lightgbm, objective=poisson", "regression", _learner("lightgbm", objective="poisson")),
    Case("lightgbm, objective=gamma", "regression", _learner("lightgbm", objective="gamma")),
    Case("lightgbm, objective=tweedie", "regression", _learner("lightgbm", objective="tweedie")),
    Case("lightgbm, objective=quantile", "regression", _learner("lightgbm", objective="quantile")),
    Case(
        "lightgbm, objective=multiclassova",
        "multiclass",
        _learner("lightgbm", objective="multiclassova"),
    ),
    Case(
        "lightgbm, objective=cross_entropy",
        "binary",
        _learner("lightgbm", objective="cross_entropy"),
    ),
    Case(
        "lightgbm, extra_trees, monotone",
        "binary",
        _learner("lightgbm", extra_trees=True, monotone_constraints=[1, 0, 0, 0, 0, 0, 0, 0]),
    ),
    Case("lightgbm, early_stopping_round", "binary", _learner("lightgbm", early_stopping_round=5)),
    Case("xgboost, booster=dart", "binary", _learner("xgboost", booster="dart")),
    Case(
        "xgboost, booster=gblinear",
        "binary",
        Learner(kind="xgboost", parameters={"booster": "gblinear", "n_estimators": 50}),
    ),
    Case("xgboost, base_score=.2", "binary", _learner("xgboost", base_score=0.2)),
    Case("xgboost, base_score=100", "regression", _learner("xgboost", base_score=100.0)),
    Case(
        "xgboost, num_parallel_tree=4",
        "binary",
        _learner("xgboost", num_parallel_tree=4, subsample=0.7),
    ),
    Case(
        "xgboost, objective=count:poisson",
        "regression",
        _learner("xgboost", objective="count:poisson"),
    ),
    Case("xgboost, objective=reg:gamma", "regression", _learner("xgboost", objective="reg:gamma")),
    Case(
        "xgboost, objective=reg:tweedie", "regression", _learner("xgboost", objective="reg:tweedie")
    ),
    Case(
        "xgboost, objective=reg:absoluteerror",
        "regression",
        _learner("xgboost", objective="reg:absoluteerror"),
    ),
    Case(
        "xgboost, objective=binary:hinge", "binary", _learner("xgboost", objective="binary:hinge")
    ),
    Case(
        "xgboost, objective=multi:softmax",
        "multiclass",
        _learner("xgboost", objective="multi:softmax"),
    ),
    Case(
        "xgboost, multi_output_tree",
        "multiclass",
        _learner("xgboost", multi_strategy="multi_output_tree"),
    ),
    Case(
        "xgboost, monotone",
        "binary",
        _learner("xgboost", monotone_constraints=[1, 0, 0, 0, 0, 0, 0, 0]),
    ),
    Case(
        "xgboost, grow_policy=lossguide",
        "binary",
        _learner("xgboost", grow_policy="lossguide", max_leaves=31, max_depth=0),
    ),
    Case("catboost, nan_mode=Max, NaN", "binary", _learner("catboost", nan_mode="Max"), True),
    Case(
        "catboost, nan_mode=Max, no NaN in the fit", "binary", _learner("catboost", nan_mode="Max")
    ),
    Case(
        "catboost, grow_policy=Depthwise", "binary", _learner("catboost", grow_policy="Depthwise")
    ),
    Case(
        "catboost, grow_policy=Lossguide", "binary", _learner("catboost", grow_policy="Lossguide")
    ),
    Case(
        "catboost, loss_function=MultiClassOneVsAll",
        "multiclass",
        _learner("catboost", loss_function="MultiClassOneVsAll"),
    ),
    Case(
        "catboost, loss_function=CrossEntropy",
        "binary",
        _learner("catboost", loss_function="CrossEntropy"),
    ),
    Case(
        "catboost, loss_function=Poisson",
        "regression",
        _learner("catboost", loss_function="Poisson"),
    ),
    Case(
        "catboost, loss_function=Tweedie",
        "regression",
        _learner("catboost", loss_function="Tweedie:variance_power=1.5"),
    ),
    Case("catboost, loss_function=MAE", "regression", _learner("catboost", loss_function="MAE")),
    Case(
        "catboost, boosting_type=Ordered", "binary", _learner("catboost", boosting_type="Ordered")
    ),
]
