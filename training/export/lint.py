"""Refuses recipes whose ONNX graph is known to score differently from the learner's library.

Each rule comes from a measurement on 20,000 rows with scikit-learn 1.9, skl2onnx 1.20 and
onnxruntime 1.32. docs/training.md has the table. Learners of other libraries have rules of their
own (learner_lint).
"""

from features.contract import ModelContract
from training.errors import RecipeError
from training.export.learner_lint import SCIKIT_KINDS, LearnedTask, learner_problems
from training.on_demand import is_truth
from training.recipe import Recipe


def recipe_problems(recipe: Recipe) -> list[str]:
    """Return a sentence for each problem of *recipe*, with the reason and the way out."""
    learner = recipe.learner
    problems = []
    # Calibration and scaling.
    if learner.calibration == "isotonic" and learner.kind in SCIKIT_KINDS:
        problems.append(
            "isotonic calibration scores up to .015 differently in ONNX (sklearn-onnx#1151); "
            'use calibration="sigmoid" (1.6e-7)'
        )
    if learner.scaling != "none" and learner.kind != "logistic":
        problems.append(
            f"a scaler before {learner.kind} moves rows across split thresholds in float32 (up to "
            ".23 on real churn data); leave it out, because trees need no scaling"
        )
    # Missing values.
    missing = [name for name in nan_columns(recipe.contract) if name in recipe.learner_inputs]
    missing += [
        feature.name
        for feature, term in recipe.on_demand_terms
        if feature.default is None and not is_truth(term)
    ]
    if missing and learner.kind == "forest":
        problems.append(
            f"a forest fed NaN scores up to .78 differently in ONNX (sklearn-onnx#1253); give "
            f"{missing} a default in the view or the recipe, or use boosting"
        )
    if missing and learner.kind == "logistic":
        problems.append(
            f"logistic regression takes no NaN; give {missing} a default in the view or the recipe"
        )
    return [*problems, *learner_problems(learner, _learned_task(recipe))]


def _learned_task(recipe: Recipe) -> LearnedTask:
    """Return what the learner learns: offers are ranked by their probabilities or their worth."""
    if recipe.task != "ranking":
        return recipe.task
    worth = recipe.labels is not None and recipe.labels.kind == "number"
    return "regression" if worth else "binary"


def lint_recipe(recipe: Recipe) -> None:
    """Raise RecipeError with every problem of *recipe*; return if there is none."""
    problems = recipe_problems(recipe)
    if problems:
        raise RecipeError(
            f"recipe {recipe.model}/{recipe.setting} is refused for {len(problems)} reason(s): "
            + "; ".join(problems)
        )


def nan_columns(contract: ModelContract) -> list[str]:
    """Return the names of the columns without a default, which are NaN when missing."""
    return [
        name
        for name, default in zip(contract.names, column_defaults(contract), strict=True)
        if default is None
    ]


def column_defaults(contract: ModelContract) -> list[float | None]:
    """Return the declared default of each model input, in order. None means NaN.

    The time is always there; it begins in 1970.
    """
    stored = [use.view.features[index].default for use in contract.views for index in use.columns]
    time = [0.0, 0.0] if contract.request_time else []
    return [*stored, *(item.default for item in contract.inputs), *time]
