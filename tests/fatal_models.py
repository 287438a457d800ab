"""Versions that end their process or never come back, for real: nothing here is simulated."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.tiny_models import tiny_files

EVERY_ROW = -1e30
"""As *when*: every row is above it."""

EDGE_ROW = 1e6
"""Rows above this are harmless: the proof of a version tries such rows, and would refuse it."""


def crashing_files(when: float = EVERY_ROW) -> dict[str, bytes]:
    """A row whose first input is above *when* ends the process with SIGFPE (x86).

    INT32_MIN / -1 has no int32: the processor traps, and onnxruntime 1.32 checks zero only.
    """
    constants = {
        "least": np.array(np.iinfo(np.int32).min, dtype=np.int32),
        "one": np.array(1, dtype=np.int32),
        "two": np.array(2, dtype=np.int32),
        "nought": np.array(0, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["hit"], ["hit_int"], to=TensorProto.INT32),
        helper.make_node("Mul", ["hit_int", "two"], ["doubled"]),
        helper.make_node("Sub", ["one", "doubled"], ["divisor"]),
        helper.make_node("Div", ["least", "divisor"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "nought"], ["fate"]),
    ]
    return _with_fate(nodes, constants, when)


def spinning_files(when: float = EVERY_ROW) -> dict[str, bytes]:
    """A batch with a row whose first input is above *when* is multiplied for ever."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["state", "state"], ["state_next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_next", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("Cast", ["hit"], ["hit_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["hit_float"], ["any_float"], keepdims=0),
        helper.make_node("Cast", ["any_float"], ["any"], to=TensorProto.BOOL),
        helper.make_node("Loop", ["", "any", "nought"], ["fate"], body=body),
    ]
    return _with_fate(nodes, {"nought": np.array(0, dtype=np.float32)}, when)


def memory_hungry_files(elements: int, when: float = EVERY_ROW) -> dict[str, bytes]:
    """A batch with a row whose first input is above *when* asks for so many floats, and fills
    them.
    """
    nodes = [
        helper.make_node("Cast", ["hit"], ["hit_int"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["hit_int"], ["any"], keepdims=0),
        helper.make_node("Mul", ["any", "elements"], ["wanted"]),
        helper.make_node("ConstantOfShape", ["wanted"], ["vast"]),
        helper.make_node("ReduceSum", ["vast"], ["fate"], keepdims=0),
    ]
    return _with_fate(nodes, {"elements": np.array([elements], dtype=np.int64)}, when)


def nan_files() -> dict[str, bytes]:
    """Every row scores NaN, the golden ones that were certified finite too."""
    nodes = [
        helper.make_node("Cast", ["hit"], ["hit_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["hit_float", "hit_float"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["fate"]),
    ]
    return _with_fate(nodes, {}, EVERY_ROW)


def _with_fate(
    nodes: list[onnx.NodeProto], constants: Mapping[str, NDArray[Any]], when: float
) -> dict[str, bytes]:
    """The tiny version, with `fate` added to its scores; `hit` (B, 1) is what *when* says."""
    files = tiny_files()
    model = onnx.load_from_string(files["model.onnx"])
    first: dict[str, NDArray[Any]] = {
        "first": np.array([0], dtype=np.int64),
        "when": np.array(when, dtype=np.float32),
        "edge": np.array(EDGE_ROW, dtype=np.float32),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in {**first, **constants}.items()
    )
    last = model.graph.node.pop()
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["inputs", "first"], ["head"], axis=1),
            helper.make_node("Greater", ["head", "when"], ["above"]),
            helper.make_node("Less", ["head", "edge"], ["below"]),
            helper.make_node("And", ["above", "below"], ["hit"]),
            *nodes,
            helper.make_node("Add", [last.input[0], "fate"], ["scores"]),
        ]
    )
    onnx.checker.check_model(model)
    return {**files, "model.onnx": bytes(model.SerializeToString())}
