"""Reads the nodes and constants of an ONNX file, without the package `onnx`.

A host that explains scores has ONNX Runtime and protobuf; `onnx` is an extra of training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from protos.onnx_nodes_pb2 import OnnxAttribute, OnnxFile, OnnxNode, OnnxTensor
from registry.explanation.errors import NotExplainedError

ML_DOMAIN = "ai.onnx.ml"
TENSOR_TYPES: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("|b1", "int32_data"),
    11: ("<f8", "double_data"),
}
"""Number of a type in ONNX -> NumPy's name of it, and the field without raw bytes."""


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One node. *operator* has its domain in front unless it is ONNX's own: "ai.onnx.ml:Scaler"."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The operator without its domain."""
        return self.operator.rpartition(":")[2]

    @property
    def shown(self) -> str:
        """How a message names the node: its operator, and its name or first output."""
        return f"{self.kind} {self.name or (self.outputs[0] if self.outputs else '')!r}"


@dataclass(frozen=True, slots=True)
class GraphNodes:
    """A graph.

    makers     tensor -> the node that makes it.
    constants  tensor -> its value, for float, integer and bool tensors.
    """

    makers: Mapping[str, GraphNode]
    constants: Mapping[str, NDArray[Any]]

    def maker(self, tensor: str) -> GraphNode:
        """Return the node that makes *tensor*. Raises NotExplainedError if there is none."""
        if tensor not in self.makers:
            raise NotExplainedError(f"its graph has no node that makes {tensor[:80]!r}")
        return self.makers[tensor]


def read_nodes(onnx: bytes) -> GraphNodes:
    """Return the nodes of an ONNX file. Raises NotExplainedError if it is none."""
    try:
        graph = OnnxFile.FromString(onnx).graph
    except DecodeError as error:
        raise NotExplainedError(f"model.onnx is no ONNX file: {error}") from error
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    makers: dict[str, GraphNode] = {}
    for node in graph.node:
        read = _node(node)
        # A constant may also be a node without inputs.
        if read.kind == "Constant" and read.attributes:
            constants[read.outputs[0]] = np.asarray(next(iter(read.attributes.values())))
        makers |= dict.fromkeys(read.outputs, read)
    return GraphNodes(makers, {name: value for name, value in constants.items() if value.size})


def _node(node: OnnxNode) -> GraphNode:
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}:"
    return GraphNode(
        operator=domain + node.op_type,
        name=node.name,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={item.name: _attribute(item) for item in node.attribute},
    )


def _attribute(item: OnnxAttribute) -> Any:  # noqa: ANN401  as the attribute's type says
    match item.type:
        case 1:
            return item.f
        case 2:
            return item.i
        case 3:
            return item.s
        case 4:
            return _array(item.t)
        case 6:
            return np.array(item.floats, dtype=np.float32)
        case 7:
            return np.array(item.ints, dtype=np.int64)
        case 8:
            return list(item.strings)
    return None


def _array(tensor: OnnxTensor) -> NDArray[Any]:
    """Return a tensor as an array; an empty one for a type that no explanation needs."""
    if tensor.data_type not in TENSOR_TYPES:
        return np.zeros(0)
    kind, field = TENSOR_TYPES[tensor.data_type]
    try:
        if tensor.raw_data:
            values = np.frombuffer(tensor.raw_data, dtype=kind)
        else:
            values = np.array(getattr(tensor, field)).astype(kind)
        return values.reshape([int(size) for size in tensor.dims])
    except (ValueError, OverflowError) as error:
        raise NotExplainedError(
            f"the constant {tensor.name[:80]!r} of its graph contradicts itself: {error}"
        ) from error
