"""Says which values of a row lead to the leaves of a graph's trees."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from training.adoption.read_graph import Node, attributes_of

LEAVES_MAX = 2_000
"""Leaves of one tree operator that are followed; of more, evenly spaced ones."""

Bounds = dict[int, tuple[float, float]]
"""Column of the trees -> the least and the greatest float32 on the way to a leaf."""
LEAST, GREATEST = -np.inf, np.inf


def leaf_bounds(node: Node) -> list[Bounds]:
    """Return the bounds of each leaf of a TreeEnsembleClassifier or TreeEnsembleRegressor.

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
    for picked in spread_indexes(len(leaves), LEAVES_MAX):
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
    """Return the finite value at one of the bounds; if it is infinite, *usual* or the other bound.

    usual  the value of a real row, which is taken if it lies within.
    """
    low, high = bounds
    first, second = (high, low) if at_greatest else (low, high)
    if np.isfinite(first):
        return first
    return usual if low <= usual <= high else second


def _narrowed(
    bounds: Bounds, feature: int, mode: bytes, threshold: float, *, side: bool
) -> Bounds | None:
    """Return bounds after one more comparison on the way; None if no value is left."""
    low, high = bounds.get(feature, (LEAST, GREATEST))
    value = np.float32(threshold)
    below = float(np.nextafter(value, np.float32(-np.inf)))
    above = float(np.nextafter(value, np.float32(np.inf)))
    exact = float(value)
    # What is true on one side of the comparison, as the least and the greatest value.
    sides: Mapping[tuple[bytes, bool], tuple[float, float]] = {
        (b"BRANCH_LEQ", True): (LEAST, exact),
        (b"BRANCH_LEQ", False): (above, GREATEST),
        (b"BRANCH_LT", True): (LEAST, below),
        (b"BRANCH_LT", False): (exact, GREATEST),
        (b"BRANCH_GT", True): (above, GREATEST),
        (b"BRANCH_GT", False): (LEAST, exact),
        (b"BRANCH_GTE", True): (exact, GREATEST),
        (b"BRANCH_GTE", False): (LEAST, below),
        (b"BRANCH_EQ", True): (exact, exact),
        (b"BRANCH_NEQ", False): (exact, exact),
    }
    least, greatest = sides.get((mode, side), (LEAST, GREATEST))
    low, high = max(low, least), min(high, greatest)
    return {**bounds, feature: (low, high)} if low <= high else None


def as_column_value(value: float, dtype: Any) -> Any:  # noqa: ANN401  a numpy type, and its value
    """Return a value of a leaf in the type of a column: for whole numbers the nearest."""
    if dtype.kind == "b":
        return value > 0
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return dtype.type(np.clip(np.rint(value), bounds.min, bounds.max))
    return dtype.type(np.float32(value))
