"""Makes edge rows, on which scikit-learn and ONNX are most likely to differ."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from features.contract import ModelContract
from features.views import Feature

LARGE_VALUE = np.float32(1e30)
TIME_EDGES = [[0.0, 24_855.0], [0.0, 86_399.0]]
"""Days since 1970, up to 2038, and seconds of the day."""
BASE_ROWS = 4
"""Real rows that carry the edge values."""
NEIGHBOURS_MAX = 6_000
"""Most rows at thresholds of trees."""


def base_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a few of *rows* (N, F), evenly spaced, to carry edge values."""
    return rows[np.linspace(0, len(rows) - 1, min(BASE_ROWS, len(rows))).astype(np.int64)]


def contract_edges(contract: ModelContract, bases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each base row with one column at each edge value, and one row of all defaults."""
    changed_rows = []
    defaults = np.empty(contract.width, dtype=np.float32)
    for column, values in enumerate(_edge_values(contract)):
        defaults[column] = values[0]
        changed = np.repeat(bases, len(values), axis=0)
        changed[:, column] = np.tile(np.array(values, dtype=np.float32), len(bases))
        changed_rows.append(changed)
    return np.concatenate([*changed_rows, defaults[np.newaxis]])


def threshold_neighbours(onnx_bytes: bytes, bases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return three rows for each split of the trees, at most NEIGHBOURS_MAX, (3 S, F) float32.

    The split's column is at the threshold, at the next float32 below, and at the next above.
    scikit-learn has float64 thresholds and ONNX has float32. A threshold that is rounded the wrong
    way sends exactly these rows to the other branch. A model without trees has no such rows.
    """
    splits = _distinct_splits(onnx_bytes)
    # Of too many splits, evenly spaced ones are taken, with the first and the last.
    if len(splits) * 3 > NEIGHBOURS_MAX:
        sample = np.linspace(0, len(splits) - 1, NEIGHBOURS_MAX // 3).astype(np.int64)
        splits = [splits[index] for index in sample.tolist()]
    rows = np.repeat(bases[np.arange(len(splits)) % len(bases)], 3, axis=0)
    for index, (column, threshold) in enumerate(splits):
        value = np.float32(threshold)
        rows[3 * index, column] = value
        rows[3 * index + 1, column] = np.nextafter(value, np.float32(-np.inf))
        rows[3 * index + 2, column] = np.nextafter(value, np.float32(np.inf))
    return rows


def _edge_values(contract: ModelContract) -> list[list[float]]:
    """Return the edge values of each column: the default first, then unknown code, or bounds."""
    columns = []
    for use in contract.views:
        columns += [_feature_edge_values(use.view.features[index]) for index in use.columns]
    for item in contract.inputs:
        beyond = (
            [float(len(item.dictionary))]
            if item.dictionary
            else [float(LARGE_VALUE), -float(LARGE_VALUE)]
        )
        columns.append([item.default_value, *beyond])
    return columns + (TIME_EDGES if contract.request_time else [])


def _feature_edge_values(feature: Feature) -> list[float]:
    if feature.dictionary:
        return [feature.default_value, float(len(feature.dictionary))]
    if feature.bounds is not None:
        return [feature.default_value, *feature.bounds]
    return [feature.default_value, 0.0, float(LARGE_VALUE), -float(LARGE_VALUE)]


def _distinct_splits(onnx_bytes: bytes) -> list[tuple[int, float]]:
    """Return (column, threshold) of every distinct split in the graph's trees, sorted."""
    splits: set[tuple[int, float]] = set()
    for node in onnx.load_model_from_string(onnx_bytes).graph.node:
        if node.op_type not in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
            continue
        attributes: dict[str, Any] = {item.name: item for item in node.attribute}
        modes = attributes["nodes_modes"].strings
        columns = attributes["nodes_featureids"].ints
        values = attributes["nodes_values"].floats
        splits.update(
            (column, value)
            for mode, column, value in zip(modes, columns, values, strict=True)
            if mode != b"LEAF"
        )
    return sorted(splits)
