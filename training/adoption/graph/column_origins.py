"""Follows the columns of a foreign graph's inputs to its trees and its word lists.

What is found proposes dictionaries and makes edge rows. A column that cannot be followed, for
example through a scaler, is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from training.adoption.graph.read_graph import ML_DOMAIN, Model, Node, attributes_of
from training.adoption.graph.tree_leaves import LEAVES_MAX, leaf_bounds

Origin = tuple[str, int]
"""A column of the graph: its input, and the index of the column."""
Origins = tuple[Origin | None, ...]

UNCHANGED = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Imputer"}
"""Operators after which a column has the values that it had, but for missing ones."""
TREES = {"TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"}
LEAF_MODES = {b"LEAF"}


@dataclass(frozen=True, slots=True)
class FoundColumns:
    """What a graph says of the columns of its inputs.

    splits      column -> distinct thresholds of trees, rising.
    leaves      of each leaf: column -> the least and the greatest value that lead to it.
    categories  column -> the words that an encoder knows, in its order.
    """

    splits: Mapping[Origin, NDArray[np.float64]]
    leaves: tuple[Mapping[Origin, tuple[float, float]], ...]
    categories: Mapping[Origin, tuple[str, ...]]


def find_columns(
    model: Model, widths: Mapping[str, int], *, leaves_max: int = LEAVES_MAX
) -> FoundColumns:
    """Return thresholds and words of the columns.

    widths      input -> number of its columns.
    leaves_max  leaves of one tree operator that are followed; of more, evenly spaced ones.
    """
    # Every column of an input is its own origin.
    constants = constants_of(model)
    origins: dict[str, Origins] = {
        name: tuple((name, column) for column in range(width)) for name, width in widths.items()
    }
    splits: dict[Origin, set[float]] = {}
    leaves: list[Mapping[Origin, tuple[float, float]]] = []
    categories: dict[Origin, tuple[str, ...]] = {}
    # Nodes stand in the order in which they are run.
    for node in model.graph.node:
        columns = _origins_after(node, origins, constants)
        for name in node.output:
            if columns.get(name):
                origins[name] = columns[name]
        # Note what a tree or an encoder says of the columns that it reads.
        read = origins.get(node.input[0], ()) if node.input else ()
        if node.op_type in TREES and node.domain == ML_DOMAIN:
            for column, threshold in tree_splits(node):
                origin = read[column] if 0 <= column < len(read) else None
                if origin is not None:
                    splits.setdefault(origin, set()).add(threshold)
            leaves += _leaves(node, read, leaves_max)
        if node.op_type in ("LabelEncoder", "OneHotEncoder", "CategoryMapper"):
            words = _words_of(node)
            categories |= {origin: words for origin in read if origin is not None and words}
    return FoundColumns(
        splits={
            origin: np.array(sorted(values), dtype=np.float64) for origin, values in splits.items()
        },
        leaves=tuple(leaves),
        categories=categories,
    )


def _leaves(node: Node, read: Origins, most: int) -> list[Mapping[Origin, tuple[float, float]]]:
    """Return the bounds of the leaves whose columns are all known."""
    known: list[Mapping[Origin, tuple[float, float]]] = []
    for bounds in leaf_bounds(node, most):
        origins = [read[column] if 0 <= column < len(read) else None for column in bounds]
        if None not in origins:
            known.append(
                {
                    origin: limits
                    for origin, limits in zip(origins, bounds.values(), strict=True)
                    if origin is not None
                }
            )
    return known


def constants_of(model: Model) -> dict[str, Any]:
    """Return name -> array of every constant tensor of a model."""
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    for node in model.graph.node:
        if node.op_type != "Constant":
            continue
        attributes = attributes_of(node)
        if "value" in attributes:
            constants[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"])
        else:
            constants[node.output[0]] = np.array(next(iter(attributes.values()), None))
    return constants


def tree_splits(node: Node) -> list[tuple[int, float]]:
    """Return (column, threshold) of every split of a tree operator."""
    attributes = attributes_of(node)
    if node.op_type == "TreeEnsemble":
        # Version 5 lists splits without leaves.
        values = onnx.numpy_helper.to_array(attributes["nodes_splits"]).astype(np.float64)
        return list(zip(attributes["nodes_featureids"], values.tolist(), strict=False))
    if "nodes_values_as_tensor" in attributes:
        values = onnx.numpy_helper.to_array(attributes["nodes_values_as_tensor"])
    else:
        values = np.array(attributes.get("nodes_values", []), dtype=np.float32)
    return [
        (column, value)
        for mode, column, value in zip(
            attributes.get("nodes_modes", []),
            attributes.get("nodes_featureids", []),
            values.astype(np.float64).tolist(),
            strict=False,
        )
        if mode not in LEAF_MODES
    ]


def _origins_after(
    node: Node, origins: Mapping[str, Origins], constants: Mapping[str, Any]
) -> dict[str, Origins]:
    """Return output -> the columns in it, for an operator that moves columns only."""
    known = [origins.get(name, ()) for name in node.input]
    if not known or not known[0]:
        return {}
    if node.op_type in UNCHANGED:
        return {node.output[0]: known[0]}
    if node.op_type == "LabelEncoder":
        # Codes of words are other values; a tree's threshold says nothing of the word.
        return {}
    attributes = attributes_of(node)
    if node.op_type in ("Concat", "FeatureVectorizer") and all(known):
        return {node.output[0]: tuple(origin for columns in known for origin in columns)}
    picks = constants.get(node.input[1]) if len(node.input) > 1 else None
    selects = node.op_type == "ArrayFeatureExtractor" or (
        node.op_type == "Gather" and attributes.get("axis", 0) in (1, -1)
    )
    if selects and picks is not None:
        indexes = [int(index) for index in np.ravel(picks)]
        if all(-len(known[0]) <= index < len(known[0]) for index in indexes):
            return {node.output[0]: tuple(known[0][index] for index in indexes)}
    if node.op_type == "Split" and attributes.get("axis", 0) in (1, -1):
        return _split(node, known[0], attributes.get("split", picks))
    return {}


def _split(node: Node, columns: Origins, sizes: Any) -> dict[str, Origins]:  # noqa: ANN401  a list or an array
    count = len(node.output)
    if sizes is None and len(columns) % count == 0:
        sizes = [len(columns) // count] * count
    if sizes is None or sum(sizes) != len(columns):
        return {}
    ends = np.cumsum([int(size) for size in sizes]).tolist()
    firsts = [0, *ends[:-1]]
    return {
        name: columns[first:end] for name, first, end in zip(node.output, firsts, ends, strict=True)
    }


def _words_of(node: Node) -> tuple[str, ...]:
    """Return the words that an encoder knows; () if it does not read words."""
    attributes = attributes_of(node)
    for name in ("keys_strings", "cats_strings", "classes_strings"):
        if name in attributes:
            return tuple(word.decode() for word in attributes[name])
    if "keys_tensor" in attributes:
        keys = onnx.numpy_helper.to_array(attributes["keys_tensor"])
        if keys.dtype == object:
            return tuple(
                word.decode() if isinstance(word, bytes) else str(word) for word in keys.tolist()
            )
    return ()
