"""Fits the learner of a recipe on float32 rows, in one thread, from the recipe's seed."""

import numpy as np
from numpy.typing import NDArray

from training.errors import AdoptionError, ConversionError, RecipeError
from training.learner import Learner
from training.learners.boosters import FITS, open_booster
from training.learners.fitted import FittedLearner, Targets, require_every_class
from training.learners.functions import fit_function
from training.learners.opened_learner import OpenedLearner
from training.learners.scikit import FittedClassifier, fit_estimator, fit_scikit, learner_rows
from training.recipe import Recipe

SHOWN = "the recipe"


def fit_recipe(
    recipe: Recipe,
    rows: NDArray[np.float32],
    targets: Targets,
    fitted: NDArray[np.bool_] | None = None,
) -> FittedLearner:
    """Return the recipe's learner, fitted.

    rows      (N, F) float32. A model fitted on float64 would differ from its own ONNX graph,
              because that is served float32.
    targets   the outcomes of the N rows.
    fitted    (N,) bool, the rows to fit on; None takes all.

    Raises RecipeError when the library refuses the parameters or the rows, and ConversionError when
    its converter refuses the fitted model.
    """
    learner, shown = recipe.learner, f"recipe {recipe.model}/{recipe.setting}"
    # Fit on a copy of the chosen rows alone.
    chosen = np.arange(len(rows)) if fitted is None else np.flatnonzero(fitted)
    known = targets.selected(chosen)
    try:
        require_every_class(known)
        return _fitted(recipe, learner_rows(learner, rows, chosen), known)
    except AdoptionError as error:
        raise ConversionError(f"{shown}: {error}") from error
    except (ConversionError, MemoryError):
        raise
    except RecipeError as error:
        raise RecipeError(f"{shown}: {error}") from error
    except Exception as error:
        # Each library has errors of its own.
        raise RecipeError(
            f"{shown}: {_library(learner)} does not fit the learner {learner.kind!r}: {error}"
        ) from error


def _fitted(recipe: Recipe, rows: NDArray[np.float32], targets: Targets) -> FittedLearner:
    """Return the learner fitted on all of *rows*."""
    # skl2onnx and the converters of boosters take a second to import.
    learner, seed, share = recipe.learner, recipe.seed, recipe.negatives_share
    if learner.kind == "function":
        return fit_function(learner, seed, rows, targets, share)
    if learner.kind in FITS:
        model = FITS[learner.kind](learner.parameters, seed, rows, targets)
        return OpenedLearner.of(open_booster(learner.kind, model), targets, share)
    if learner.kind != "sklearn" and targets.task == "binary":
        return FittedClassifier(fit_scikit(learner, seed, rows, targets), share)
    from training.adoption.convert.pipelines import open_estimator

    fit = fit_estimator if learner.kind == "sklearn" else fit_scikit
    return OpenedLearner.of(
        open_estimator(fit(learner, seed, rows, targets), SHOWN), targets, share
    )


def _library(learner: Learner) -> str:
    names = {"lightgbm": "LightGBM", "xgboost": "XGBoost", "catboost": "CatBoost"}
    if learner.kind == "function":
        return f"the function {learner.parameters['function']}"
    return names.get(learner.kind, "scikit-learn")
