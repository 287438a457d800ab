"""Tests that files which no adaptation can mend are refused by node name, with the way out."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.training.adoption.graphs import FLOAT, linear_file, onnx_file, parsed
from training.adoption.graph.read_graph import opset_of, raise_opset, read_graph
from training.errors import AdoptionError

IN, OUT = ("x", FLOAT, [None, 3]), ("y", FLOAT, [None, 3])


def one_node(operator: str, *more: str, opset: int = 13, outputs: int = 1, **fields: Any) -> bytes:  # noqa: ANN401
    """Return a file of one node."""
    names = ["y", *(f"more_{index}" for index in range(outputs - 1))]
    node = helper.make_node(operator, ["x", *more], names, name="the_node", **fields)
    constants = {name: np.ones(3, np.float32) for name in more if not name.startswith("flag")}
    flags = {name: np.array(True) for name in more if name.startswith("flag")}
    return onnx_file([node], [IN], [OUT], constants | flags, opsets={"": opset, "mine": 1})


def branch() -> Any:  # noqa: ANN401  onnx.GraphProto
    """Return the graph of one branch."""
    node = helper.make_node("Identity", ["x"], ["inner"])
    return helper.make_graph(
        [node], "branch", [], [helper.make_tensor_value_info("inner", FLOAT, [None, 3])]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (one_node("Mine", domain="mine"), r"node Mine 'the_node': .*custom domain 'mine'.*tf2onnx"),
        (one_node("If", then_branch=branch(), else_branch=branch()), "node If .*control flow"),
        (one_node("Loop", body=branch()), "node Loop .*control flow.*torch"),
        (one_node("Scan", body=branch(), num_scan_inputs=1), "node Scan .*control flow"),
        (one_node("RandomNormalLike"), r"node RandomNormalLike .*model\.eval"),
        (one_node("Multinomial"), "random numbers"),
        (one_node("Dropout", "ratio", "flag"), "node Dropout .*training mode"),
        (one_node("Dropout", "ratio", "computed"), "node Dropout .*training mode"),
        (
            one_node("BatchNormalization", "a", "b", "c", "d", opset=15, training_mode=1),
            "node BatchNormalization .*training mode.*TrainingMode.EVAL",
        ),
        (
            one_node("BatchNormalization", "a", "b", "c", "d", opset=9, outputs=5),
            "node BatchNormalization .*training mode",
        ),
        (one_node("DynamicQuantizeLinear", outputs=3), "other rows of its batch.*quantize_static"),
        (one_node("Relu", opset=5), "opset 5; ONNX Runtime runs opset 7.*target_opset"),
        (one_node("Relu", opset=99), "opset 99; opset .* is the newest"),
        (b"no file", "no ONNX file"),
        (b"", "no graph with nodes"),
    ],
)
def test_read_refuses_what_cannot_be_adapted(content: bytes, message: str) -> None:
    """The message names the node and the exporter's option."""
    with pytest.raises(AdoptionError, match=f"(?s){message}"):
        read_graph(content)


def test_read_takes_nodes_that_only_look_like_training() -> None:
    """Dropout without training, and the normalisation of evaluation."""
    flag = numpy_helper.from_array(np.array(False), "flag")
    model = parsed(one_node("Dropout", "ratio", "flag"))
    del model.graph.initializer[:]
    model.graph.initializer.extend([numpy_helper.from_array(np.float32(0.5), "ratio"), flag])
    assert read_graph(bytes(model.SerializeToString())).graph.node[0].op_type == "Dropout"
    assert read_graph(one_node("BatchNormalization", "a", "b", "c", "d", opset=15))


@pytest.mark.parametrize("ir", [3, 8, 14])
def test_read_brings_old_and_new_ir_versions_to_one_that_gateways_load(ir: int) -> None:
    """Before IR 4 constants stood among the inputs."""
    model = parsed(linear_file(ir=ir))
    model.graph.input.append(helper.make_tensor_value_info("weights", FLOAT, [3, 1]))
    read = read_graph(bytes(model.SerializeToString()))
    assert read.ir_version == 10
    assert [value.name for value in read.graph.input] == ["x"]


def with_external_weights(location: str, offset: int, length: int) -> bytes:
    """Return linear_file with its weights in another file."""
    model = parsed(linear_file())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return bytes(model.SerializeToString())


def test_weights_of_a_second_file_are_taken_in() -> None:
    """Torch writes them into `model.onnx.data`."""
    weights = np.linspace(-1, 1, 3, dtype=np.float32).tobytes()
    content = with_external_weights("model.onnx.data", 5, 12)
    read = read_graph(content, {"model.onnx.data": b"extra" + weights})
    assert read.graph.initializer[0].raw_data == weights
    assert read.SerializeToString() == read_graph(linear_file()).SerializeToString()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"file 'model\.onnx\.data', which is not given.*external_data=False"),
        ({"model.onnx.data": b"short"}, "has 5 bytes; the file is cut off"),
    ],
)
def test_weights_that_are_absent_are_refused(files: dict[str, bytes], message: str) -> None:
    """The message says how to save one file."""
    with pytest.raises(AdoptionError, match=message):
        read_graph(with_external_weights("model.onnx.data", 0, 12), files)


def test_functions_of_the_file_are_inlined() -> None:
    """Torch writes some of its operators as functions."""
    function = helper.make_function(
        "pkg.torch",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 13)],
    )
    model = parsed(linear_file())
    model.graph.node[0].output[0] = "half"
    model.graph.node.append(helper.make_node("Twice", ["half"], ["y"], domain="pkg.torch"))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("pkg.torch", 1))
    read = read_graph(bytes(model.SerializeToString()))
    assert [node.op_type for node in read.graph.node] == ["MatMul", "Add"]


def test_raise_opset_names_a_newer_version_or_converts() -> None:
    """MatMul of opset 7 is another in 13, and an unused domain can simply be named."""
    read = read_graph(linear_file(opset=7))
    raised = raise_opset(raise_opset(read, "", 13), "ai.onnx.ml", 4)
    assert (opset_of(raised, ""), opset_of(raised, "ai.onnx.ml")) == (13, 4)
    assert raise_opset(raised, "", 9) is raised
