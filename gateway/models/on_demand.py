"""Cuts a version's ONNX file into its on-demand features and the model behind them.

Native trees read a file of trees alone. training.export.on_demand_graph names the tensor between
the nodes of on-demand features and the model; here each side of it becomes a file of its own, with
the very nodes of the whole file. A gateway then runs the first by ONNX Runtime, once a batch, and
the second natively.
"""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protos.onnx_graph_pb2 import Model

COLUMNS = "on_demand/columns"
"""The tensor between both, as training.export.on_demand_graph.COLUMNS."""
SPLIT_BYTES_MAX = 32 * 2**20
"""The native library reads no larger file of trees, so no larger file is cut."""

OPERATORS = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Floor", "Log", "Min", "Max"),
    *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsNaN"),
    *("And", "Or", "Not", "Where", "Gather", "Split", "Cast", "Concat", "Transpose"),
}
"""Operators of on-demand features. None can loop, so no content of a row makes a run long."""


@dataclass(frozen=True, slots=True)
class SplitModel:
    """The two files, each from `inputs`: the first to COLUMNS, the second to `scores`."""

    front: bytes
    model: bytes


def split_on_demand(onnx: bytes) -> SplitModel | None:
    """Return the two sides of *onnx*; None when it has no on-demand features that are known here.

    Both together give what *onnx* gives if the file is as training writes it. The caller compares.
    """
    if len(onnx) > SPLIT_BYTES_MAX or COLUMNS.encode() not in onnx:
        return None
    try:
        front = Model.FromString(onnx)
    except DecodeError:
        return None
    nodes = list(front.graph.node)
    last = next((at for at, node in enumerate(nodes) if COLUMNS in node.output), len(nodes))
    tensors = [tensor for tensor in front.graph.value_info if tensor.name == COLUMNS]
    known = all(node.op_type in OPERATORS and not node.domain for node in nodes[: last + 1])
    if last == len(nodes) or len(tensors) != 1 or not known:
        return None
    model = Model()
    model.CopyFrom(front)
    # The front ends with COLUMNS, which it gives.
    del front.graph.node[last + 1 :]
    del front.graph.value_info[:]
    front.graph.output[0].CopyFrom(tensors[0])
    return SplitModel(front.SerializeToString(), _behind(model, last + 1))


def _behind(model: Model, first: int) -> bytes:
    """Return the nodes from *first* on, with COLUMNS as their `inputs`."""
    graph = model.graph
    del graph.node[:first]
    for node in graph.node:
        node.input[:] = ["inputs" if name == COLUMNS else name for name in node.input]
    graph.input[0].CopyFrom(graph.value_info[0])
    graph.input[0].name = "inputs"
    del graph.value_info[:]
    # What only the front needs would make the file one that is not of trees alone.
    used = {name for node in graph.node for name in node.input}
    constants = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    return model.SerializeToString()
