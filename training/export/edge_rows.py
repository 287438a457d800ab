"""Rows where scikit-learn and ONNX are most likely to part, from the contract and the trees."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from features.contract import ModelContract
from features.views import Feature

LARGE_VALUE = np.float32(1e30)
BASE_ROWS = 4
NEIGHBOURS_MAX = 6_000


def edge_rows(
    contract: ModelContract, rows: NDArray[np.float32], onnx_bytes: bytes
) -> NDArray[np.float32]:
    """Return (E, F) float32: contract edges, then the neighbours of the trees' thresholds.

    rows  (N, F) real rows; a few of them carry each edge value, one column changed at a time.
    """
    bases = rows[np.linspace(0, len(rows) - 1, min(BASE_ROWS, len(rows))).astype(np.int64)]
    return np.concatenate(
        [contract_edges(contract, bases), threshold_neighbours(onnx_bytes, bases)]
    )


def contract_edges(contract: ModelContract, bases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each base row with one column at each of its edge values; and one row of all defaults."""
    made = []
    defaults = np.empty(contract.width, dtype=np.float32)
    for column, values in enumerate(_edge_values(contract)):
        defaults[column] = values[0]
        changed = np.repeat(bases, len(values), axis=0)
        changed[:, column] = np.tile(np.array(values, dtype=np.float32), len(bases))
        made.append(changed)
    return np.concatenate([*made, defaults[np.newaxis]])


def threshold_neighbours(onnx_bytes: bytes, bases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows with a split column at the threshold itself, one float32 below it, and one above.

    A threshold is a float64 where it was fitted and a float32 in ONNX. Rounded the wrong way, it
    sends exactly these rows to the other branch. Empty for a model without trees.
    """
    splits = _splits(onnx_bytes)
    if len(splits) * 3 > NEIGHBOURS_MAX:  # evenly thinned, the first and the last kept
        kept = np.linspace(0, len(splits) - 1, NEIGHBOURS_MAX // 3).astype(np.int64)
        splits = [splits[index] for index in kept.tolist()]
    made = np.repeat(bases[np.arange(len(splits)) % len(bases)], 3, axis=0)
    for index, (column, threshold) in enumerate(splits):
        value = np.float32(threshold)
        made[3 * index, column] = value
        made[3 * index + 1, column] = np.nextafter(value, np.float32(-np.inf))
        made[3 * index + 2, column] = np.nextafter(value, np.float32(np.inf))
    return made


def _edge_values(contract: ModelContract) -> list[list[float]]:
    """For each column: its default first, then unknown category, bounds, or large numbers."""
    columns = []
    for use in contract.views:
        columns += [_feature_edge_values(use.view.features[place]) for place in use.columns]
    for item in contract.inputs:
        beyond = (
            [float(len(item.dictionary))]
            if item.dictionary
            else [float(LARGE_VALUE), -float(LARGE_VALUE)]
        )
        columns.append([item.default_value, *beyond])
    return columns


def _feature_edge_values(feature: Feature) -> list[float]:
    if feature.dictionary:
        return [feature.default_value, float(len(feature.dictionary))]
    if feature.bounds is not None:
        return [feature.default_value, *feature.bounds]
    return [feature.default_value, 0.0, float(LARGE_VALUE), -float(LARGE_VALUE)]


def _splits(onnx_bytes: bytes) -> list[tuple[int, float]]:
    """(column, threshold) of every distinct split in every tree of the graph, sorted."""
    found: set[tuple[int, float]] = set()
    for node in onnx.load_model_from_string(onnx_bytes).graph.node:
        if node.op_type not in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
            continue
        said: dict[str, Any] = {item.name: item for item in node.attribute}
        modes = said["nodes_modes"].strings
        columns = said["nodes_featureids"].ints
        values = said["nodes_values"].floats
        found.update(
            (column, value)
            for mode, column, value in zip(modes, columns, values, strict=True)
            if mode != b"LEAF"
        )
    return sorted(found)
