"""Tests that recipes which convert wrongly are refused with the reason."""

from dataclasses import replace

import pytest

from features.contract import ModelContract, ViewUse
from tests.training.population import ALL_COLUMNS, VIEW, profile_recipe
from training.errors import RecipeError
from training.export.lint import lint_recipe
from training.learner import Learner

NAN = ModelContract(
    entities=("subscriber",),
    views=(
        ViewUse(
            view=replace(VIEW, features=(replace(VIEW.features[1], default=None),)),
            features=("charges",),
        ),
    ),
)


@pytest.mark.parametrize(
    ("learner", "contract", "reason"),
    [
        (Learner(kind="boosting", calibration="isotonic"), ALL_COLUMNS, "sklearn-onnx#1151"),
        (Learner(kind="boosting", scaling="standard"), ALL_COLUMNS, "scaler before boosting"),
        (Learner(kind="forest", scaling="standard"), ALL_COLUMNS, "scaler before forest"),
        (Learner(kind="forest"), NAN, r"fed NaN .* \['profile:charges'\]"),
        (Learner(kind="logistic"), NAN, "takes no NaN"),
        (
            Learner(kind="boosting", parameters={"categorical_features": [2]}),
            ALL_COLUMNS,
            "sklearn-onnx#1051",
        ),
        (
            Learner(kind="boosting", parameters={"early_stopping": True}),
            ALL_COLUMNS,
            "set max_iter",
        ),
        (Learner(kind="boosting", parameters={"random_state": 1}), ALL_COLUMNS, "set Recipe.seed"),
    ],
)
def test_lint_refuses_a_recipe_that_converts_wrongly(
    learner: Learner, contract: ModelContract, reason: str
) -> None:
    """No row is read."""
    with pytest.raises(RecipeError, match=reason):
        lint_recipe(profile_recipe(learner, contract))


@pytest.mark.parametrize(
    ("learner", "contract"),
    [
        (Learner(kind="logistic", scaling="standard"), ALL_COLUMNS),
        (Learner(kind="forest", calibration="sigmoid"), ALL_COLUMNS),
        (Learner(kind="boosting"), NAN),
    ],
)
def test_lint_accepts_a_recipe_that_converts_exactly(
    learner: Learner, contract: ModelContract
) -> None:
    """Boosting is exact on NaN."""
    lint_recipe(profile_recipe(learner, contract))


def test_lint_names_every_problem_at_once() -> None:
    """The author need not run it again for each problem."""
    learner = Learner(kind="forest", calibration="isotonic", scaling="standard")
    with pytest.raises(RecipeError, match=r"refused for 3 reason\(s\)"):
        lint_recipe(profile_recipe(learner, NAN))
