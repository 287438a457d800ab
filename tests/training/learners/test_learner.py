"""Tests of declared learners: what a recipe can say of estimators and functions, and what not."""

import json
import math
from typing import Any

import numpy as np
import pytest

from features.canonical import canonical_json
from tests.training.learners.own_functions import fit_mean, fit_without_truth
from tests.training.population import profile_recipe
from training.errors import RecipeError
from training.learner import Learner, estimator_of
from training.recipe import Recipe


def test_definitions_of_older_learners_stay() -> None:
    """Digests of applied recipes are made of them."""
    learner = Learner(kind="boosting", parameters={"max_iter": 3})
    assert learner.definition() == {
        "kind": "boosting",
        "parameters": {"max_iter": 3},
        "calibration": "none",
        "scaling": "none",
    }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "tree"}, "of the kind 'tree'; the kinds are logistic, forest"),
        ({"kind": "sklearn"}, "names no class; declare it by Learner.estimator"),
        ({"kind": "function"}, "names no function; declare it by Learner.function"),
    ],
)
def test_learner_names_the_contradiction(arguments: dict[str, Any], reason: str) -> None:
    """Each kind has its constructor."""
    with pytest.raises(RecipeError, match=reason):
        Learner(**arguments)


def test_function_is_said_by_its_name_and_its_file() -> None:
    """A function that is changed makes another recipe; the function itself is not compared."""
    learner = Learner.function(fit_mean, scale=2.0)
    definition = json.loads(canonical_json(learner.definition()))
    assert definition["parameters"]["function"] == "tests.training.learners.own_functions:fit_mean"
    assert len(definition["parameters"]["source_sha256"]) == 64
    assert definition["parameters"]["arguments"] == {"scale": 2.0}
    again = Learner(**definition)
    assert again == learner
    assert again.fit is None
    assert learner != Learner.function(fit_without_truth)


def test_function_with_arguments_that_it_does_not_take_is_refused() -> None:
    """The recipe says so, before rows are joined for a call that cannot be made."""
    with pytest.raises(RecipeError, match=r"fit_mean is called with .*\['hidden'\].*'hidden'"):
        Learner.function(fit_mean, hidden=3)


@pytest.mark.parametrize("function", [lambda: b"", math.sqrt, "fit"])
def test_function_that_no_file_has_is_refused(function: Any) -> None:  # noqa: ANN401  wrong on purpose
    """Training finds it by the name of its file."""
    with pytest.raises(RecipeError, match="is no function at the top of a file"):
        Learner.function(function)


@pytest.mark.walk
def test_estimator_is_said_by_class_and_parameters_that_differ() -> None:
    """The recipe's JSON makes the same estimator again, with NaN, tuples and parts inside."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    # A pipeline with parts of parts.
    pipeline = Pipeline(
        [
            (
                "columns",
                ColumnTransformer([("code", OneHotEncoder(), [2])], remainder="passthrough"),
            ),
            ("fill", SimpleImputer(missing_values=math.nan, strategy="median")),
            ("last", MLPClassifier(hidden_layer_sizes=(8, 4))),
        ]
    )
    learner = Learner.estimator(pipeline)
    definition = json.loads(canonical_json(learner.definition()))
    assert definition["parameters"]["class"] == "sklearn.pipeline.Pipeline"
    made = estimator_of(definition["parameters"])
    assert repr(made) == repr(pipeline)
    assert made.named_steps["last"].hidden_layer_sizes == (8, 4)
    # Defaults are not said, and a recipe rebuilds from its definition.
    plain = Learner.estimator(LogisticRegression(C=0.5, class_weight={0: 1, 1: 3}))
    assert plain.parameters["class"] == "sklearn.linear_model.LogisticRegression"
    assert sorted(plain.parameters["parameters"]) == ["C", "class_weight"]
    assert estimator_of(plain.parameters).class_weight == {0: 1, 1: 3}
    recipe = profile_recipe(learner)
    views = {use.view.view_hash: use.view for use in recipe.features}
    again = Recipe.from_definition(json.loads(canonical_json(recipe.definition())), views, {})
    assert again.definition() == recipe.definition()
    assert again.learner == recipe.learner


@pytest.mark.walk
def test_estimators_that_a_recipe_cannot_say_are_refused() -> None:
    """The message names the parameter and what else may be declared."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import FunctionTransformer

    with pytest.raises(RecipeError, match=r"FunctionTransformer.func is a ufunc.*Learner.function"):
        Learner.estimator(FunctionTransformer(np.log1p))
    with pytest.raises(RecipeError, match="is no estimator of sklearn, lightgbm, xgboost"):
        Learner.estimator(object())
    with pytest.raises(RecipeError, match="is no estimator of"):
        Learner.estimator(LogisticRegression)
    for path in ("os.path.join", "sklearn.base.clone", "sklearn.linear_model.Nothing"):
        with pytest.raises(RecipeError, match=path):
            estimator_of({"class": path, "parameters": {}})
