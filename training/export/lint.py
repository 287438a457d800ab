"""Refuse recipes that are known to score differently in ONNX than where they were fitted.

Each rule was found by measurement (20,000 rows, scikit-learn 1.9, skl2onnx 1.20, onnxruntime
1.32); docs/training.md has the table.
"""

from features.contract import ModelContract
from training.errors import RecipeError
from training.recipe import Recipe


def recipe_problems(recipe: Recipe) -> list[str]:
    """Return what is wrong with *recipe*, one sentence each with the reason; [] when nothing."""
    learner = recipe.learner
    found = []
    if learner.calibration == "isotonic":
        found.append(
            "isotonic calibration scores up to .015 differently in ONNX (sklearn-onnx#1151); "
            'use calibration="sigmoid" (1.6e-7)'
        )
    if learner.scaling != "none" and learner.kind != "logistic":
        found.append(
            f"a scaler before {learner.kind} moves rows across split thresholds in float32 (up to "
            ".23 on real churn data); trees need no scaling: leave it out"
        )
    missing = nan_columns(recipe.contract)
    if missing and learner.kind == "forest":
        found.append(
            f"a forest fed NaN scores up to .78 differently in ONNX (sklearn-onnx#1253); give "
            f"{missing} a default in the view, or use boosting"
        )
    if missing and learner.kind == "logistic":
        found.append(f"logistic regression takes no NaN; give {missing} a default in the view")
    if learner.parameters.get("categorical_features") is not None:
        found.append(
            "categorical_features scores up to .98 differently in ONNX (sklearn-onnx#1051); the "
            "view's dictionary codes are numbers that trees split well: leave it out"
        )
    if "random_state" in learner.parameters:
        found.append("random_state is the recipe's seed; set Recipe.seed")
    if learner.kind == "boosting" and learner.parameters.get("early_stopping", False):
        found.append(
            "early_stopping holds out rows of its own, clones of one entity on both sides; set "
            "max_iter"
        )
    return found


def lint_recipe(recipe: Recipe) -> None:
    """Raise RecipeError naming every finding; return when there is none."""
    found = recipe_problems(recipe)
    if found:
        raise RecipeError(
            f"recipe {recipe.model}/{recipe.setting} is refused for {len(found)} reason(s): "
            + "; ".join(found)
        )


def nan_columns(contract: ModelContract) -> list[str]:
    """Names of the columns whose default is None: the model sees NaN there."""
    return [
        name
        for name, default in zip(contract.names, column_defaults(contract), strict=True)
        if default is None
    ]


def column_defaults(contract: ModelContract) -> list[float | None]:
    """Each column's declared default, in the order the model sees them; None: NaN."""
    stored = [use.view.features[place].default for use in contract.views for place in use.columns]
    return [*stored, *(item.default for item in contract.inputs)]
