"""Rounds the thresholds of trees to float32 so that float32 rows take the same branches.

LightGBM and scikit-learn have double thresholds and test x <= threshold. Their converters round a
threshold to the nearest float32, half of them up, and then a row exactly there takes the other
branch. The largest float32 that is not above the threshold separates float32 rows as the threshold
does. XGBoost's and CatBoost's thresholds are float32 already.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.tree import BaseDecisionTree

from training.export.thresholds import float32_not_above, round_boosted_thresholds

OBJECTS_MAX = 200_000
"""Objects of one model that are looked at for trees."""
LIGHTGBM_ZERO = np.float32(1e-35)
"""kZeroThreshold of LightGBM."""
THRESHOLDS = "threshold="
"""Begins the line with the thresholds of a tree in LightGBM's text."""


def round_thresholds(model: object, *, computed: bool) -> None:
    """Round the thresholds of every tree in *model*, which is changed.

    computed  whether the trees are given values that were computed in float64, not rows. Such a
              value is rounded to the nearest float32, and so must be the thresholds of
              HistGradientBoosting, which often are values of rows; the converter does that.
    """
    # Only a model that uses LightGBM has loaded it.
    lightgbm: Any = sys.modules.get("lightgbm")
    for part in parts_of(model):
        if isinstance(part, BaseDecisionTree) and hasattr(part, "tree_"):
            # The property is a view of the tree's nodes.
            part.tree_.threshold[:] = float32_not_above(part.tree_.threshold)
        elif lightgbm and isinstance(part, lightgbm.LGBMModel) and part.__sklearn_is_fitted__():
            part._Booster = rounded_booster(part.booster_)
        elif not computed:
            round_boosted_thresholds(part)


def rounded_booster(booster: Any) -> Any:  # noqa: ANN401  lightgbm has no types
    """Return *booster* with rounded thresholds.

    LightGBM takes every value up to LIGHTGBM_ZERO for 0, so a row at the threshold below 0 goes to
    the right of it. The next float32 below sends it there.
    """
    lines = booster.model_to_string().split("\n")
    for index, line in enumerate(lines):
        if line.startswith(THRESHOLDS):
            exact = np.array(line.removeprefix(THRESHOLDS).split(), dtype=np.float64)
            rounded = float32_not_above(exact)
            rounded[rounded == -LIGHTGBM_ZERO] = np.nextafter(-LIGHTGBM_ZERO, np.float32(-1))
            lines[index] = THRESHOLDS + " ".join(repr(float(value)) for value in rounded)
    # The sizes of the trees in bytes are no longer true, and without them the text is read in turn.
    text = "\n".join(line for line in lines if not line.startswith("tree_sizes="))
    return type(booster)(model_str=text)


def parts_of(model: object) -> Iterator[object]:
    """Yield *model* and every estimator inside it: steps, folds, members, wrapped models."""
    pending: list[Any] = [model]
    seen: set[int] = set()
    while pending and len(seen) < OBJECTS_MAX:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            pending += part.values()
        elif isinstance(part, list | tuple) or (
            isinstance(part, np.ndarray) and part.dtype == object
        ):
            pending += list(part.ravel() if isinstance(part, np.ndarray) else part)
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            yield part
            pending += vars(part).values()
