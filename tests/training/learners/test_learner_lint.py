"""Tests of the parameters that a recipe is refused for."""

from typing import Any

import pytest

from tests.training.learners.fits import scaled
from training.export import learner_lint
from training.export.learner_lint import learner_problems
from training.learner import Learner


def problems(kind: str, task: str = "binary", **parameters: Any) -> list[str]:  # noqa: ANN401
    """The problems of a learner with these parameters."""
    learner = Learner(kind=kind, parameters=parameters)  # type: ignore[arg-type]
    return learner_problems(learner, task)


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost", "catboost"])
@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [
        ("random_state", 3, "the seed is the recipe's"),
        ("n_jobs", 4, "a fit uses one thread"),
        ("early_stopping_rounds", 10, "set the number of trees"),
    ],
)
def test_what_changes_bytes_is_refused(
    kind: str, parameter: str, value: object, reason: str
) -> None:
    """A recipe must give the same bytes on any machine."""
    (problem,) = problems(kind, **{parameter: value})
    assert reason in problem


@pytest.mark.parametrize(
    ("kind", "parameters", "reason"),
    [
        ("lightgbm", {"linear_tree": True}, "leaves the linear models of the leaves out"),
        ("lightgbm", {"boosting_type": "rf"}, "leaves the average out"),
        ("xgboost", {"booster": "gblinear"}, "only gbtree converts"),
        ("xgboost", {"missing": 0.0}, "takes only NaN for missing"),
        ("xgboost", {"enable_categorical": True}, "no splits by categories"),
        ("catboost", {"cat_features": [1]}, "catboost#863"),
        ("catboost", {"grow_policy": "Lossguide"}, "exports symmetric trees only"),
    ],
)
def test_known_traps_of_converters_are_refused(
    kind: str, parameters: dict[str, object], reason: str
) -> None:
    """Each was measured (`python -m benchmarks.micro.learners --traps`)."""
    (problem,) = problems(kind, **parameters)
    assert reason in problem


@pytest.mark.parametrize(
    ("kind", "task", "parameters"),
    [
        ("lightgbm", "binary", {"objective": "regression"}),
        ("lightgbm", "regression", {"objective": "binary"}),
        ("xgboost", "multiclass", {"objective": "multi:softmax"}),
        ("catboost", "regression", {"loss_function": "Logloss"}),
        ("catboost", "anomaly", {}),
        ("boosting", "anomaly", {}),
        ("logistic", "regression", {}),
    ],
)
def test_an_objective_of_another_task_is_refused(
    kind: str, task: str, parameters: dict[str, object]
) -> None:
    """Its scores would not be what the task serves."""
    (problem,) = problems(kind, task, **parameters)
    assert task in problem


def test_settings_that_convert_well_pass() -> None:
    """Nothing is refused for taste."""
    assert problems("lightgbm", num_leaves=31, monotone_constraints=[1], min_child_samples=5) == []
    assert problems("lightgbm", categorical_feature=[2], use_missing=False) == []
    assert problems("xgboost", base_score=0.3, max_depth=4, subsample=0.5) == []
    assert problems("catboost", "regression", loss_function="Quantile:alpha=0.9") == []
    assert problems("lightgbm", "regression", objective="quantile", alpha=0.9) == []


def test_a_library_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence has the command."""
    monkeypatch.setattr(learner_lint, "find_spec", lambda _: None)
    (problem,) = problems("lightgbm")
    assert "pip install 'turnout[lightgbm]'" in problem


def test_calibration_of_boosters_is_refused() -> None:
    """Their scores of log loss are probabilities already."""
    learner = Learner(kind="lightgbm", calibration="sigmoid")
    (problem,) = learner_problems(learner, "binary")
    assert "declare CalibratedClassifierCV by Learner.estimator" in problem


def test_estimators_inside_pipelines_are_looked_at() -> None:
    """The class that has the problem is named."""
    boosting = "sklearn.ensemble.HistGradientBoostingClassifier"
    scaler, early = learner_problems(scaled(boosting), "binary")
    assert "StandardScaler before HistGradientBoostingClassifier moves rows" in scaler
    assert "HistGradientBoostingClassifier stops early" in early
    (problem,) = learner_problems(scaled("sklearn.linear_model.Ridge", random_state=1), "binary")
    assert "set Recipe.seed" in problem
    inner = Learner.estimator("lightgbm.LGBMClassifier", linear_tree=True)
    calibrated = Learner.estimator(
        "sklearn.calibration.CalibratedClassifierCV",
        estimator=inner,
        method="isotonic",
    )
    first, second = learner_problems(calibrated, "binary")
    assert "isotonic" in first
    assert "LGBMClassifier with linear_tree=True" in second
