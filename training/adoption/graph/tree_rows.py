"""Makes rows on which a library and the trees of its graph are most likely to differ."""

import numpy as np
import onnx
from numpy.typing import NDArray

from training.adoption.graph.column_origins import FoundColumns, find_columns
from training.adoption.graph.tree_leaves import spread_indexes, value_within

INPUTS = "inputs"
NEIGHBOURS_MAX = 6_000
"""Most rows at thresholds of trees."""
LEAF_ROWS_MAX = 50_000
"""Most leaves that get a row; of more, evenly spaced ones."""


def threshold_neighbours(learner: bytes, bases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return three rows for each split of the trees, at most NEIGHBOURS_MAX, (3 S, F) float32.

    The split's column is at the threshold, at the next float32 below, and at the next above. Many
    libraries have float64 thresholds, and ONNX has float32. A threshold that is rounded the wrong
    way sends exactly these rows to the other branch. A model without trees has no such rows, nor
    has a column that is computed before the trees.

    learner  a graph from `inputs` (B, F).
    bases    real rows that carry the thresholds, (N, F).
    """
    found = _found(learner, bases, leaves_max=0)
    splits = [
        (column, threshold)
        for (_, column), thresholds in sorted(found.splits.items())
        for threshold in thresholds.tolist()
    ]
    # Of too many splits, evenly spaced ones are taken, with the first and the last.
    splits = [splits[index] for index in spread_indexes(len(splits), NEIGHBOURS_MAX // 3)]
    rows = np.repeat(bases[np.arange(len(splits)) % len(bases)], 3, axis=0)
    # Some libraries split missing values off at the greatest number, beside which is infinity.
    with np.errstate(over="ignore"):
        for index, (column, threshold) in enumerate(splits):
            value = np.float32(threshold)
            rows[3 * index, column] = value
            rows[3 * index + 1, column] = np.nextafter(value, np.float32(-np.inf))
            rows[3 * index + 2, column] = np.nextafter(value, np.float32(np.inf))
    return rows


def leaf_rows(learner: bytes, bases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a row for each leaf of the trees, which leads to it, at most LEAF_ROWS_MAX, (L, F).

    Every other row stands on the thresholds on its way, and the others just above. Leaves that only
    missing values reach have none. Arguments are as for `threshold_neighbours`.
    """
    leaves = _found(learner, bases, leaves_max=LEAF_ROWS_MAX).leaves
    leaves = tuple(leaves[index] for index in spread_indexes(len(leaves), LEAF_ROWS_MAX))
    rows = bases[np.arange(len(leaves)) % len(bases)]
    for row, bounds in enumerate(leaves):
        for (_, column), limits in bounds.items():
            usual = float(rows[row, column])
            rows[row, column] = value_within(limits, usual, at_greatest=row % 2 == 0)
    return rows


def _found(learner: bytes, bases: NDArray[np.float32], *, leaves_max: int) -> FoundColumns:
    model = onnx.load_model_from_string(learner)
    return find_columns(model, {INPUTS: bases.shape[1]}, leaves_max=leaves_max)
