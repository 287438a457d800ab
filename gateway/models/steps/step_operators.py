"""What each operator of ONNX is as steps of a native model.

Each function adds the steps of one node and returns where its last output is. NotNativeError: no
steps replace a node with such attributes or tensors.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.models.steps.step_builder import KINDS, TEXT, Slot, Stack, StepBuilder
from gateway.models.steps.step_ml_operators import ML_OPERATORS
from gateway.models.steps.step_products import read_product
from gateway.models.steps.step_reductions import (
    read_arg,
    read_lp_normalization,
    read_reduction,
    read_softmax,
)
from gateway.models.steps.step_shapes import (
    read_concat,
    read_constant_of_shape,
    read_flatten,
    read_picked,
    read_reshape,
    read_shape,
    read_slice,
    read_split,
    read_squeeze,
    read_unsqueeze,
)
from gateway.models.steps.tree_graph import BOOL, DOUBLE, FLOAT, ML_DOMAIN, NotNativeError
from protos.onnx_graph_pb2 import Node

Attributes = Mapping[str, Any]

FUNCTIONS = {
    "Neg": "neg",
    "Abs": "abs",
    "Sqrt": "sqrt",
    "Exp": "exp",
    "Log": "log",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sign": "sign",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "IsNaN": "is_nan",
    "Not": "not",
}
"""Operators of one tensor -> their step."""
PAIRS = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Pow": "pow",
    "Less": "less",
    "LessOrEqual": "less_or_equal",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_or_equal",
    "And": "and",
    "Or": "or",
    "Min": "min",
    "Max": "max",
    "Sum": "add",
}
"""Operators of two tensors -> their step. Min, Max and Sum take any number, and are folded."""


def read_node(builder: StepBuilder, node: Node) -> None:
    """Add the steps of one operator. NotNativeError: it has none."""
    own = ML_OPERATORS if node.domain == ML_DOMAIN else OPERATORS
    reader = own.get(node.op_type) if node.domain in ("", ML_DOMAIN) else None
    if reader is not None:
        builder.slots[node.output[-1]] = reader(builder, node, _attributes(node))
    elif node.domain == "" and node.op_type in WITHOUT_SLOT:
        WITHOUT_SLOT[node.op_type](builder, node, _attributes(node))
    else:
        raise NotNativeError(f"the operator {node.op_type[:40]} is not scored natively")


def _relu(builder: StepBuilder, node: Node, _: Attributes) -> Slot | Stack:
    source = builder.source(node.input[0])
    if isinstance(source, Slot) and builder.take_relu(node.input[0], source):
        return source
    return builder.map("relu", source)


def _function(builder: StepBuilder, node: Node, _: Attributes) -> Slot | Stack:
    truth = KINDS[BOOL] if node.op_type == "IsNaN" else None
    return builder.map(FUNCTIONS[node.op_type], builder.source(node.input[0]), of=truth)


def _pairs(builder: StepBuilder, node: Node, _: Attributes) -> Slot | Stack:
    kind, names = PAIRS[node.op_type], node.input
    first = builder.source(names[0])
    if len(names) == 1:
        return first
    for name in names[1:]:
        first = builder.pairs(kind, first, builder.source(name))
    return first


def _where(builder: StepBuilder, node: Node, _: Attributes) -> Slot | Stack:
    def choose(test: Slot, yes: Slot, no: Slot) -> Slot:
        width = max(test.width, yes.width, no.width)
        if (yes.kind == TEXT) != (no.kind == TEXT):
            raise NotNativeError("Where of texts and numbers")
        return builder.add("where", [test, yes, no], [], width, of=yes.kind)

    return builder.each(choose, *(builder.source(name) for name in node.input[:3]))


def _reciprocal(builder: StepBuilder, node: Node, _: Attributes) -> Slot | Stack:
    source = builder.source(node.input[0])
    one = builder.row([1.0], source.slots[0].kind if isinstance(source, Stack) else source.kind)
    return builder.pairs("div", one, source)


def _leaky_relu(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    slope = [attributes.get("alpha", 0.01)]
    return builder.each(
        lambda slot: builder.add("leaky_relu", [slot], [], slot.width, slope),
        builder.source(node.input[0]),
    )


def _clip(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    slot = builder.source(node.input[0])
    for at, kind in ((1, "max"), (2, "min")):
        if len(node.input) > at and node.input[at]:
            slot = builder.pairs(kind, slot, builder.source(node.input[at]))
    if {"min", "max"} & attributes.keys():
        raise NotNativeError("Clip with attributes")
    return slot


def _identity(builder: StepBuilder, node: Node, _: Attributes) -> Slot | Stack:
    return builder.source(node.input[0])


def _cast(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    to = KINDS.get(attributes.get("to", FLOAT))
    if to is None or to == TEXT:
        raise NotNativeError(f"Cast to the element type {attributes.get('to')}")

    def cast(slot: Slot) -> Slot:
        if to == slot.kind:
            return slot
        added = builder.add("cast", [slot], [to], slot.width, of=to)
        if (slot.kind, to) == (KINDS[FLOAT], KINDS[DOUBLE]):
            builder.narrower[added.position] = slot
        return added

    return builder.each(cast, builder.source(node.input[0]))


OPERATORS: Mapping[str, Callable[[StepBuilder, Node, Attributes], Slot | Stack]] = {
    **dict.fromkeys(FUNCTIONS, _function),
    **dict.fromkeys(PAIRS, _pairs),
    **{
        f"Reduce{kind}": read_reduction
        for kind in ("Sum", "Mean", "Max", "Min", "Prod", "SumSquare", "L1", "L2")
    },
    "ReduceLogSum": read_reduction,
    "ReduceLogSumExp": read_reduction,
    "ArgMax": read_arg,
    "ArgMin": read_arg,
    "Where": _where,
    "Reciprocal": _reciprocal,
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "Clip": _clip,
    "Identity": _identity,
    "Cast": _cast,
    "MatMul": read_product,
    "Gemm": read_product,
    "Softmax": read_softmax,
    "LpNormalization": read_lp_normalization,
    "Reshape": read_reshape,
    "Flatten": read_flatten,
    "Squeeze": read_squeeze,
    "Unsqueeze": read_unsqueeze,
    "Concat": read_concat,
    "Slice": read_slice,
    "Gather": read_picked,
    "ConstantOfShape": read_constant_of_shape,
}


WITHOUT_SLOT: Mapping[str, Callable[[StepBuilder, Node, Attributes], None]] = {
    "Split": read_split,
    "Shape": read_shape,
}
"""Operators that have several slots, or none."""
KNOWN = {*OPERATORS, *ML_OPERATORS, *WITHOUT_SLOT}
"""All operators that are steps."""


def _attributes(node: Node) -> dict[str, Any]:
    """Return the attributes of a node: a number, bytes, a list, or a constant."""
    read: dict[str, Any] = {}
    for item in node.attribute:
        if item.HasField("t"):
            read[item.name] = item.t
        elif item.HasField("i"):
            read[item.name] = item.i
        elif item.HasField("f"):
            read[item.name] = item.f
        elif item.HasField("s"):
            read[item.name] = item.s
        else:
            read[item.name] = list(item.floats) or list(item.ints) or list(item.strings)
    return read
