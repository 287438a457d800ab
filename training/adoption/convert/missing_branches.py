"""Sends missing values down the branches that scikit-learn's trees send them.

A tree of scikit-learn knows for each node where NaN goes, also when it was fitted without any: to
the child with more rows. skl2onnx writes none of this, and then NaN always goes right.
"""

from typing import Any

import onnx
from onnx import helper
from sklearn.tree import BaseDecisionTree

from training.adoption.convert.thresholds import parts_of

TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
MISSING_GOES_LEFT = "nodes_missing_value_tracks_true"

Key = tuple[tuple[int, int, float], ...]
"""(node, column, threshold) of each split of a tree, by which it is found in the graph."""


def with_missing_branches(content: bytes, model: object) -> bytes:
    """Return the graph of *model*, which skl2onnx converted, with the branches of missing values.

    Trees that cannot be told apart and treat missing values differently stay as they are; the
    certificate then names the row.
    """
    # Two trees of one key may send missing values to different sides.
    known: dict[Key, list[int] | None] = {}
    for tree in parts_of(model):
        if isinstance(tree, BaseDecisionTree) and hasattr(tree, "tree_"):
            key, left = _tree_of_estimator(tree.tree_)
            known[key] = left if known.get(key, left) == left else None
    if not any(left and any(left) for left in known.values()):
        return content
    graph = onnx.load_model_from_string(content)
    for node in graph.graph.node:
        if node.op_type in TREES:
            _set_branches(node, known)
    return bytes(graph.SerializeToString(deterministic=True))


def _tree_of_estimator(tree: Any) -> tuple[Key, list[int]]:  # noqa: ANN401  sklearn's Tree
    splits = [node for node in range(tree.node_count) if tree.children_left[node] >= 0]
    key = tuple((node, int(tree.feature[node]), float(tree.threshold[node])) for node in splits)
    return key, [int(tree.missing_go_to_left[node]) for node in range(tree.node_count)]


def _set_branches(node: Any, known: dict[Key, list[int] | None]) -> None:  # noqa: ANN401  onnx.NodeProto
    """Set the branches of the trees in one node of the graph."""
    values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    trees: dict[int, list[int]] = {}
    for index, tree in enumerate(values["nodes_treeids"]):
        trees.setdefault(tree, []).append(index)
    branches = list(values.get(MISSING_GOES_LEFT) or [0] * len(values["nodes_treeids"]))
    for indexes in trees.values():
        # Nodes in the order of their ids, as scikit-learn numbers them.
        indexes.sort(key=lambda index: values["nodes_nodeids"][index])
        key = tuple(
            (
                values["nodes_nodeids"][index],
                values["nodes_featureids"][index],
                float(values["nodes_values"][index]),
            )
            for index in indexes
            if values["nodes_modes"][index] != b"LEAF"
        )
        left = known.get(key)
        for index in indexes if left else ():
            branches[index] = left[values["nodes_nodeids"][index]] if left else 0
    kept = [item for item in node.attribute if item.name != MISSING_GOES_LEFT]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(MISSING_GOES_LEFT, branches)])
