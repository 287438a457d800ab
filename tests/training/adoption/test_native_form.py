"""Tests that boosted trees of exporters become native trees, and that others say why not."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from gateway.models.native_scorer import load_tree_reader
from gateway.models.steps import step_operators, step_products
from gateway.models.steps.tree_graph import OPERATORS
from tests.property_examples import examples
from tests.training.adoption.graphs import (
    FLOAT,
    ML,
    adoption,
    exported,
    linear_file,
    many_leaves,
    mixed_file,
    onnx_file,
    opened,
    parsed,
    sample_rows,
    trees_file,
)
from training.adoption.adapt_graph import adapt_graph
from training.adoption.edge_feed import adapted_rows
from training.adoption.native_form import (
    BESIDE_TREES,
    STEPS,
    WEIGHTS_MAX,
    NativeForm,
    native_form,
)
from training.export.onnx_model import OnnxModel

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE")


def brought(content: bytes, **options: Any) -> tuple[NativeForm, Any]:  # noqa: ANN401
    """Adapt a file and bring it into native form. Return the form, and the rows of its proof."""
    model = opened(content)
    adaptation, contract = adoption(model, **options)
    file = adapt_graph(model, adaptation, contract)
    rows = adapted_rows(model.onnx, adaptation, contract, sample_rows(contract), count=500)
    return native_form(file, rows), rows


@pytest.mark.skipif(load_tree_reader() is None, reason="turnout_ingress is not built")
@pytest.mark.parametrize("tool", ["lightgbm", "xgboost", "catboost"])
@pytest.mark.parametrize("reverse", [False, True])
def test_boosted_trees_of_two_classes_are_read_natively(tool: str, reverse: bool) -> None:
    """The native library takes the file, and has the bits of ONNX Runtime."""
    form, rows = brought(exported(f"{tool}_binary"), reverse=reverse)
    assert form.onnx is not None, form.reason
    assert form.difference_max < 1e-6
    read = load_tree_reader()
    assert read is not None
    scores = np.frombuffer(read(form.onnx).run(rows), np.float32)
    assert scores.tobytes() == OnnxModel(form.onnx).scores(rows).tobytes()
    assert parsed(form.onnx).metadata_props[0].key == "turnout.contract"


@pytest.mark.skipif(load_tree_reader() is None, reason="turnout_ingress is not built")
@pytest.mark.parametrize("tool", ["lightgbm", "xgboost", "catboost"])
def test_boosted_trees_of_a_value_are_read_natively(tool: str) -> None:
    """The sum of the leaves is the score, without a Sigmoid."""
    form, rows = brought(exported(f"{tool}_amount"))
    assert form.onnx is not None, form.reason
    assert form.difference_max < 1e-6
    read = load_tree_reader()
    assert read is not None
    scores = np.frombuffer(read(form.onnx).run(rows), np.float32)
    assert scores.tobytes() == OnnxModel(form.onnx).scores(rows).tobytes()


@st.composite
def split_trees(draw: st.DrawFn) -> bytes:
    """Draw trees of one or two splits, of any comparison, with and without weights."""
    count = draw(st.integers(1, 3))
    nodes: dict[str, list[Any]] = {name: [] for name in ("tree", "id", "column", "value", "mode")}
    nodes |= {"true": [], "false": [], "missing": []}
    weights: list[tuple[int, int, int, float]] = []
    two_classes = draw(st.booleans())
    for tree in range(count):
        for number in range(5):  # 0 and 1 are splits; 2, 3 and 4 are leaves
            split = number < 2
            nodes["tree"].append(tree)
            nodes["id"].append(number)
            nodes["column"].append(draw(st.integers(0, 1)) if split else 0)
            nodes["value"].append(draw(st.sampled_from([0.0, 0.5, -1.25, 3e38])) if split else 0)
            nodes["mode"].append(draw(st.sampled_from(MODES)) if split else "LEAF")
            nodes["true"].append((1, 2)[number] if split else 0)
            nodes["false"].append((4, 3)[number] if split else 0)
            nodes["missing"].append(draw(st.integers(0, 1)) if split else 0)
            # Some leaves have no weight; every tree has one.
            weight = draw(st.sampled_from([-0.5, 0.25, 1.0]))
            if not split and (number == 2 or draw(st.booleans())):
                weights.append((tree, number, 1, weight))
                if two_classes:
                    weights.append((tree, number, 0, -weight))
    return trees_file(
        nodes_treeids=nodes["tree"],
        nodes_nodeids=nodes["id"],
        nodes_featureids=nodes["column"],
        nodes_values=[float(value) for value in nodes["value"]],
        nodes_modes=nodes["mode"],
        nodes_truenodeids=nodes["true"],
        nodes_falsenodeids=nodes["false"],
        nodes_missing_value_tracks_true=nodes["missing"],
        class_treeids=[item[0] for item in weights],
        class_nodeids=[item[1] for item in weights],
        class_ids=[item[2] for item in weights],
        class_weights=[item[3] for item in weights],
    )


@examples(40)
@given(split_trees())
def test_comparisons_of_any_kind_are_written_as_less_or_equal(content: bytes) -> None:
    """Rows are on thresholds, beside them, NaN and infinite."""
    form, _ = brought(content)
    assert form.onnx is not None, form.reason
    attributes = {item.name: item for item in parsed(form.onnx).graph.node[0].attribute}
    assert set(attributes["nodes_modes"].strings) == {b"BRANCH_LEQ", b"LEAF"}


def coded_trees() -> bytes:
    """Trees that read codes of texts."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["plan"],
            ["code"],
            domain=ML,
            keys_strings=["pre", "post"],
            values_floats=[0.0, 1.0],
        ),
        parsed(trees_file(nodes_featureids=[0, 0, 0])).graph.node[0],
    ]
    nodes[1].input[0] = "code"
    return onnx_file(nodes, [("plan", 8, [None, 1])], [("p", FLOAT, [None, 2])])


def multiplied_trees() -> bytes:
    """Trees that read sums of columns."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["columns"]),
        parsed(trees_file()).graph.node[0],
    ]
    nodes[1].input[0] = "columns"
    weights = {"weights": np.eye(3, dtype=np.float32)}
    return onnx_file(nodes, [("x", FLOAT, [None, 3])], [("p", FLOAT, [None, 2])], weights)


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (linear_file(3, columns=2**17), {"selected": (0,)}, "393,217 weights"),
        (trees_file(post_transform="PROBIT"), {}, "transformed by PROBIT"),
        (
            trees_file(
                class_treeids=[0, 0, 0],
                class_nodeids=[1, 2, 2],
                class_ids=[0, 0, 0],
                class_weights=[-1.0, 1.0, 1.0],
            ),
            {},
            "a leaf has two weights",
        ),
        (trees_file(base_values=[0.1, 0.2]), {}, "2 base values"),
    ],
)
def test_other_graphs_say_why_they_are_not_native(
    content: bytes, options: dict[str, Any], reason: str
) -> None:
    """The reason is for `versions show`."""
    form, _ = brought(content, **options)
    assert form.onnx is None
    assert re.search(reason, form.reason), form.reason


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (exported("lightgbm_three"), {}),
        (multiplied_trees(), {}),
        (coded_trees(), {}),
        (linear_file(3), {}),
        (mixed_file(), {}),
        (trees_file(), {"selected": (0,)}),
        (trees_file(nodes_modes=["BRANCH_EQ", "LEAF", "LEAF"]), {}),
    ],
)
def test_graphs_that_are_no_plain_sum_are_native_as_they_are(
    content: bytes, options: dict[str, Any]
) -> None:
    """Gateways read several outputs, the negative class, tests of equality and linear models."""
    form, _ = brought(content, **options)
    assert (form.onnx, form.reason) == (None, "")


def test_deep_trees_have_a_native_form() -> None:
    """A tree may have any number of leaves."""
    form, _ = brought(many_leaves())
    assert form.onnx is not None


def test_operators_beside_trees_are_those_that_gateways_run() -> None:
    """Training does not import gateways, so both state them."""
    assert BESIDE_TREES == OPERATORS
    assert STEPS == step_operators.KNOWN
    assert step_products.WEIGHTS_MAX == WEIGHTS_MAX


def test_a_native_form_that_scores_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two logistic functions differ in the last bits, which is more than nothing."""
    monkeypatch.setattr("training.adoption.native_form.DIFFERENCE_MAX", 0.0)
    form, _ = brought(exported("lightgbm_binary"))
    assert (form.onnx, form.reason) == (None, "")
