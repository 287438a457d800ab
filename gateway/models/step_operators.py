"""What each operator of ONNX is as steps of a native model.

Each function adds the steps of one node and returns the slot of its last output. NotNativeError:
no steps replace a node with such attributes or tensors.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.models.step_builder import KINDS, Slot, StepBuilder
from gateway.models.tree_graph import BOOL, FLOAT, INT64, ML_DOMAIN, NotNativeError
from protos.onnx_graph_pb2 import Node

Attributes = Mapping[str, Any]
WEIGHTS_MAX = 2**16
"""Weights of all products of a model. With more, ONNX Runtime's kernels are faster by more than its
call costs: 38,000 weights take 4.6 us a row alone and 1.4 us among 64, and by ONNX Runtime 10 and
.8 us."""
PART = 256
"""Products that ONNX Runtime's kernel for packed weights adds before it adds them to a sum. It
rounds so, and so does a step."""
ALL_PRODUCTS = 2**30
"""The length of a part where all products of a sum are added at once, as linear operators do."""

SAME = {
    "Neg": "neg",
    "Abs": "abs",
    "Sqrt": "sqrt",
    "Exp": "exp",
    "Log": "log",
    "Floor": "floor",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "IsNaN": "is_nan",
    "Not": "not",
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Min": "min",
    "Max": "max",
    "Less": "less",
    "LessOrEqual": "less_or_equal",
    "Equal": "equal",
    "And": "and",
    "Or": "or",
    "Greater": "greater",
    "GreaterOrEqual": "greater_or_equal",
    "Where": "where",
    "Sum": "add",
    "Pow": "pow",
}
"""Operators that are one step, or one for each further input."""
FOLDED = {"Min", "Max", "Sum"}
"""Operators with any number of inputs."""


def read_node(builder: StepBuilder, node: Node) -> None:
    """Add the steps of one operator. NotNativeError: it has none."""
    own = ML_OPERATORS if node.domain == ML_DOMAIN else OPERATORS
    reader = own.get(node.op_type) if node.domain in ("", ML_DOMAIN) else None
    if reader is not None:
        builder.slots[node.output[-1]] = reader(builder, node, _attributes(node))
    elif node.domain == "" and node.op_type == "Split":
        _split(builder, node, _attributes(node))
    elif node.domain == "" and node.op_type in SAME:
        builder.slots[node.output[0]] = _same(builder, node)
    else:
        raise NotNativeError(f"the operator {node.op_type[:40]} is not scored natively")


def _same(builder: StepBuilder, node: Node) -> Slot:
    """Add an operator of SAME."""
    kind, names = SAME[node.op_type], list(node.input)
    if node.op_type in FOLDED and len(names) > 1:
        first = builder.source(names[0])
        for name in names[1:]:
            first = builder.pair(kind, first, builder.source(name))
        return first
    sources = [builder.source(name) for name in names]
    if not sources:
        raise NotNativeError(f"the operator {node.op_type} lacks an input")
    if len(sources) == 1:
        truth = node.op_type == "IsNaN"
        return builder.add(kind, sources, [], sources[0].width, of=KINDS[BOOL] if truth else None)
    if len(sources) == 2:
        return builder.pair(kind, *sources)
    width = max(source.width for source in sources)
    return builder.add(kind, sources, [], width, of=sources[1].kind)


def _split(builder: StepBuilder, node: Node, attributes: Attributes) -> None:
    source = builder.source(node.input[0])
    if attributes.get("axis", 0) not in (1, -1):
        raise NotNativeError("Split divides rows")
    if "split" in attributes:
        raise NotNativeError("Split with its sizes as an attribute, as before opset 13")
    if len(node.input) > 1:
        sizes = [int(size) for size in builder.constant(node.input[1])]
    else:
        each = -(-source.width // len(node.output))
        sizes = [each] * len(node.output)
    at = 0
    for name, size in zip(node.output, sizes, strict=True):
        columns = range(at, min(at + size, source.width))
        builder.slots[name] = builder.add("columns", [source], columns, len(columns))
        at += size


def _as_is(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    """Return the slot of what a node reads, if the node only changes its dimensions."""
    source = builder.source(node.input[0])
    if node.op_type == "Reshape":
        shape = builder.constant(node.input[1]).tolist()
        if len(shape) != 2 or shape[0] not in (0, -1) or shape[1] not in (source.width, -1):
            raise NotNativeError(f"Reshape to {shape[:4]} of {source.width} columns")
        if shape == [-1, -1] or (shape[0] == 0 and attributes.get("allowzero", 0)):
            raise NotNativeError(f"Reshape to {shape[:4]}")
        return Slot(source.position, source.width, source.kind)
    if node.op_type == "Flatten":
        if attributes.get("axis", 1) != 1:
            raise NotNativeError("Flatten changes the number of rows")
        return Slot(source.position, source.width, source.kind)
    return source


def _cast(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source, to = builder.source(node.input[0]), attributes.get("to")
    if to not in KINDS:
        raise NotNativeError(f"Cast to the element type {to}")
    if KINDS[to] == source.kind:
        return source
    return builder.add("cast", [source], [KINDS[to]], source.width, of=KINDS[to])


def _matmul(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source, weights = builder.source(node.input[0]), builder.constant(node.input[1])
    if node.op_type == "Gemm":
        plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
        if any(attributes.get(name, value) != value for name, value in plain.items()):
            raise NotNativeError("Gemm with alpha, beta or transA")
        weights = weights.T if attributes.get("transB", 0) else weights
    if weights.ndim != 2 or weights.shape[0] != source.width:
        raise NotNativeError(f"{node.op_type} of {source.width} columns with {weights.shape}")
    bias = np.zeros(weights.shape[1])
    if len(node.input) > 2 and node.input[2]:
        given = builder.constant(node.input[2])
        if given.size not in (1, weights.shape[1]):
            raise NotNativeError("the bias of Gemm is of another size")
        bias = np.broadcast_to(given.ravel(), bias.shape)
    return _dense(builder, source, weights, bias, PART)


def _dense(
    builder: StepBuilder, source: Slot, weights: NDArray[Any], bias: NDArray[Any], part: int
) -> Slot:
    outputs = weights.shape[1]
    builder.weights += weights.size
    if builder.weights > WEIGHTS_MAX:
        raise NotNativeError(f"{builder.weights} weights; {WEIGHTS_MAX} at most are native")
    numbers = np.concatenate([weights.ravel(), bias.ravel()]).astype(np.float64).tolist()
    return builder.add("dense", [source], [outputs, part], outputs, numbers)


def _leaky_relu(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source = builder.source(node.input[0])
    slope = [attributes.get("alpha", 0.01)]
    return builder.add("leaky_relu", [source], [], source.width, slope)


def _softmax(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source = builder.source(node.input[0])
    if attributes.get("axis", -1) not in (1, -1):
        raise NotNativeError("Softmax over rows")
    return builder.add("softmax", [source], [], source.width)


def _reduce_sum(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source = builder.source(node.input[0])
    given = builder.constant(node.input[1]).tolist() if len(node.input) > 1 else None
    axes = attributes.get("axes") if given is None else given
    if axes not in ([1], [-1]) or not attributes.get("keepdims", 1):
        raise NotNativeError("ReduceSum over other dimensions than the columns")
    return builder.add("row_sum", [source], [], 1)


def _clip(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    slot = builder.source(node.input[0])
    for at, kind in ((1, "max"), (2, "min")):
        if len(node.input) > at and node.input[at]:
            slot = builder.pair(kind, slot, builder.source(node.input[at]))
    if {"min", "max"} & attributes.keys():
        raise NotNativeError("Clip with attributes")
    return slot


def _concat(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    sources = [builder.slots.get(name) for name in node.input]
    known = [source for source in sources if source is not None]
    middle = {source.middle for source in known}
    axes = (-1, 2) if True in middle else (-1, 1)
    if len(known) != len(sources) or len(middle) != 1 or attributes.get("axis") not in axes:
        raise NotNativeError("Concat of other things than columns")
    return builder.add("concat", known, [], sum(source.width for source in known))


def _columns(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source, picked = builder.source(node.input[0]), builder.constant(node.input[1])
    by_column = node.op_type != "Gather" or attributes.get("axis", 0) in (1, -1)
    if not by_column or picked.dtype.kind != "i" or picked.ndim > 2:
        raise NotNativeError(f"{node.op_type} picks other things than columns")
    if node.op_type == "Gather" and picked.ndim != 1:
        raise NotNativeError("Gather makes more dimensions")
    columns = [int(at) + (source.width if at < 0 else 0) for at in picked.ravel()]
    if not columns or not 0 <= min(columns) <= max(columns) < source.width:
        raise NotNativeError(f"{node.op_type} picks a column that there is not")
    if columns == list(range(source.width)):
        return source
    return builder.add("columns", [source], columns, len(columns))


def _scaler(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    slot = builder.source(node.input[0])
    for name, kind, neutral in (("offset", "sub", 0.0), ("scale", "mul", 1.0)):
        values = attributes.get(name, [neutral])
        if slot.kind != KINDS[FLOAT] or len(values) not in (1, slot.width):
            raise NotNativeError("Scaler of another width or type")
        slot = builder.add(kind, [slot, builder.row(list(values))], [], slot.width)
    return slot


def _imputer(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source = builder.source(node.input[0])
    filled = attributes.get("imputed_value_floats", [])
    if len(filled) not in (1, source.width) or source.kind != KINDS[FLOAT]:
        raise NotNativeError("Imputer of another width or type")
    numbers = [attributes.get("replaced_value_float", 0.0)]
    numbers += filled if len(filled) == source.width else filled * source.width
    return builder.add("impute", [source], [], source.width, numbers)


def _normalizer(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source, norm = builder.source(node.input[0]), attributes.get("norm", b"MAX")
    kinds = {b"MAX": "row_max", b"L1": "row_l1", b"L2": "row_sum"}
    if norm not in kinds or source.kind != KINDS[FLOAT]:
        raise NotNativeError("Normalizer of another norm or type")
    of = builder.pair("mul", source, source) if norm == b"L2" else source
    size = builder.add(kinds[norm], [of], [], 1)
    # A row of norm 0 stays as it is.
    none = builder.pair("equal", size, builder.row([0.0]))
    divisor = builder.add("where", [none, builder.row([1.0]), size], [], 1, of=KINDS[FLOAT])
    share = builder.pair("div", of, divisor)
    if norm != b"L2":
        return share
    # ONNX Runtime takes the root of each share, and gives it the sign.
    root = builder.add("sqrt", [share], [], share.width)
    negative = builder.pair("less", source, builder.row([0.0]))
    other = builder.add("neg", [root], [], root.width)
    return builder.add("where", [negative, other, root], [], root.width, of=KINDS[FLOAT])


def _one_hot(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source, categories = builder.source(node.input[0]), attributes.get("cats_int64s")
    if source.width != 1 or not categories or not attributes.get("zeros", 1):
        raise NotNativeError("OneHotEncoder of several columns, of texts or with errors")
    slot = builder.add(
        "one_hot", [source], [], len(categories), [float(item) for item in categories]
    )
    return Slot(slot.position, slot.width, KINDS[FLOAT], middle=True)


def _label_encoder(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source, integers = builder.source(node.input[0]), "keys_int64s" in attributes
    keys = attributes.get("keys_int64s" if integers else "keys_floats", [])
    whole = "values_int64s" in attributes
    values = attributes.get("values_int64s" if whole else "values_floats", [])
    default = attributes.get("default_int64", -1) if whole else attributes.get("default_float", 0.0)
    if not keys or len(keys) != len(values) or source.kind != KINDS[INT64 if integers else FLOAT]:
        raise NotNativeError("LabelEncoder of texts")
    numbers = [float(number) for number in (default, *keys, *values)]
    of = KINDS[INT64 if whole else FLOAT]
    return builder.add("look_up", [source], [of], source.width, numbers, of=of)


def _linear(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source, transform = builder.source(node.input[0]), attributes.get("post_transform", b"NONE")
    weights = np.array(attributes.get("coefficients", ()), np.float32)
    if source.kind != KINDS[FLOAT] or not weights.size or weights.size % source.width:
        raise NotNativeError(f"{node.op_type} of another width or type")
    weights = weights.reshape(-1, source.width).T
    outputs = weights.shape[1]
    bias = np.array(attributes.get("intercepts") or [0.0] * outputs, np.float32)
    regressor = node.op_type == "LinearRegressor"
    if bias.size != outputs or (regressor and attributes.get("targets", 1) != outputs):
        raise NotNativeError(f"{node.op_type} with other numbers of weights")
    slot = _dense(builder, source, weights, bias, ALL_PRODUCTS)
    return slot if transform == b"NONE" else _transform(builder, slot, transform)


def _transform(builder: StepBuilder, slot: Slot, transform: bytes) -> Slot:
    kinds = {b"LOGISTIC": "sigmoid", b"SOFTMAX": "softmax"}
    if transform not in kinds:
        raise NotNativeError(f"sums are transformed by {transform[:40]!r}")
    return builder.add(kinds[transform], [slot], [], slot.width)


def _linear_classifier(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    """Add the probabilities of a linear classifier, which are its second output."""
    labels = attributes.get("classlabels_ints") or attributes.get("classlabels_strings") or ()
    slot = _linear(builder, node, {**attributes, "post_transform": b"NONE"})
    transform = attributes.get("post_transform", b"NONE")
    if len(node.output) != 2:
        raise NotNativeError("LinearClassifier without probabilities")
    if slot.width == 1 and len(labels) == 2 and transform == b"LOGISTIC":
        # One row of weights is about the second class.
        other = builder.add("neg", [slot], [], 1)
        both = builder.add("concat", [other, slot], [], 2)
        slot = _transform(builder, both, transform)
    elif slot.width != len(labels) or slot.width < 2:
        raise NotNativeError(f"LinearClassifier of {len(labels)} classes, {slot.width} rows")
    elif transform != b"NONE":
        slot = _transform(builder, slot, transform)
    return slot


OPERATORS: Mapping[str, Callable[[StepBuilder, Node, Attributes], Slot]] = {
    "Identity": _as_is,
    "Reshape": _as_is,
    "Flatten": _as_is,
    "Cast": _cast,
    "MatMul": _matmul,
    "Gemm": _matmul,
    "LeakyRelu": _leaky_relu,
    "Softmax": _softmax,
    "ReduceSum": _reduce_sum,
    "Clip": _clip,
    "Concat": _concat,
    "Gather": _columns,
}
ML_OPERATORS: Mapping[str, Callable[[StepBuilder, Node, Attributes], Slot]] = {
    "ArrayFeatureExtractor": _columns,
    "Scaler": _scaler,
    "Imputer": _imputer,
    "Normalizer": _normalizer,
    "OneHotEncoder": _one_hot,
    "LabelEncoder": _label_encoder,
    "LinearRegressor": _linear,
    "LinearClassifier": _linear_classifier,
}


KNOWN = {*SAME, *OPERATORS, *ML_OPERATORS, "Split"}
"""All operators that are steps."""


def _attributes(node: Node) -> dict[str, Any]:
    """Return the attributes of a node: a number, bytes, or a list."""
    read: dict[str, Any] = {}
    for item in node.attribute:
        if item.HasField("t"):
            raise NotNativeError(f"{node.op_type[:40]} with a tensor as {item.name[:40]}")
        if item.HasField("i"):
            read[item.name] = item.i
        elif item.HasField("f"):
            read[item.name] = item.f
        elif item.HasField("s"):
            read[item.name] = item.s
        else:
            read[item.name] = list(item.floats) or list(item.ints) or list(item.strings)
    return read
