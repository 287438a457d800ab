"""Tests of what is found in foreign graphs."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.training.adoption.graphs import (
    FLOAT,
    INT64,
    ML,
    STRING,
    exported,
    linear_file,
    mixed_file,
    onnx_file,
    parsed,
    tree_node,
)
from training.adoption.foreign import ForeignInput, ForeignOutput
from training.adoption.graph.column_origins import find_columns
from training.adoption.inspect_graph import COLUMNS_MAX, input_widths, inspect_graph
from training.errors import AdoptionError

X = ("x", FLOAT, [None, 3])


@pytest.mark.parametrize("tool", ["lightgbm", "xgboost", "catboost"])
@pytest.mark.parametrize(
    ("target", "kind", "width", "classes"),
    [
        ("binary", "probabilities", 2, ("0", "1")),
        ("three", "probabilities", 3, ("0", "1", "2")),
        ("amount", "values", 1, ()),
    ],
)
def test_outputs_of_exporters(
    tool: str, target: str, kind: str, width: int, classes: tuple[str, ...]
) -> None:
    """Labels stand beside probabilities, which may be dictionaries; widths are those of a run."""
    found = inspect_graph(exported(f"{tool}_{target}"))
    (served,) = (item for item in found.outputs if item.kind != "label")
    assert (served.kind, served.width, served.classes) == (kind, width, classes)
    assert [len(item.columns) for item in found.inputs] == [4]
    assert found.producer.split()[0] in ("OnnxMLTools", "CatBoost")


def test_inputs_have_their_kinds_and_words() -> None:
    """The words are those of the encoder that reads the column."""
    found = inspect_graph(mixed_file())
    assert found.inputs == (
        ForeignInput("age", "float", ("age",)),
        ForeignInput("plan", "text", ("plan",), (("pre", "post", "biz"),)),
        ForeignInput("calls", "integer", ("calls",)),
        ForeignInput("abroad", "boolean", ("abroad",)),
    )
    assert found.outputs == (ForeignOutput("y", "values", 1),)


def test_dictionaries_of_classes_become_columns() -> None:
    """A ZipMap of float64, which ONNX Runtime lacks, too."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"], axis=1),
        helper.make_node("ZipMap", ["p"], ["z"], domain=ML, classlabels_strings=["a", "b", "c"]),
    ]
    file = parsed(onnx_file(nodes, [("x", TensorProto.DOUBLE, [None, 3])], [("z", FLOAT, [None])]))
    file.graph.output[0].type.sequence_type.elem_type.map_type.key_type = STRING
    found = inspect_graph(bytes(file.SerializeToString()))
    assert found.outputs == (ForeignOutput("z", "probabilities", 3, ("a", "b", "c")),)


def test_words_and_thresholds_are_followed_through_moves_of_columns() -> None:
    """Through Split, Gather, Concat and Cast to the column of the input."""
    nodes = [
        helper.make_node("Split", ["x"], ["first", "rest"], axis=1, split=[1, 2]),
        helper.make_node("Gather", ["rest", "order"], ["turned"], axis=1),
        helper.make_node("Concat", ["turned", "first"], ["row"], axis=1),
        tree_node(["row"], ["y"], classifier=False, feature=0),
    ]
    file = parsed(
        onnx_file(
            nodes,
            [X],
            [("y", FLOAT, [None, 1])],
            {"order": np.array([1, 0])},
            opsets={"": 11, ML: 3},
        )
    )
    found = find_columns(file, {"x": 3})
    assert {origin: values.tolist() for origin, values in found.splits.items()} == {("x", 2): [0.5]}


def labels_only() -> bytes:
    """A graph that gives a class, and nothing else."""
    node = helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)
    return onnx_file([node], [X], [("label", INT64, [None])])


def text_output() -> bytes:
    """A graph that gives the word of a class."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["code"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder",
            ["code"],
            ["word"],
            domain=ML,
            keys_int64s=[0, 1, 2],
            values_strings=["a", "b", "c"],
        ),
    ]
    return onnx_file(nodes, [X], [("word", STRING, [None])])


def wide(shape: Any) -> bytes:  # noqa: ANN401
    """A graph whose input has a shape that is no row of columns."""
    node = helper.make_node("Relu", ["x"], ["y"])
    return onnx_file([node], [("x", FLOAT, shape)], [("y", FLOAT, None)])


def feature_outside() -> bytes:
    """A tree that reads column 3 of rows of three."""
    node = tree_node(["x"], ["y"], classifier=False, feature=3)
    return onnx_file([node], [X], [("y", FLOAT, [None, 1])])


def of_one_row() -> bytes:
    """Exported for one row, with that number in a node."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("ReduceSum", ["flat", "axis"], ["y"], keepdims=1),
    ]
    return onnx_file(
        nodes,
        [("x", FLOAT, [1, 3])],
        [("y", FLOAT, [1, 1])],
        {"shape": np.array([1, 3]), "axis": np.array([1])},
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (labels_only(), r"labels only, in \['label'\]"),
        (text_output(), r"labels only, in \['word'\]"),
        (wide([None, None]), r"shape \['\?', '\?'\].*FloatTensorType"),
        (wide(["n", 4, 4]), r"shape \['n', 4, 4\]"),
        (wide(None), r"shape \[\]"),
        (wide([None, COLUMNS_MAX + 1]), "takes 5001 columns; the most is 5000"),
        (feature_outside(), "node TreeEnsembleRegressor 'y', which reads column 3 of rows of 3"),
        (
            of_one_row(),
            r"exported for 1 row\(s\) a run, and its node Reshape 'flat' always gives 1",
        ),
        (b"\x08", "no ONNX file|no graph"),
    ],
)
def test_inspect_refuses_by_name(content: bytes, message: str) -> None:
    """The message says what was found, and what to export instead."""
    with pytest.raises(AdoptionError, match=message):
        inspect_graph(content)


def test_a_map_as_input_is_refused() -> None:
    """DictVectorizer takes one."""
    file = parsed(linear_file())
    file.graph.input[0].type.map_type.key_type = STRING
    with pytest.raises(AdoptionError, match="'x' is no tensor of numbers, booleans or texts"):
        input_widths(file)


def test_a_fixed_batch_is_a_warning() -> None:
    """MatMul takes any number of rows, whatever the file says."""
    found = inspect_graph(linear_file(rows=1))
    assert found.warnings == (
        "the graph was exported for 1 row(s) a run; it is served for any number",
    )


def test_an_output_that_is_no_column_may_stand_beside_one_that_is() -> None:
    """Only the other is listed."""
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
    ]
    file = onnx_file(nodes, [X], [("y", FLOAT, [None, 3]), ("total", FLOAT, [])])
    assert [item.name for item in inspect_graph(file).outputs] == ["y"]
    alone = onnx_file(nodes[1:], [X], [("total", FLOAT, [])])
    with pytest.raises(AdoptionError, match=r"'total' has shape \(\) for 3 rows"):
        inspect_graph(alone)


@pytest.mark.parametrize(
    ("text", "producer"),
    [("1.2.10", "tool 1.2.10"), ("Git info:\n  Commit: abc\n", "tool"), ("", "tool")],
)
def test_producer_is_one_line(text: str, producer: str) -> None:
    """CatBoost writes build notes as its version."""
    file = parsed(linear_file())
    file.producer_name, file.producer_version = "tool", text
    assert inspect_graph(bytes(file.SerializeToString())).producer == producer


def too_few_weights(file: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """The weights are fewer than their shape says."""
    file.graph.initializer[0].dims[0] = 9


def no_features(file: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """A tree without the list of its features, then with a number in its place."""
    attributes = file.graph.node[0].attribute
    del attributes[:]
    attributes.append(helper.make_attribute("nodes_modes", ["BRANCH_LEQ"]))
    attributes.append(helper.make_attribute("nodes_featureids", 1.5))


def no_domain(file: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """The version of the tree operators is not said."""
    del file.opset_import[:]


def no_type(file: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """A type of ONNX that does not exist."""
    file.graph.initializer[0].data_type = 0


@pytest.mark.parametrize("damage", [too_few_weights, no_features, no_domain, no_type])
def test_files_that_contradict_themselves_are_refused(damage: Any) -> None:  # noqa: ANN401
    """No error of onnx or numpy reaches the caller."""
    trees = damage in (no_features, no_domain)
    node = tree_node(["x"], ["y"], classifier=False)
    file = parsed(onnx_file([node], [X], [("y", FLOAT, [None, 1])]) if trees else linear_file())
    damage(file)
    with pytest.raises(AdoptionError, match=r"contradicts itself|refuses the graph"):
        inspect_graph(bytes(file.SerializeToString()))
