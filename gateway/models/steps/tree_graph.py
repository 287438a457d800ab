"""Cuts a version's ONNX file at its trees.

The native library reads a file of one tree operator. A version may compute the columns of its trees
(on-demand features, a scaler) and may compute further with what they give (odds that are corrected
for rows that were left out). Each side becomes a file of its own, with the very nodes of the whole
file. A gateway runs the sides by ONNX Runtime, once a batch, and the trees natively.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from protos.onnx_graph_pb2 import Constant, Graph, Model, Node, Tensor

TREES_BYTES_MAX = 32 * 2**20
"""The native library reads no larger file of trees, so no larger file is cut."""

OPERATORS = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Floor", "Log", "Min", "Max"),
    *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsNaN"),
    *("And", "Or", "Not", "Where", "Gather", "Split", "Cast", "Concat", "Transpose"),
    *("Identity", "Reshape", "Flatten", "Sqrt", "Exp", "Pow", "Sigmoid", "Softmax", "ReduceSum"),
    *("MatMul", "Gemm", "ArgMax", "ArgMin", "ReduceMean", "ReduceMax", "ReduceProd"),
    *("Reciprocal", "Shape", "ConstantOfShape"),
    *("Ceil", "Clip", "IsInf", "Round", "Sign", "Slice", "Squeeze", "Unsqueeze", "Tanh", "Relu"),
    *("ArrayFeatureExtractor", "FeatureVectorizer", "Imputer", "Normalizer", "Scaler"),
    *("Binarizer", "LabelEncoder", "OneHotEncoder"),
}
"""Operators beside the trees. None can loop, so no content of a row makes a run long."""

AS_IS = {"Identity", "Reshape", "Flatten", "Mul"}
"""Operators behind the trees that usually leave their scores as they are. The comparison shows
whether they do."""
TREES = {"TreeEnsembleRegressor": 1, "TreeEnsembleClassifier": 2}
"""The tree operators, and the number of their outputs. The last output has the scores."""
ML_DOMAIN = "ai.onnx.ml"
INPUTS, SCORES = "inputs", "scores"
FLOAT, INT32, INT64, STRING, BOOL, DOUBLE = 1, 6, 7, 8, 9, 11
"""Element types of TensorProto."""
INTEGERS = (2, 3, 4, 5, INT32, INT64, 12, 13)
"""Element types of integers."""
DTYPES = {FLOAT: "<f4", DOUBLE: "<f8", BOOL: "?", INT64: "<i8", INT32: "<i4"}
CONSTANT_VALUES_MAX = 2**18
"""As NUMBERS_MAX of the native library."""
DIMENSIONS_MAX = 4


class NotNativeError(Exception):
    """The graph is not one that is scored natively. The text is the reason."""


@dataclass(frozen=True, slots=True)
class TreeGraph:
    """A graph that is cut at its trees.

    front      from `inputs` to the tensor *columns*; None: the columns of the trees are the inputs.
    columns    name of the columns of the trees.
    kind       element type of them.
    trees      the tree operator, from `inputs` to `scores`, and perhaps a Sigmoid.
    picked     scores of the trees that are used, in this order; None: all.
    behind     from `inputs`, which are the picked scores, to `scores`; None: these are the scores.
    """

    front: Graph | None
    columns: str
    kind: int
    trees: Graph
    picked: tuple[int, ...] | None
    behind: Graph | None


@dataclass(frozen=True, slots=True)
class TreeScores:
    """A tensor behind the trees that has their scores.

    name     of the tensor.
    sigmoid  the scores are behind a Sigmoid.
    picked   as TreeGraph.picked.
    """

    name: str
    sigmoid: bool = False
    picked: tuple[int, ...] | None = None


def is_trees(node: Node) -> bool:
    """Whether *node* is a tree operator."""
    return node.op_type in TREES and node.domain == ML_DOMAIN


def reads_double(trees: Node) -> bool:
    """Whether a tree operator has numbers of float64, and so reads them."""
    return any(item.name.endswith("_as_tensor") for item in trees.attribute)


class GraphReader:
    """Looks up the nodes and constants of a graph."""

    def __init__(self, graph: Graph) -> None:
        """Index *graph* by the names of its tensors."""
        self.graph = graph
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.constants: Mapping[str, Constant] = {item.name: item for item in graph.initializer}
        self.trees = [node for node in graph.node if is_trees(node)]
        self.readers: dict[str, list[Node]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def nodes_to(self, last: str, begin: str) -> list[Node]:
        """Return the nodes that compute *last* from *begin*, in the order of the graph.

        Raises NotNativeError if another tensor or an operator is needed that is not known.
        """
        needed, waiting = {begin}, [last]
        while waiting:
            name = waiting.pop()
            if name in needed or not name:
                continue
            needed.add(name)
            if name in self.constants:
                continue
            maker = self.makers.get(name)
            if maker is None:
                raise NotNativeError(f"the tensor {name[:40]!r} is read on both sides of trees")
            if maker.op_type not in OPERATORS or maker.domain not in ("", ML_DOMAIN):
                raise NotNativeError(f"the operator {maker.op_type[:40]} stands beside the trees")
            waiting += maker.input
        cut = needed - {begin}
        return [node for node in self.graph.node if any(name in cut for name in node.output)]

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return a constant of non-negative integers; None if *name* is none."""
        constant = self.constants.get(name)
        if constant is None or constant.data_type != INT64:
            return None
        values = list(constant.int64_data) or np.frombuffer(constant.raw_data, "<i8").tolist()
        return tuple(values) if values and min(values) >= 0 else None


def read_onnx_graph(onnx: bytes) -> GraphReader:
    """Return a reader of the graph of *onnx*. NotNativeError: it is too large, or no ONNX file."""
    if len(onnx) > TREES_BYTES_MAX:
        raise NotNativeError(f"it has {len(onnx)} bytes; {TREES_BYTES_MAX} at most are read")
    try:
        return GraphReader(Model.FromString(onnx).graph)
    except DecodeError as error:
        raise NotNativeError("it is no ONNX file") from error


def cut_at_trees(onnx: bytes) -> TreeGraph:
    """Return *onnx* cut at its trees.

    The parts together give what *onnx* gives if the file is as training writes it. The caller
    compares. Raises NotNativeError when there are no trees, several operators of them, or
    operators beside them that are not known.
    """
    reader = read_onnx_graph(onnx)
    graph, found = reader.graph, reader.trees
    if len(found) != 1 or len(found[0].input) != 1:
        raise NotNativeError(f"it has {len(found)} tree operators; one is scored natively")
    (trees,) = found
    if len(trees.output) != TREES[trees.op_type]:
        raise NotNativeError(f"its tree operator has {len(trees.output)} outputs")
    # In front are the nodes that compute the columns of the trees.
    columns = trees.input[0]
    front = None
    kind = DOUBLE if reads_double(trees) else FLOAT
    if columns != INPUTS:
        front = part_of(graph, reader.nodes_to(columns, INPUTS), [matrix_of(columns, None, kind)])
    # Behind are the nodes that compute with their scores.
    place = last_tree_scores(reader, trees)
    behind = None
    if place.name != SCORES:
        behind = part_of(graph, reader.nodes_to(SCORES, place.name), graph.output)
        for node in behind.node:
            node.input[:] = [INPUTS if name == place.name else name for name in node.input]
    return TreeGraph(front, columns, kind, single_trees_graph(trees, place), place.picked, behind)


def file_of(onnx: bytes, part: Graph, width: int | None = None, kind: int = FLOAT) -> bytes:
    """Return *part* as a file with the operator sets and the metadata of *onnx*.

    width  number of columns of its input; None: as in *onnx*.
    kind   element type of its input.
    """
    model = Model.FromString(onnx)
    model.graph.CopyFrom(part)
    if width is not None:
        del model.graph.input[:]
        model.graph.input.append(matrix_of(INPUTS, width, kind))
    return model.SerializeToString()


def numbers_of(constant: Constant) -> NDArray[Any]:
    """Return the numbers of a constant in its shape.

    NotNativeError: it has another type, too many numbers, or not as many as its shape says.
    """
    dtype = DTYPES.get(constant.data_type)
    count = math.prod(constant.dims[:DIMENSIONS_MAX])
    large = len(constant.dims) > DIMENSIONS_MAX or not 0 <= count <= CONSTANT_VALUES_MAX
    if dtype is None or large:
        raise NotNativeError(
            f"a constant of type {constant.data_type} with {count} numbers; "
            f"{CONSTANT_VALUES_MAX} at most are scored natively"
        )
    if constant.raw_data:
        values = np.frombuffer(constant.raw_data, np.uint8)
        values = values[: len(values) // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize]
        values = values.view(dtype)
    else:
        lists: dict[int, Any] = {FLOAT: constant.float_data, DOUBLE: constant.double_data}
        lists |= dict.fromkeys((BOOL, INT32), constant.int32_data)
        lists |= {INT64: constant.int64_data}
        values = np.array(list(lists[constant.data_type]), dtype)
    if values.size != count or min(constant.dims, default=0) < 0:
        raise NotNativeError("a constant has other numbers than its shape says")
    return values.reshape(tuple(constant.dims))


def last_tree_scores(reader: GraphReader, trees: Node) -> TreeScores:
    """Return the last tensor behind *trees* that has their scores, some of them or a Sigmoid."""
    last = place = TreeScores(trees.output[-1])
    wide = False  # the scores are written as float64
    while place.name != SCORES and len(reader.readers.get(place.name, ())) == 1:
        (node,) = reader.readers[place.name]
        integers = reader.integers(node.input[1]) if len(node.input) > 1 else None
        attributes = {item.name: item.i for item in node.attribute}
        to = attributes.get("to") if node.op_type == "Cast" else None
        place = replace(place, name=node.output[0])
        if to in (FLOAT, DOUBLE):
            wide = to == DOUBLE
        elif node.op_type == "Sigmoid" and not (wide or place.sigmoid):
            place = replace(place, sigmoid=True)
        elif integers is not None and _picks_columns(node, attributes):
            if place.picked is not None and max(integers) >= len(place.picked):
                break
            chosen = integers if place.picked is None else [place.picked[at] for at in integers]
            place = replace(place, picked=tuple(chosen))
        elif (
            node.op_type not in AS_IS
            or not all(name in reader.constants for name in node.input[1:])
            or (node.op_type == "Mul" and (numbers_of(reader.constants[node.input[1]]) != 1).any())
            or (node.op_type == "Reshape" and list(reader.constants[node.input[1]].dims) != [2])
        ):
            break
        if not wide:
            last = place
    return last


def _picks_columns(node: Node, attributes: Mapping[str, int]) -> bool:
    if node.op_type == "ArrayFeatureExtractor":
        return True
    return node.op_type == "Gather" and attributes.get("axis", 0) in (1, -1)


def single_trees_graph(trees: Node, place: TreeScores) -> Graph:
    """Return a graph of *trees*, with a Sigmoid behind them if *place* is behind one."""
    graph = Graph(
        name="trees",
        node=[trees],
        input=[matrix_of(INPUTS, None)],
        output=[matrix_of(SCORES, None)],
    )
    graph.node[0].input[:] = [INPUTS]
    graph.node[0].output[-1] = SCORES
    if place.sigmoid:
        graph.node[0].output[-1] = "log_odds"
        graph.node.append(Node(op_type="Sigmoid", input=["log_odds"], output=[SCORES]))
    return graph


def part_of(graph: Graph, nodes: list[Node], outputs: Iterable[Tensor]) -> Graph:
    """Return the graph of *nodes*, with the inputs of *graph* and the constants that they read."""
    used = {name for node in nodes for name in node.input}
    constants = [item for item in graph.initializer if item.name in used]
    return Graph(
        name=graph.name, node=nodes, initializer=constants, input=graph.input, output=outputs
    )


def matrix_of(name: str, width: int | None, kind: int = FLOAT) -> Tensor:
    """Return a tensor of any number of rows, with *width* columns or any number of them."""
    tensor = Tensor(name=name)
    tensor.type.tensor_type.elem_type = kind
    tensor.type.tensor_type.shape.dim.add(dim_param="rows")
    if width is None:
        tensor.type.tensor_type.shape.dim.add(dim_param="columns")
    else:
        tensor.type.tensor_type.shape.dim.add(dim_value=width)
    return tensor
