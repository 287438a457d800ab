"""Thresholds of scikit-learn's boosted trees in float32."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor


def float32_not_above(exact: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 that is not above each value; NaN and infinities stay."""
    with np.errstate(over="ignore"):
        nearest = exact.astype(np.float32)
    above = nearest > exact
    nearest[above] = np.nextafter(nearest[above], np.float32(-np.inf))
    return nearest


def round_boosted_thresholds(model: Any) -> None:  # noqa: ANN401  scikit-learn has no common type
    """Replace each threshold of boosted trees by the largest float32 that is not above it.

    Float32 rows still take the same branches, because a split tests x <= threshold. skl2onnx 1.20
    rounds thresholds to the nearest float32, which then is the threshold itself. Without this, 12
    of the offer model's 365 thresholds were rounded up, and a price at one of them scored .13
    differently. Any other model stays as it is.
    """
    if not isinstance(model, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        return
    for tree in (tree for trees in getattr(model, "_predictors", ()) for tree in trees):
        tree.nodes["num_threshold"] = float32_not_above(tree.nodes["num_threshold"])
