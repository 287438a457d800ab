"""Edge rows stand exactly where scikit-learn and ONNX could part."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.tiny_models import linear_model
from tests.training.population import ALL_COLUMNS, profile_matrix
from training.export.edge_rows import NEIGHBOURS_MAX, contract_edges, threshold_neighbours


def trees(splits: list[tuple[int, float]]) -> bytes:
    """ONNX bytes of one stump a (column, threshold)."""
    count = len(splits)
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["inputs"],
        ["scores"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[tree for tree in range(count) for _ in range(3)],
        nodes_nodeids=[0, 1, 2] * count,
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * count,
        nodes_featureids=[place for column, _ in splits for place in (column, 0, 0)],
        nodes_values=[value for _, threshold in splits for value in (threshold, 0.0, 0.0)],
        nodes_truenodeids=[1, 0, 0] * count,
        nodes_falsenodeids=[2, 0, 0] * count,
    )
    graph = helper.make_graph(
        [node],
        "stumps",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1])],
    )
    return bytes(helper.make_model(graph).SerializeToString())


def test_a_split_is_tried_at_its_threshold_and_one_float32_to_either_side() -> None:
    """Its column alone is changed; leaves and repeated splits make no rows."""
    rows = threshold_neighbours(trees([(1, 70.35), (1, 70.35)]), profile_matrix()[:1])
    at = np.float32(70.35)
    expected = [at, np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(99))]
    assert rows[:, 1].tolist() == [float(value) for value in expected]
    assert np.delete(rows, 1, axis=1).tolist() == [np.delete(profile_matrix()[0], 1).tolist()] * 3


def test_many_splits_are_thinned_evenly() -> None:
    """10,000 thresholds: 2,000 of them, the lowest and the highest among them."""
    rows = threshold_neighbours(trees([(0, float(n)) for n in range(10_000)]), profile_matrix()[:4])
    assert len(rows) == NEIGHBOURS_MAX
    assert (rows[0, 0], rows[-3, 0]) == (0.0, 9_999.0)


def test_a_model_without_trees_has_no_thresholds() -> None:
    """And the rows made of them are none, not a fault."""
    assert threshold_neighbours(linear_model(4), profile_matrix()[:4]).shape == (0, 4)


def test_every_default_unknown_category_and_bound_is_tried() -> None:
    """A base row with one column at a time at its edge, and a row that is missing whole."""
    edges = contract_edges(ALL_COLUMNS, profile_matrix()[:2])
    tenure, charges, plan, _ = edges.T
    assert {29.0, 0.0, 72.0} <= set(tenure.tolist())
    assert {np.float32(1e30), np.float32(-1e30), np.float32(70.35)} <= set(charges)
    assert 3.0 in plan
    assert edges[-1].tolist() == pytest.approx([29.0, 70.35, 0.0, 0.0])
