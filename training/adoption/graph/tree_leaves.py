"""Says which values of a row lead to the leaves of a graph's trees."""

from typing import Any

import numpy as np

from training.adoption.graph.read_graph import Node, attributes_of

LEAVES_MAX = 2_000
"""Leaves of one tree operator of a foreign graph that are followed."""

Bounds = dict[int, tuple[float, float]]
"""Column of the trees -> the least and the greatest float32 on the way to a leaf."""
LEAST, GREATEST = -np.inf, np.inf
# Comparison and its side -> where values lie, beside the threshold.
UP_TO = {(b"BRANCH_LEQ", True), (b"BRANCH_GT", False)}
FROM = {(b"BRANCH_GTE", True), (b"BRANCH_LT", False)}
BELOW = {(b"BRANCH_LT", True), (b"BRANCH_GTE", False)}
ABOVE = {(b"BRANCH_GT", True), (b"BRANCH_LEQ", False)}
EQUAL = {(b"BRANCH_EQ", True), (b"BRANCH_NEQ", False)}


def leaf_bounds(node: Node, most: int = LEAVES_MAX) -> list[Bounds]:
    """Return the bounds of each leaf of a TreeEnsembleClassifier or TreeEnsembleRegressor.

    most  leaves that are followed; of more, evenly spaced ones.

    Leaves that no finite row reaches are left out, as are trees whose lists contradict each other.
    Both bounds belong to the leaf: a row at them stands on thresholds, or just above.
    """
    attributes = attributes_of(node)
    fields = ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")
    lists = [attributes.get(f"nodes_{name}", []) for name in fields]
    trees, numbers, modes, features, values, true, false = lists
    if len({len(item) for item in lists}) != 1:
        return []
    # Find the parent of each node, and on which side the node lies.
    position = {key: index for index, key in enumerate(zip(trees, numbers, strict=True))}
    parents: dict[int, tuple[int, bool]] = {}
    for index, mode in enumerate(modes):
        if mode != b"LEAF":
            for child, side in ((true[index], True), (false[index], False)):
                parents[position.get((trees[index], child), -1)] = (index, side)
    # Climb from each leaf to its root.
    leaves = [index for index, mode in enumerate(modes) if mode == b"LEAF"]
    found = []
    for picked in spread_indexes(len(leaves), most):
        bounds: Bounds | None = {}
        index, steps = leaves[picked], 0
        while bounds is not None and index in parents and steps < len(modes):
            index, side = parents[index]
            bounds = _narrowed(bounds, features[index], modes[index], values[index], side=side)
            steps += 1
        if bounds:
            found.append(bounds)
    return found


def spread_indexes(count: int, most: int) -> list[int]:
    """Return the indexes 0 to *count* - 1; of more than *most*, evenly spaced ones."""
    if count <= most:
        return list(range(count))
    indexes: list[int] = np.linspace(0, count - 1, most).astype(np.int64).tolist()
    return indexes


def value_within(bounds: tuple[float, float], usual: float, *, at_greatest: bool) -> float:
    """Return the value at one of the bounds; if it is infinite, *usual* or the other bound.

    usual  the value of a real row, which is taken if it lies within.
    """
    low, high = bounds
    first, second = (high, low) if at_greatest else (low, high)
    if np.isfinite(first):
        return first
    return usual if low <= usual <= high or not np.isfinite(second) else second


def _narrowed(
    bounds: Bounds, feature: int, mode: bytes, threshold: float, *, side: bool
) -> Bounds | None:
    """Return bounds after one more comparison on the way; None if no value is left."""
    low, high = bounds.get(feature, (LEAST, GREATEST))
    value = np.float32(threshold)
    exact = float(value)
    # What is true on one side of the comparison, as the least and the greatest value.
    least, greatest = LEAST, GREATEST
    if (mode, side) in UP_TO:
        greatest = exact
    elif (mode, side) in FROM:
        least = exact
    elif (mode, side) in BELOW:
        greatest = _next(value, LEAST)
    elif (mode, side) in ABOVE:
        least = _next(value, GREATEST)
    elif (mode, side) in EQUAL:
        least = greatest = exact
    low, high = max(low, least), min(high, greatest)
    # Trees split missing values off at infinity; no finite value lies beyond.
    reached = low <= high and low < np.inf and high > -np.inf
    return {**bounds, feature: (low, high)} if reached else None


def _next(value: np.float32, towards: float) -> float:
    """Return the next float32, which may be infinite."""
    with np.errstate(over="ignore"):
        return float(np.nextafter(value, np.float32(towards)))


def as_column_value(value: float, dtype: Any) -> Any:  # noqa: ANN401  a numpy type, and its value
    """Return a value of a leaf in the type of a column: for whole numbers the nearest."""
    if dtype.kind == "b":
        return value > 0
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return dtype.type(np.clip(np.rint(value), bounds.min, bounds.max))
    return dtype.type(np.float32(value))
