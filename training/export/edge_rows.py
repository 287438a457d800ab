"""Makes edge rows of a contract, on which a library and ONNX are most likely to differ."""

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from features.views import Feature

LARGE_VALUE = np.float32(1e30)
TIME_EDGES = [[0.0, 24_855.0], [0.0, 86_399.0]]
"""Days since 1970, up to 2038, and seconds of the day."""
BASE_ROWS = 4
"""Real rows that carry the edge values."""


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
