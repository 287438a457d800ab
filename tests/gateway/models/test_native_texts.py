"""Texts, and functions in front of trees, are scored natively as by ONNX Runtime."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gateway.models.native_scorer import NativeScorer, load_tree_reader, prove_native
from gateway.models.steps.tree_graph import NotNativeError
from registry.scoring import Session
from tests.gateway.models.test_native_steps import GOLDEN, compare, graph_of, prove
from tests.gateway.models.test_native_trees import WIDTH, runtime_of

pytestmark = pytest.mark.skipif(load_tree_reader() is None, reason="turnout_ingress is not built")


def prove_native_or_reason(file: bytes, outputs: int) -> NativeScorer | str:
    """Return the native scorer of a file that is read, or why it is not used."""
    read = load_tree_reader()
    assert read is not None
    return prove_native(file, GOLDEN, Session(runtime_of(file), WIDTH, outputs), read)


def test_texts_are_compared_by_their_numbers() -> None:
    """An adopted model has words for positions of a category, NaN and unknown ones among them."""
    # Numbers become words, which are encoded, ranked and compared.
    ml = {"domain": "ai.onnx.ml"}
    words = {"keys_floats": [0.0, 1.0, math.nan], "values_strings": ["prepaid", "flex", "none"]}
    rank = {"keys_strings": ["flex", "other"], "values_floats": [2.0, 7.0]}
    nodes = [
        helper.make_node("Gather", ["inputs", "first"], ["codes"], axis=1),
        helper.make_node(
            "LabelEncoder", ["codes"], ["words"], default_string="other", **words, **ml
        ),
        helper.make_node("OneHotEncoder", ["words"], ["cube"], cats_strings=["flex", "none"], **ml),
        helper.make_node("Reshape", ["cube", "shape"], ["flags"]),
        helper.make_node("LabelEncoder", ["words"], ["ranks"], default_float=-1.0, **rank, **ml),
        helper.make_node("Equal", ["words", "flex"], ["same"]),
        helper.make_node("Cast", ["same"], ["truth"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["flags", "ranks", "truth"], ["scores"], axis=1),
    ]
    constants = {
        "first": np.array([0]),
        "shape": np.array([-1, 2]),
        "flex": np.array(["flex"], dtype=object),
    }
    # Up to version 3 of the operators, a key NaN is never found, and ONNX Runtime scores the model.
    assert isinstance(prove_native_or_reason(graph_of(nodes, constants, 4), 4), str)
    model = onnx.load_model_from_string(graph_of(nodes, constants, 4))
    model.opset_import[1].version = 4
    file = model.SerializeToString()
    compare(file, 4, exact=True)
    rows = np.zeros((4, WIDTH), np.float32)
    rows[:, 0] = [0.0, 1.0, np.nan, 5.0]
    expected = [[0, 0, -1, 0], [1, 0, 2, 1], [0, 1, -1, 0], [0, 0, 7, 0]]
    assert prove(file, 4).run(rows).tolist() == expected


def test_index_that_may_be_out_of_range_is_left_to_onnx_runtime() -> None:
    """ONNX Runtime fails on such a row, as the faulty version of the demo does."""
    nodes = [
        helper.make_node("Gather", ["inputs", "first"], ["head"], axis=1),
        helper.make_node("Cast", ["head"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "at"], ["scores"]),
    ]
    constants = {"first": np.array([0]), "table": np.array([0.5, 0.25], np.float32)}
    with pytest.raises(NotNativeError, match="may be out of range"):
        prove_native_or_reason(graph_of(nodes, constants, 1), 1)


def test_division_of_integers_is_left_to_onnx_runtime() -> None:
    """A division by zero ends its process, as the crashing version of the demo does."""
    nodes = [
        helper.make_node("Cast", ["inputs"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Div", ["one", "whole"], ["shares"]),
        helper.make_node("Cast", ["shares"], ["scores"], to=TensorProto.FLOAT),
    ]
    file = graph_of(nodes, {"one": np.array([1])}, WIDTH)
    read = load_tree_reader()
    assert read is not None
    with pytest.raises(ValueError, match="div"):
        prove_native(file, GOLDEN + 1.0, Session(runtime_of(file), WIDTH, WIDTH), read)


def log_before_trees(kind: int) -> bytes:
    """Return trees that read the logarithms of all inputs, computed as numbers of a type."""
    from tests.gateway.models.test_tree_kinds import operator, stump

    trees = [stump("BRANCH_LEQ", at / 4, feature=at % WIDTH) for at in range(9)]
    node = onnx.load_model_from_string(operator(trees, targets=1)).graph.node[0]
    node.input[0] = "columns"
    nodes = [
        helper.make_node("Abs", ["inputs"], ["sizes"]),
        helper.make_node("Cast", ["sizes"], ["wide"], to=kind),
        helper.make_node("Log", ["wide"], ["logs"]),
        helper.make_node("Cast", ["logs"], ["columns"], to=TensorProto.FLOAT),
    ]
    return graph_of([*nodes, node], {}, 1)


def test_trees_read_logarithms_that_were_narrowed() -> None:
    """Those of float64 are the same float32; those of float32 differ by the number of rows."""
    file = log_before_trees(TensorProto.DOUBLE)
    scorer, session = prove(file, 1), Session(runtime_of(file), WIDTH, 1)
    rows = np.random.default_rng(3).lognormal(0, 2, (4_096, WIDTH)).astype(np.float32)
    for count in (1, 7, 4_096):
        assert scorer.run(rows[:count]).tobytes() == session.run(rows[:count]).tobytes()
    file, read = log_before_trees(TensorProto.FLOAT), load_tree_reader()
    assert read is not None
    partly = prove_native(file, GOLDEN, Session(runtime_of(file), WIDTH, 1), read)
    assert isinstance(partly, NativeScorer)
    assert partly.native_model is None, "ONNX Runtime computes the logarithms"
