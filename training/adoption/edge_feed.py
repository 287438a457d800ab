"""Makes rows on which a library and its graph, or two graphs, are most likely to differ."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from features.contract import ModelContract
from training.adoption.column_origins import FoundColumns, find_columns
from training.adoption.foreign import Adaptation, Feed
from training.adoption.inspect_graph import input_widths
from training.adoption.tree_leaves import as_column_value, spread_indexes, value_within
from training.export.edge_rows import base_rows, contract_edges

SPLITS_MAX = 2_000
"""Splits of the trees that get rows; each gets three."""
LEAVES_MAX = 2_000
"""Leaves of the trees that get rows; each gets two."""
EDGES_MAX = 6_000
"""Edge rows of each kind. More are thinned out evenly."""
EDGE_NUMBERS_MAX = 10_000_000
"""Numbers in the edge rows of each kind: of 5,000 columns 2,000 rows."""
CONTRACT_EDGES_WIDTH_MAX = 300
"""Columns up to which each gets the edge values of the contract in several rows."""
UNKNOWN_WORD = "\u2047 no such word"
EDGE_VALUES = (np.nan, 0.0, -0.0, 1.0, 3.4e38, -3.4e38, np.inf, -np.inf)


def edge_feed(content: bytes, sample: Feed, *, missing: bool) -> Feed:
    """Return edge rows of a foreign graph: at the thresholds of its trees, and at its words.

    Each leaf of the trees gets two rows that lead to it, on the thresholds and just above them.

    sample   input -> (N, C), N at least 1, as the graph takes them. Edge rows are sample rows with
             changed columns.
    missing  whether rows with NaN are among them, and rows with a word that the graph does not
             know. Many libraries refuse these.

    All numbers are float32 values. The result has no rows if the graph has neither.
    """
    model = onnx.load_model_from_string(content)
    found = find_columns(model, input_widths(model))
    count = len(next(iter(sample.values())))
    bases = base_rows(np.arange(count, dtype=np.float32)[:, np.newaxis]).astype(np.int64)[:, 0]
    # (input, column, value) of each edge row.
    changes: list[tuple[str, int, Any]] = []
    for (name, column), threshold in _spread(found):
        # Trees split missing values off at infinity, which libraries refuse.
        changes += [
            (name, column, value)
            for value in neighbours(threshold, sample[name].dtype).tolist()
            if np.isfinite(value)
        ]
    for (name, column), words in found.categories.items():
        if sample[name].dtype.kind in "OSU":
            changes += [(name, column, word) for word in words]
            changes += [(name, column, UNKNOWN_WORD)] if missing else []
    if missing:
        changes += [
            (name, column, np.nan)
            for name, values in sample.items()
            if values.dtype.kind == "f"
            for column in range(values.shape[1])
        ]
    # The rows for leaves come last.
    leaves = [found.leaves[index] for index in spread_indexes(len(found.leaves), LEAVES_MAX)]
    rows = bases[np.arange(len(changes) + 2 * len(leaves)) % len(bases)]
    feed = {name: values[rows].copy() for name, values in sample.items()}
    for row, (name, column, value) in enumerate(changes):
        feed[name][row, column] = value
    for row, bounds in enumerate(bound for bound in leaves for _ in range(2)):
        for (name, column), limits in bounds.items():
            cells = feed[name][:, column]
            if cells.dtype.kind in "biuf":
                cell = len(changes) + row
                value = value_within(limits, float(cells[cell]), at_greatest=row % 2 == 0)
                cells[cell] = as_column_value(value, cells.dtype)
    return feed


def neighbours(threshold: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a threshold and the values next to it: float32 values, or whole numbers."""
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        around = np.floor(np.clip(threshold, bounds.min, bounds.max)) + np.array([-1, 0, 1])
        whole: NDArray[Any] = np.clip(around, bounds.min, bounds.max).astype(dtype)
        return whole
    value = np.float32(threshold)
    below = np.nextafter(value, np.float32(-np.inf))
    above = np.nextafter(value, np.float32(np.inf))
    return np.array([value, below, above], dtype=np.float32).astype(dtype)


def adapted_rows(
    content: bytes,
    adaptation: Adaptation,
    contract: ModelContract,
    sample: NDArray[np.float32],
    *,
    count: int,
) -> NDArray[np.float32]:
    """Return at least *count* rows, (N, F), on which an adapted graph is compared.

    They are the sample, then edge rows of the contract and of the trees' thresholds and leaves,
    then rows that take each value from another of all these. The same arguments always give the
    same rows.

    sample  (S, F), S at least 1, in the contract's order.
    """
    model = onnx.load_model_from_string(content)
    found = find_columns(model, input_widths(model))
    bases = base_rows(sample)
    parts = [sample, _odd_rows(adaptation, contract, bases)]
    parts.append(_threshold_rows(found, adaptation, contract, bases))
    parts.append(_leaf_rows(found, adaptation, contract, bases))
    if contract.width <= CONTRACT_EDGES_WIDTH_MAX:
        parts.append(contract_edges(contract, bases))
    rows = np.concatenate(parts)
    # Mixed rows take each value from another row, so that many branches of the graph are seen.
    rng = np.random.default_rng(len(rows))
    drawn = rng.integers(0, len(rows), (max(0, count - len(rows)), contract.width))
    return np.concatenate([rows, rows[drawn, np.arange(contract.width)]])


def _spread(found: FoundColumns) -> list[tuple[tuple[str, int], float]]:
    """Return (column, threshold), at most SPLITS_MAX, evenly over all of them."""
    splits = [
        (origin, value) for origin, values in found.splits.items() for value in values.tolist()
    ]
    return [splits[index] for index in spread_indexes(len(splits), SPLITS_MAX)]


def _odd_rows(
    adaptation: Adaptation, contract: ModelContract, bases: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return rows with one odd value, or one position of a dictionary, in one column.

    Beside all positions there are the next ones outside, and one between two.
    """
    positions = {name: index for index, name in enumerate(contract.names)}
    changes = [(column, value) for column in range(contract.width) for value in EDGE_VALUES]
    for source in adaptation.columns:
        if source.dictionary and source.constant is None:
            values = [-1.0, 0.5, *map(float, range(len(source.dictionary) + 2))]
            changes += [(positions[source.model_input], value) for value in values]
    return _changed(bases, changes)


def _threshold_rows(
    found: FoundColumns,
    adaptation: Adaptation,
    contract: ModelContract,
    bases: NDArray[np.float32],
) -> NDArray[np.float32]:
    columns = _number_columns(adaptation, contract)
    return _changed(
        bases,
        [
            (columns[origin], value)
            for origin, threshold in _spread(found)
            if origin in columns
            for value in neighbours(threshold, np.dtype(np.float32)).tolist()
        ],
    )


def _leaf_rows(
    found: FoundColumns,
    adaptation: Adaptation,
    contract: ModelContract,
    bases: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return two rows for each leaf whose columns are numbers of the contract."""
    columns = _number_columns(adaptation, contract)
    known = [bounds for bounds in found.leaves if all(origin in columns for origin in bounds)]
    most = min(LEAVES_MAX, EDGE_NUMBERS_MAX // bases.shape[1] // 2)
    picked = [known[index] for index in spread_indexes(len(known), most) for _ in range(2)]
    rows = bases[np.arange(len(picked)) % len(bases)].copy()
    for row, bounds in enumerate(picked):
        for origin, limits in bounds.items():
            usual = float(rows[row, columns[origin]])
            rows[row, columns[origin]] = value_within(limits, usual, at_greatest=row % 2 == 0)
    return rows


def _number_columns(
    adaptation: Adaptation, contract: ModelContract
) -> Mapping[tuple[str, int], int]:
    """Return column of the graph -> column of the contract, for those that are one number."""
    positions = {name: index for index, name in enumerate(contract.names)}
    return {
        (item.foreign_input, item.column): positions[item.model_input]
        for item in adaptation.columns
        if item.model_input and not item.dictionary and item.constant is None
    }


def _changed(bases: NDArray[np.float32], changes: list[tuple[int, float]]) -> NDArray[np.float32]:
    """Return a base row for each (column, value), with that value in that column.

    At most EDGES_MAX rows and EDGE_NUMBERS_MAX numbers are returned.
    """
    most = min(EDGES_MAX, EDGE_NUMBERS_MAX // bases.shape[1])
    changes = [changes[index] for index in spread_indexes(len(changes), most)]
    rows = bases[np.arange(len(changes)) % len(bases)].copy()
    for row, (column, value) in enumerate(changes):
        rows[row, column] = value
    return rows
