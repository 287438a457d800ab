"""Reads a tree operator of an ONNX graph into the paths of its leaves, for stats.tree_shapley."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.explanation.errors import NotExplainedError
from registry.explanation.onnx_nodes import GraphNode
from stats.tree_shapley import LeafPaths

CONDITIONS_MAX = 4_000_000
"""Comparisons on the ways to all leaves. 1,000 trees of 255 leaves have some 2.5 million."""
MODES = {
    b"BRANCH_LEQ": 0,
    b"BRANCH_LT": 1,
    b"BRANCH_GTE": 2,
    b"BRANCH_GT": 3,
    b"BRANCH_EQ": 4,
    b"BRANCH_NEQ": 5,
}
"""Mode of a node in ONNX -> its position in stats.tree_shapley.COMPARISONS."""
LINKS = {b"NONE": "identity", b"LOGISTIC": "logistic", b"SOFTMAX": "softmax"}
"""Post transform of an operator -> the function behind its sums."""


@dataclass(frozen=True, eq=False, slots=True)
class SummedTrees:
    """The trees of one operator.

    paths  with a weight for each of its output columns.
    link   what the operator does to the sums: a value of LINKS.
    """

    paths: LeafPaths
    link: str


def read_trees(node: GraphNode) -> SummedTrees:
    """Return the trees of a TreeEnsembleClassifier or TreeEnsembleRegressor.

    The columns that its comparisons do not reach are unknown: LeafPaths.columns is at least as many
    as they need.

    Raises NotExplainedError for trees that are malformed, too large, or no plain sum.
    """
    fields = node.attributes
    link = LINKS.get(fields.get("post_transform", b"NONE"))
    if link is None:
        raise NotExplainedError(
            f"the trees' sum is transformed by {fields['post_transform'].decode()}, and only a "
            "logistic function or a softmax is known here"
        )
    try:
        leaves, paths = _leaf_paths(fields)
        weight, constant, link = _weights(node, leaves, link)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise NotExplainedError(f"the trees of {node.shown} contradict themselves") from error
    return SummedTrees(LeafPaths(**paths, weight=weight, constant=constant), link)


def _leaf_paths(
    fields: Mapping[str, Any],
) -> tuple[dict[tuple[int, int], int], dict[str, Any]]:
    """Return (tree, node) -> leaf, and the arguments of LeafPaths that say how rows walk."""
    # The columns of the table of nodes.
    trees, numbers = fields["nodes_treeids"].tolist(), fields["nodes_nodeids"].tolist()
    modes = fields["nodes_modes"]
    features = fields["nodes_featureids"].astype(np.int64)
    thresholds = _numbers(fields, "nodes_values")
    missing = fields.get("nodes_missing_value_tracks_true", np.zeros(len(modes), np.int64))
    if not len(trees) == len(numbers) == len(modes) == len(features) == len(thresholds):
        raise ValueError("lists of different lengths")
    position = {key: index for index, key in enumerate(zip(trees, numbers, strict=True))}
    # A child has one parent, so no walk can go round in a circle.
    inner = [index for index, mode in enumerate(modes) if mode != b"LEAF"]
    true, false = fields["nodes_truenodeids"].tolist(), fields["nodes_falsenodeids"].tolist()
    parents: dict[int, tuple[int, bool]] = {}
    for place, index in enumerate(inner):
        for child, side in ((true[index], True), (false[index], False)):
            if parents.setdefault(position[trees[index], child], (place, side)) != (place, side):
                raise ValueError("a node has two parents")
    # Climb from each leaf to its root.
    leaves = [index for index, mode in enumerate(modes) if mode == b"LEAF"]
    node: list[int] = []
    side_of: list[bool] = []
    start = [0]
    for leaf in leaves:
        climbed = leaf
        while climbed in parents:
            place, side = parents[climbed]
            node.append(place)
            side_of.append(side)
            climbed = inner[place]
            if len(node) > CONDITIONS_MAX:
                raise NotExplainedError(
                    f"its trees have more than {CONDITIONS_MAX} comparisons on the ways to their "
                    "leaves; fewer or shallower trees can be explained (max_depth, max_leaves)"
                )
        start.append(len(node))
    if features[inner].min(initial=0) < 0:
        raise ValueError("a column below 0")
    return {(trees[index], numbers[index]): at for at, index in enumerate(leaves)}, {
        "columns": int(features[inner].max(initial=0)) + 1,
        "column": features[inner],
        "threshold": thresholds[inner],
        "comparison": np.array([MODES[modes[index]] for index in inner], dtype=np.uint8),
        "missing_true": np.asarray(missing)[inner].astype(np.bool_),
        "start": np.array(start, dtype=np.int64),
        "node": np.array(node, dtype=np.int64),
        "side": np.array(side_of, dtype=np.bool_),
    }


def _weights(
    node: GraphNode, leaves: Mapping[tuple[int, int], int], link: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return the weights of leaves (L, K), the constant (K,), and what follows the sums."""
    # Which output each weight is for.
    fields = node.attributes
    classifier = node.kind == "TreeEnsembleClassifier"
    prefix = "class" if classifier else "target"
    labels = fields.get("classlabels_strings", fields.get("classlabels_int64s", ()))
    outputs = len(labels) if classifier else int(fields["n_targets"])
    ids = fields[f"{prefix}_ids"]
    weights = _numbers(fields, f"{prefix}_weights").astype(np.float64)
    keys = zip(
        fields[f"{prefix}_treeids"].tolist(), fields[f"{prefix}_nodeids"].tolist(), strict=True
    )
    rows = np.array([leaves[key] for key in keys], dtype=np.int64)
    base = _numbers(fields, "base_values") if _has(fields, "base_values") else np.zeros(1)
    base = base.astype(np.float64)
    # Two classes with the weights of one: the other column follows from it.
    if classifier and outputs == 2 and len(set(ids.tolist())) == 1:
        single = np.zeros(len(leaves))
        np.add.at(single, rows, weights)
        return _two_columns(single, float(base.sum()), link, positive=bool((weights >= 0).all()))
    table = np.zeros((len(leaves), outputs))
    np.add.at(table, (rows, ids), weights)
    aggregate = fields.get("aggregate_function", b"SUM")
    if aggregate == b"AVERAGE":
        table /= len(set(fields["nodes_treeids"].tolist()))
    elif aggregate != b"SUM":
        raise NotExplainedError(
            f"the trees are joined by {aggregate.decode()}, and contributions add up for sums only"
        )
    return table, np.broadcast_to(base, (outputs,)).copy(), link


def _two_columns(
    weight: NDArray[np.float64], base: float, link: str, *, positive: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return both classes' columns of trees with one weight a leaf, as ONNX Runtime has them.

    positive  no weight is below 0: ONNX Runtime then takes the sum s for a probability and gives
              (1 - s, s), whatever the link.
    """
    both = np.stack([-weight, weight], axis=1)
    if positive:
        return both, np.array([1.0 - base, base]), "identity"
    return both, np.array([-base, base]), link


def _has(fields: Mapping[str, Any], name: str) -> bool:
    return name in fields or f"{name}_as_tensor" in fields


def _numbers(fields: Mapping[str, Any], name: str) -> NDArray[Any]:
    """Return a list of numbers, which is a tensor where it has float64."""
    values = fields[name] if name in fields else fields[f"{name}_as_tensor"]
    return np.asarray(values).ravel()
