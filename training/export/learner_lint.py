"""Refuses parameters of learners whose graph is known to score differently, or that change bytes.

Each rule comes from a measurement (`python -m benchmarks.micro.learners --traps`); docs/training.md
has the table. What is not known here is still compared on every certified row.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal

from training.errors import RecipeError
from training.learner import Learner, estimator_of

LearnedTask = Literal["binary", "multiclass", "regression", "anomaly"]
SCIKIT_KINDS = ("logistic", "forest", "boosting")
Holds = Callable[[Any], bool]
Rule = tuple[tuple[str, ...], Holds, str]
"""Names of a parameter, which values of it are refused, and why, with the way out."""

THREADS = (
    *("n_jobs", "nthread", "nthreads", "num_thread", "num_threads", "thread_count"),
    *("device", "device_type", "task_type", "devices", "gpu_id"),
)
SEEDS = (
    *("random_state", "seed", "random_seed", "data_random_seed", "bagging_seed", "extra_seed"),
    *("bagging_fraction_seed", "feature_fraction_seed", "drop_seed", "objective_seed"),
)
EARLY_STOPPING = (
    *(
        "early_stopping_rounds",
        "early_stopping_round",
        "early_stopping",
        "early_stopping_min_delta",
    ),
    *("od_type", "od_wait", "od_pval", "use_best_model", "eval_fraction"),
)
EXACT_TREES = ("HistGradientBoosting", "LGBM")
"""Trees that compare in float64, which a graph does in float32."""
COMPUTING = ("Scaler", "PCA", "PowerTransformer", "QuantileTransformer", "PolynomialFeatures")
OBJECTIVES = ("objective", "application", "app", "loss_function", "loss")
ISOLATION_FOREST = "declare IsolationForest by Learner.estimator"
BOOSTERS = {"lightgbm": "LightGBM", "xgboost": "XGBoost", "catboost": "CatBoost"}
PACKAGES = {
    "lightgbm": ("lightgbm", "onnxmltools"),
    "xgboost": ("xgboost", "onnxmltools"),
    "catboost": ("catboost",),
}
"""What each extra installs."""

TASK_OBJECTIVES: dict[str, dict[str, tuple[str, ...]]] = {
    "lightgbm": {
        "binary": ("binary",),
        "multiclass": ("multiclass", "softmax"),
        "regression": (
            *("regression", "regression_l2", "l2", "mean_squared_error", "mse", "l2_root", "rmse"),
            *("regression_l1", "l1", "mean_absolute_error", "mae", "huber", "fair", "quantile"),
            *("mape", "poisson", "gamma", "tweedie"),
        ),
    },
    "xgboost": {
        "binary": ("binary:logistic", "reg:logistic"),
        "multiclass": ("multi:softprob",),
        "regression": (
            *("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:gamma"),
            *("reg:quantileerror", "reg:tweedie", "count:poisson", "reg:squaredlogerror"),
        ),
    },
    "catboost": {
        "binary": ("Logloss", "CrossEntropy"),
        "multiclass": ("MultiClass",),
        "regression": (
            *("RMSE", "MAE", "Quantile", "Huber", "Expectile", "LogCosh", "Lq", "MAPE", "Poisson"),
            *("Tweedie", "LogLinQuantile"),
        ),
    },
}
"""Objectives whose scores are what each task serves."""


def _is_true(value: Any) -> bool:  # noqa: ANN401  any parameter
    return value in (True, 1, "true")


def _any(_value: Any) -> bool:  # noqa: ANN401  any parameter
    return True


RULES: dict[str, tuple[Rule, ...]] = {
    "lightgbm": (
        (
            ("linear_tree", "linear_trees"),
            _is_true,
            "its converter leaves the linear models of the leaves out; leave it out",
        ),
        (
            ("boosting_type", "boosting", "boost"),
            lambda value: value in ("rf", "random_forest"),
            'its converter leaves the average out; use kind="forest"',
        ),
        (
            ("zero_as_missing",),
            _is_true,
            "ONNX takes 0 for a number; give missing values as NaN (a default of None)",
        ),
        (
            ("sigmoid",),
            lambda value: value != 1.0,
            "its converter takes 1; leave it out",
        ),
        (
            ("reg_sqrt",),
            _is_true,
            "its converter leaves the square out; learn from the root of the labels instead",
        ),
    ),
    "xgboost": (
        (
            ("booster",),
            lambda value: value != "gbtree",
            "only gbtree converts to ONNX; leave it out",
        ),
        (
            ("missing",),
            lambda value: not (isinstance(value, float) and math.isnan(value)),
            "ONNX takes only NaN for missing; give the feature a default of None",
        ),
        (
            ("enable_categorical", "feature_types"),
            lambda value: value not in (False, None),
            "its converter has no splits by categories; leave it out, because trees split the "
            "view's codes well",
        ),
        (
            ("multi_strategy",),
            lambda value: value != "one_output_per_tree",
            "its converter has no leaves with several values; leave it out",
        ),
    ),
    "catboost": (
        (
            ("cat_features", "text_features", "embedding_features", "one_hot_max_size"),
            _any,
            "CatBoost does not export categories and texts to ONNX (catboost#863); leave it out, "
            "because trees split the view's codes well",
        ),
        (
            ("grow_policy",),
            lambda value: value != "SymmetricTree",
            "CatBoost exports symmetric trees only; leave it out, or use LightGBM",
        ),
        (
            ("allow_writing_files", "train_dir", "logging_level", "verbose", "silent"),
            _any,
            "a training writes no files of its own and prints nothing; leave it out",
        ),
    ),
}


def learner_problems(learner: Learner, task: LearnedTask) -> list[str]:
    """Return a sentence for each problem of a learner, with the reason and the way out."""
    if learner.kind in BOOSTERS:
        return list(_booster_problems(learner, task))
    if learner.kind == "sklearn":
        return [*_unmade(learner), *_estimator_problems(learner.parameters)]
    if learner.kind == "function":
        return list(_wrapper_problems(learner))
    return list(_scikit_problems(learner, task))


def _scikit_problems(learner: Learner, task: LearnedTask) -> Iterator[str]:
    """Yield the problems of the three kinds of scikit-learn."""
    if learner.parameters.get("categorical_features") is not None:
        yield (
            "categorical_features scores up to .98 differently in ONNX (sklearn-onnx#1051); leave "
            "it out, because trees split the view's dictionary codes well"
        )
    if "random_state" in learner.parameters:
        yield "random_state is the recipe's seed; set Recipe.seed"
    if learner.kind == "boosting" and learner.parameters.get("early_stopping", False):
        yield (
            "early_stopping holds out rows of its own, with clones of one entity on both sides; "
            "set max_iter"
        )
    if task == "anomaly":
        yield f"{learner.kind} does not learn the task 'anomaly'; {ISOLATION_FOREST}"
    if learner.kind == "logistic" and task == "regression":
        yield (
            "logistic does not learn the task 'regression'; use \"boosting\", or declare Ridge by "
            "Learner.estimator"
        )


def _unmade(learner: Learner) -> list[str]:
    """Return why the estimator of a recipe cannot be made; nothing if it can."""
    try:
        estimator_of(learner.parameters)
    except RecipeError as error:
        return [str(error)]
    return []


def _booster_problems(learner: Learner, task: LearnedTask) -> Iterator[str]:
    kind, name = learner.kind, BOOSTERS[learner.kind]
    lacking = [item for item in PACKAGES[kind] if find_spec(item) is None]
    if lacking:
        yield (
            f"the learner {kind!r} needs the package {lacking[0]}, which is not installed: pip "
            f"install 'turnout[{kind}]'"
        )
    yield from _wrapper_problems(learner)
    yield from _common_problems(learner.parameters, name)
    for names, refused, reason in RULES[kind]:
        for parameter in names:
            if parameter in learner.parameters and refused(learner.parameters[parameter]):
                yield f"{name} with {parameter}={learner.parameters[parameter]!r}: {reason}"
    # An objective says what the scores are.
    if task not in TASK_OBJECTIVES[kind]:
        yield f"{kind} does not learn the task {task!r}; {ISOLATION_FOREST}"
        return
    known = TASK_OBJECTIVES[kind][task]
    for parameter in OBJECTIVES:
        objective = learner.parameters.get(parameter)
        # CatBoost has parameters of an objective behind a colon.
        plain = str(objective).split(":")[0] if kind == "catboost" else objective
        if objective is not None and plain not in known:
            yield (
                f"{name} with {parameter}={objective!r} does not give what the task {task!r} "
                f"serves; leave it out, or use one of {', '.join(known)}"
            )


def _wrapper_problems(learner: Learner) -> Iterator[str]:
    """Yield what only learners of scikit-learn's classes have."""
    if learner.calibration != "none":
        yield (
            f"calibration={learner.calibration!r} is for logistic, forest and boosting; boosted "
            "trees that minimise log loss are calibrated already, so leave it out, or declare "
            "CalibratedClassifierCV by Learner.estimator"
        )


def _common_problems(parameters: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield parameters that would give other bytes on another day or machine."""
    for parameter, value in parameters.items():
        if parameter in SEEDS and value is not None:
            yield f"{name} with {parameter}: the seed is the recipe's; set Recipe.seed"
        if parameter in THREADS and value not in (None, "cpu", "CPU"):
            yield (
                f"{name} with {parameter}={value!r}: a fit uses one thread of the processor, so "
                "that the same recipe gives the same bytes; leave it out"
            )
        if parameter in EARLY_STOPPING and value not in (None, False):
            yield (
                f"{name} with {parameter}: early stopping holds out rows of its own, with clones "
                "of one entity on both sides; set the number of trees"
            )


def _estimator_problems(definition: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of an estimator and of all inside it."""
    name = str(definition.get("class", "")).rpartition(".")[2]
    parameters = definition.get("parameters", {})
    yield from _common_problems(parameters, name)
    # What stands before trees must leave the values as they are.
    inside = [item["class"].rpartition(".")[2] for item in _estimators_in(parameters)]
    if name == "Pipeline" and inside and inside[-1].startswith(EXACT_TREES):
        computing = [item for item in inside[:-1] if item.endswith(COMPUTING)]
        if computing:
            yield (
                f"{computing[0]} before {inside[-1]} moves rows across split thresholds in float32 "
                "(up to .04); leave it out, because trees need no scaling"
            )
    # Parameters of one class.
    if name.startswith("HistGradientBoosting"):
        if parameters.get("early_stopping", "auto") is not False:
            yield (
                f"{name} stops early above 10,000 rows, by rows of its own choice; give it "
                "early_stopping=False"
            )
        if parameters.get("categorical_features") not in (None, "from_dtype"):
            yield (
                f"{name} with categorical_features scores up to .98 differently in ONNX "
                "(sklearn-onnx#1051); leave it out"
            )
    if name == "CalibratedClassifierCV" and parameters.get("method") == "isotonic":
        yield (
            "isotonic calibration scores up to .015 differently in ONNX (sklearn-onnx#1151); use "
            'method="sigmoid"'
        )
    # LightGBM and XGBoost have the same traps inside of scikit-learn.
    library = str(definition.get("class", "")).split(".")[0]
    for names, refused, reason in RULES.get(library, ()):
        for parameter in names:
            if parameter in parameters and refused(parameters[parameter]):
                yield f"{name} with {parameter}={parameters[parameter]!r}: {reason}"
    for part in _estimators_in(parameters):
        yield from _estimator_problems(part)


def _estimators_in(value: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401  JSON values
    """Yield the definitions of estimators in a parameter, in order, without those inside them."""
    if isinstance(value, list):
        for item in value:
            yield from _estimators_in(item)
    elif isinstance(value, Mapping) and "class" in value:
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _estimators_in(item)
