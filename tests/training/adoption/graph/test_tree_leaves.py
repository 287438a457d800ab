"""Tests that rows lead to every leaf of a graph's trees."""

from typing import Any

import numpy as np
import pytest

from tests.training.adoption.graphs import many_leaves, parsed, trees_file
from training.adoption.edge_feed import edge_feed
from training.adoption.foreign_session import ForeignSession
from training.adoption.graph.tree_leaves import as_column_value, leaf_bounds, value_within


def test_every_leaf_gets_rows_that_lead_to_it() -> None:
    """Leaves far below the root, which rows with one changed value do not reach."""
    content = many_leaves()
    sample = {"x": np.full((1, 2), -5, np.float32)}
    scores = ForeignSession(content).run(edge_feed(content, sample, missing=False), "p")
    assert len(np.unique(scores[:, 1])) == 65


def test_no_row_leads_to_a_leaf_that_no_value_reaches() -> None:
    """The second split asks for the opposite of the first."""
    node = parsed(
        trees_file(
            nodes_treeids=[0] * 5,
            nodes_nodeids=[0, 1, 2, 3, 4],
            nodes_featureids=[0] * 5,
            nodes_values=[1.0, 1.0, 0.0, 0.0, 0.0],
            nodes_modes=["BRANCH_LEQ", "BRANCH_GT", "LEAF", "LEAF", "LEAF"],
            nodes_truenodeids=[1, 2, 0, 0, 0],
            nodes_falsenodeids=[4, 3, 0, 0, 0],
        )
    ).graph.node[0]
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    assert leaf_bounds(node) == [{0: (-np.inf, 1.0)}, {0: (above, np.inf)}]
    next(item for item in node.attribute if item.name == "nodes_treeids").ints.append(7)
    assert leaf_bounds(node) == []


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [("f8", 0.1, np.float32(0.1)), ("i8", 2.6, 3), ("i1", 900.0, 127), ("?", 0.5, True)],
)
def test_a_value_of_a_leaf_has_the_type_of_its_column(
    kind: str,
    value: float,
    expected: Any,  # noqa: ANN401
) -> None:
    """Numbers are float32 values; whole numbers are the nearest."""
    found = as_column_value(value, np.dtype(kind))
    assert found == expected


def test_a_leaf_beyond_infinity_has_no_row() -> None:
    """Forests of scikit-learn split missing values off at infinity."""
    node = parsed(trees_file(nodes_values=[np.inf, 0.0, 0.0])).graph.node[0]
    assert leaf_bounds(node) == [{1: (-np.inf, np.inf)}]
    assert value_within((-np.inf, np.inf), 7.0, at_greatest=True) == 7.0
    assert np.isnan(value_within((-np.inf, np.inf), np.nan, at_greatest=False))
    assert value_within((-np.inf, 2.0), 7.0, at_greatest=False) == 2.0
