"""Tests that adapted graphs give the bits of foreign graphs, and which adaptations are refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from features.contract import ModelContract, RequestInput
from host.onnx_runtime import onnxruntime
from tests.property_examples import examples
from tests.training.adoption.graphs import (
    FLOAT,
    INT64,
    ML,
    STRING,
    adoption,
    exported,
    linear_file,
    mixed_file,
    onnx_file,
    opened,
    parsed,
    sample_rows,
)
from training.adoption.adapt_graph import adapt_graph
from training.adoption.certificate import reference_scorer
from training.adoption.foreign import Adaptation, ColumnSource, ForeignModel
from training.errors import AdoptionError
from training.export.onnx_model import OnnxModel

ODD_VALUES = (0.0, -0.0, 0.5, 1.0, 2.0, 3.0, 4.0, -1.0, 3e38, -3e38)


def run_file(content: bytes, feed: dict[str, Any], output: str) -> Any:  # noqa: ANN401
    """Run an ONNX file as it is."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # threads add the trees of a class in another order
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run([output], feed)[0]


def equal_bits(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether two arrays have the same shape and bits; all NaN are equal."""
    return one.shape == other.shape and bool(
        ((one.view(np.uint32) == other.view(np.uint32)) | (np.isnan(one) & np.isnan(other))).all()
    )


@pytest.mark.parametrize("tool", ["lightgbm", "xgboost", "catboost"])
@pytest.mark.parametrize("target", ["binary", "three", "amount"])
def test_exported_files_score_as_they_are(tool: str, target: str) -> None:
    """The untouched file is run, with its dictionaries of classes, on rows with NaN too."""
    content = exported(f"{tool}_{target}")
    model = opened(content)
    adaptation, contract = adoption(model, reverse=True)
    rows = sample_rows(contract)
    rows[::7, 1] = np.nan
    scores = OnnxModel(adapt_graph(model, adaptation, contract)).scores(rows)

    name = model.inputs[0].name
    expected = run_file(content, {name: np.ascontiguousarray(rows[:, ::-1])}, adaptation.output)
    if isinstance(expected, list):
        served = [sorted(row)[column] for row in expected[:1] for column in adaptation.selected]
        expected = np.array([[row[label] for label in served] for row in expected], np.float32)
    elif expected.shape[1] > len(adaptation.selected):
        expected = expected[:, list(adaptation.selected)]
    assert equal_bits(scores, expected)


def test_inputs_of_each_kind_are_made_of_one_row() -> None:
    """Positions become words, numbers become whole numbers and booleans."""
    model = opened(mixed_file())
    adaptation, contract = adoption(model)
    file = adapt_graph(model, adaptation, contract)
    rows = np.array(
        [
            [1.5, 0, 2.9, 1],  # pre
            [1.5, 2, -2.9, 0],  # biz
            [1.5, 3, 0, 0.25],  # the unknown word "?", and true
            [np.nan, np.nan, np.nan, np.nan],  # the first word, 0 and false
            [0, 1.5, 3e38, 0],  # no position is the unknown word; the greatest int64
        ],
        np.float32,
    )
    scores = OnnxModel(file).scores(rows)
    plan = np.array(["pre", "biz", "?", "pre", "?"], object)[:, None]
    calls = np.array([2, -2, 0, 0, 2**63 - 2**39], np.int64)[:, None]
    abroad = np.array([True, False, True, False, False])[:, None]
    feed = {"age": rows[:, :1], "plan": plan, "calls": calls, "abroad": abroad}
    assert equal_bits(scores, run_file(mixed_file(), feed, "y"))


def test_nothing_is_added_where_names_are_all_that_differs() -> None:
    """The graph has the nodes that it had."""
    model = opened(linear_file(3))
    file = parsed(adapt_graph(model, *adoption(model)))
    assert [node.op_type for node in file.graph.node] == ["MatMul"]
    assert [file.graph.input[0].name, file.graph.output[0].name] == ["inputs", "scores"]
    assert file.metadata_props[0].key == "turnout.contract"


def test_unserved_outputs_leave_with_their_nodes() -> None:
    """The label and what only the label needs."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["code"], axis=1, keepdims=0),
        helper.make_node("Gather", ["words", "code"], ["label"]),
    ]
    content = onnx_file(
        nodes,
        [("x", FLOAT, [None, 2])],
        [("y", FLOAT, [None, 2]), ("label", INT64, [None])],
        {"weights": np.eye(2, dtype=np.float32), "words": np.array([7, 9])},
    )
    model = opened(content)
    file = parsed(adapt_graph(model, *adoption(model, selected=(1, 0))))
    assert [node.op_type for node in file.graph.node] == ["MatMul", "Gather"]
    assert "words" not in {item.name for item in file.graph.initializer}


@pytest.mark.parametrize("columns", [0, 1, 2])
def test_outputs_of_each_shape_become_columns(columns: int) -> None:
    """(B,), (B, 1) and (B, 2), of float64."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceSum", ["wide", "axis"], ["sum"], keepdims=min(columns, 1)),
        helper.make_node("Concat", ["sum"] * max(columns, 1), ["y"], axis=-1)
        if columns
        else helper.make_node("Identity", ["sum"], ["y"]),
    ]
    shape = [None, columns] if columns else [None]
    content = onnx_file(
        nodes,
        [("x", FLOAT, [None, 3])],
        [("y", TensorProto.DOUBLE, shape)],
        {"axis": np.array([1])},
    )
    model = opened(content)
    adaptation, contract = adoption(model, selected=tuple(range(max(columns, 1))))
    rows = sample_rows(contract)
    scores = OnnxModel(adapt_graph(model, adaptation, contract)).scores(rows)
    expected = rows.astype(np.float64).sum(axis=1, keepdims=True).astype(np.float32)
    assert scores.shape == (len(rows), max(columns, 1))
    np.testing.assert_allclose(
        scores, np.repeat(expected, max(columns, 1), axis=1), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("transform", ["sigmoid", "softmax"])
def test_logits_become_probabilities_on_request(transform: Any) -> None:  # noqa: ANN401
    """Softmax is over a row's columns, before some of them are picked."""
    model = opened(linear_file(3, columns=3))
    adaptation, contract = adoption(model, selected=(2, 0), transform=transform)
    rows = sample_rows(contract)
    scores = OnnxModel(adapt_graph(model, adaptation, contract)).scores(rows)
    logits = run_file(linear_file(3, columns=3), {"x": rows}, "y").astype(np.float64)
    powers = np.exp(logits)
    all_columns = (
        1 / (1 + np.exp(-logits))
        if transform == "sigmoid"
        else powers / powers.sum(axis=1, keepdims=True)
    )
    np.testing.assert_allclose(scores, all_columns[:, [2, 0]], atol=1e-6)


def test_a_fixed_batch_and_inputs_of_rank_one_take_any_rows() -> None:
    """The file says one row a run, and its inputs are vectors."""
    nodes = [
        helper.make_node("Add", ["inputs", "scores"], ["sum"]),
        helper.make_node("Mul", ["sum", "turnout/two"], ["on_demand/columns"]),
    ]
    content = onnx_file(
        nodes,
        [("inputs", FLOAT, [1]), ("scores", FLOAT, [1])],
        [("on_demand/columns", FLOAT, [1])],
        {"turnout/two": np.array([2.0], np.float32)},
    )
    model = opened(content)
    adaptation, contract = adoption(model)
    rows = sample_rows(contract)
    scores = OnnxModel(adapt_graph(model, adaptation, contract)).scores(rows)
    assert equal_bits(scores, (rows.sum(axis=1, keepdims=True) * np.float32(2)))


def test_texts_of_rank_one_are_looked_up() -> None:
    """Keras exports a vector for each column."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["plan"],
            ["code"],
            domain=ML,
            keys_strings=["pre", "post"],
            values_floats=[1.0, 2.0],
        ),
        helper.make_node("Identity", ["code"], ["y"]),
    ]
    model = opened(onnx_file(nodes, [("plan", STRING, [None])], [("y", FLOAT, [None])]))
    adaptation, contract = adoption(model)
    scores = OnnxModel(adapt_graph(model, adaptation, contract)).scores(
        np.array([[1], [0], [np.nan]], np.float32)
    )
    assert scores.tolist() == [[2], [1], [1]]


def test_descriptions_of_the_exporter_leave() -> None:
    """Torch notes where each node stands in the source, with the path."""
    file = parsed(linear_file(3))
    file.graph.node[0].doc_string = "somebody's folder"
    file.graph.node[0].metadata_props.add(key="stack_trace", value="somebody's folder")
    model = opened(bytes(file.SerializeToString()))
    assert b"folder" not in adapt_graph(model, *adoption(model))


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 21])
def test_constants_and_missing_values_are_given_to_graphs_of_any_opset(opset: int) -> None:
    """An older opset is converted, since it has no IsNaN."""
    model = opened(linear_file(3, opset=opset))
    contract = ModelContract(entities=(), inputs=(RequestInput(name="a"), RequestInput(name="b")))
    columns = (
        ColumnSource("x", 0, "b", missing="-7"),
        ColumnSource("x", 1, "", constant=4.0),
        ColumnSource("x", 2, "a"),
    )
    file = adapt_graph(model, Adaptation(columns, "y", (0,)), contract)
    rows = np.array([[1, 2], [3, np.nan]], np.float32)
    given_rows = np.array([[2, 4, 1], [-7, 4, 3]], np.float32)
    expected = run_file(linear_file(3, opset=opset), {"x": given_rows}, "y")
    assert equal_bits(OnnxModel(file).scores(rows), expected)


def test_the_first_label_encoder_is_written_anew_beside_ours() -> None:
    """Its second version has other attributes, and ours needs the fourth."""
    nodes = [
        helper.make_node(
            "LabelEncoder", ["plan"], ["code"], domain=ML, classes_strings=["pre", "post"]
        ),
        helper.make_node("Cast", ["code"], ["y"], to=FLOAT),
    ]
    content = onnx_file(
        nodes,
        [("plan", STRING, [None, 1])],
        [("y", FLOAT, [None, 1])],
        opsets={"": 13, ML: 1},
    )
    model = opened(content)
    adaptation, contract = adoption(model)
    scores = OnnxModel(adapt_graph(model, adaptation, contract)).scores(
        np.array([[0], [1], [2], [np.nan]], np.float32)
    )
    assert scores[:, 0].tolist() == [0, 1, -1, 0]


def test_the_same_adaptation_gives_the_same_bytes() -> None:
    """A version is named by its bytes."""
    model = opened(mixed_file())
    adaptation, contract = adoption(model)
    turned = replace(adaptation, columns=tuple(reversed(adaptation.columns)))
    assert adapt_graph(model, adaptation, contract) == adapt_graph(model, turned, contract)


KINDS = {
    "float": FLOAT,
    "double": TensorProto.DOUBLE,
    "int64": INT64,
    "int8": TensorProto.INT8,
    "uint32": TensorProto.UINT32,
    "bool": TensorProto.BOOL,
    "text": STRING,
}


def cast_file(kinds: list[str]) -> bytes:
    """A graph with an input of each kind and two columns, which gives them all as float32."""
    nodes = []
    for index, kind in enumerate(kinds):
        if kind == "text":
            nodes.append(
                helper.make_node(
                    "LabelEncoder",
                    [f"x{index}"],
                    [f"f{index}"],
                    domain=ML,
                    keys_strings=["1", "2", "3", "-4"],
                    values_floats=[1.5, 2.5, 3.5, 4.5],
                    default_float=-1.0,
                )
            )
        else:
            nodes.append(helper.make_node("Cast", [f"x{index}"], [f"f{index}"], to=FLOAT))
    nodes.append(
        helper.make_node("Concat", [f"f{index}" for index in range(len(kinds))], ["y"], axis=1)
    )
    return onnx_file(
        nodes,
        [(f"x{index}", KINDS[kind], [None, 2]) for index, kind in enumerate(kinds)],
        [("y", FLOAT, [None, 2 * len(kinds)])],
    )


@st.composite
def adopted(draw: st.DrawFn) -> tuple[ForeignModel, Adaptation, ModelContract]:
    """Draw a graph of inputs of any kinds, and sources of any kinds for their columns."""
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
    model = opened(cast_file(kinds))
    names = [f"c{index}" for index in range(draw(st.integers(1, 4)))]
    words = st.sampled_from(["1", "2", "3", "-4"])
    columns = []
    for item, kind in zip(model.inputs, kinds, strict=True):
        for column in range(2):
            source = ColumnSource(item.name, column, draw(st.sampled_from(names)))
            how = draw(st.sampled_from(["plain", "missing", "dictionary", "constant"]))
            if how == "constant":
                constant: Any = draw(words) if kind == "text" else draw(st.integers(0, 1))
                source = replace(source, model_input="", constant=constant)
            elif how == "dictionary" or kind == "text":
                dictionary = tuple(draw(st.lists(words, min_size=1, max_size=4)))
                source = replace(
                    source, dictionary=dictionary, unknown=draw(words), missing=draw(words)
                )
            elif how == "missing":
                source = replace(source, missing=draw(words))
            columns.append(source)
    width = 2 * len(kinds)
    contract = ModelContract(
        entities=(),
        inputs=tuple(RequestInput(name=name) for name in names),
        outputs=tuple(f"s{index}" for index in range(width)),
    )
    return model, Adaptation(tuple(columns), "y", tuple(range(width))), contract


@examples(40)
@given(adopted(), st.integers(0, 2**32 - 1))
def test_added_nodes_do_what_numpy_does(
    drawn: tuple[ForeignModel, Adaptation, ModelContract], seed: int
) -> None:
    """For any kinds of inputs and sources, on odd values too."""
    model, adaptation, contract = drawn
    rng = np.random.default_rng(seed)
    odd = np.array([*ODD_VALUES, np.nan], np.float32)
    rows = rng.choice(odd, (30, contract.width)).astype(np.float32)
    file = adapt_graph(model, adaptation, contract)
    expected = reference_scorer(model, adaptation, contract)(rows)
    assert equal_bits(OnnxModel(file).scores(rows), expected)


def refused(**changes: Any) -> tuple[ForeignModel, Adaptation, ModelContract]:  # noqa: ANN401
    """Return a fitting adaptation of mixed_file with a change of one source or of the rest."""
    model = opened(mixed_file())
    adaptation, contract = adoption(model)
    column = changes.pop("column", None)
    if column is None:
        return model, replace(adaptation, **changes), contract
    columns = list(adaptation.columns)
    columns[column] = replace(columns[column], **changes)
    return model, replace(adaptation, columns=tuple(columns)), contract


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (refused(columns=()), r"without a source: \[\('age', 0\)"),
        (refused(column=0, foreign_input="calls"), r"with two: \[\('calls', 0\)\]"),
        (
            refused(column=0, column_=1) if False else refused(column=0, foreign_input="no"),
            "does not have",
        ),
        (refused(column=0, model_input="no"), "source 'no'; the contract's inputs are"),
        (refused(column=1, dictionary=()), "takes texts, and 'plan' has no dictionary"),
        (refused(column=1, constant=1.0), "takes text, and its constant is 1.0"),
        (refused(column=0, constant="one"), "takes float, and its constant is 'one'"),
        (refused(column=0, dictionary=("one",)), "takes numbers; could not convert"),
        (refused(column=2, missing="0.5"), "takes whole numbers"),
        (refused(output="no"), r"'no' gives no scores; serve one of \['y'\]"),
        (refused(selected=(1,)), r"'y' has 1 column\(s\), and column 1 is to be served"),
        (refused(selected=()), "name one column for each output"),
        (refused(selected=(0, 0)), "name one column for each output"),
    ],
)
def test_adaptations_that_do_not_fit_are_refused(
    case: tuple[ForeignModel, Adaptation, ModelContract], message: str
) -> None:
    """The message says what was found and what fits."""
    with pytest.raises(AdoptionError, match=message):
        adapt_graph(*case)
