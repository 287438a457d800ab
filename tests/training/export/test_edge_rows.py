"""Tests of the edge rows."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.tiny_models import linear_model
from tests.training.population import ALL_COLUMNS, profile_matrix
from training.adoption.graph.tree_rows import NEIGHBOURS_MAX, threshold_neighbours
from training.export.edge_rows import contract_edges


def stumps(splits: list[tuple[int, float]]) -> bytes:
    """ONNX bytes with one stump for each (column, threshold)."""
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
        nodes_featureids=[column_index for column, _ in splits for column_index in (column, 0, 0)],
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


def test_edge_rows_are_at_a_threshold_and_one_float32_beside_it() -> None:
    """Only the split's column changes. Leaves and repeated splits give no rows."""
    rows = threshold_neighbours(stumps([(1, 70.35), (1, 70.35)]), profile_matrix()[:1])
    at = np.float32(70.35)
    expected = [at, np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(99))]
    assert rows[:, 1].tolist() == [float(value) for value in expected]
    assert np.delete(rows, 1, axis=1).tolist() == [np.delete(profile_matrix()[0], 1).tolist()] * 3


def test_edge_rows_of_many_splits_are_thinned_evenly() -> None:
    """2,000 of 10,000 thresholds are taken, with the lowest and the highest."""
    rows = threshold_neighbours(
        stumps([(0, float(n)) for n in range(10_000)]), profile_matrix()[:4]
    )
    assert len(rows) == NEIGHBOURS_MAX
    assert (rows[0, 0], rows[-3, 0]) == (0.0, 9_999.0)


def test_edge_rows_of_a_model_without_trees_are_empty() -> None:
    """The result has no rows, and is no error."""
    assert threshold_neighbours(linear_model(4), profile_matrix()[:4]).shape == (0, 4)


def test_edge_rows_have_every_default_unknown_code_and_bound() -> None:
    """One column at a time is changed, and one row has all defaults."""
    edges = contract_edges(ALL_COLUMNS, profile_matrix()[:2])
    tenure, charges, plan, _ = edges.T
    assert {29.0, 0.0, 72.0} <= set(tenure.tolist())
    assert {np.float32(1e30), np.float32(-1e30), np.float32(70.35)} <= set(charges)
    assert 3.0 in plan
    assert edges[-1].tolist() == pytest.approx([29.0, 70.35, 0.0, 0.0])
