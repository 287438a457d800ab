"""Operators that make fewer numbers of many, as steps of a native model."""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from gateway.models.steps.step_builder import KINDS, Slot, Stack, StepBuilder
from gateway.models.steps.step_shapes import axes_of, join
from gateway.models.steps.tree_graph import FLOAT, INT64, NotNativeError
from protos.onnx_graph_pb2 import Node

Attributes = Mapping[str, Any]
BEFORE = {"SumSquare": "square", "L2": "square", "L1": "abs"}
"""Reduction -> what is done with each number before."""
AFTER = {"L2": "sqrt", "LogSum": "log"}
"""Reduction -> what is done with the result."""
FOLDS = {"Max": "max", "Min": "min", "Prod": "mul"}
"""Reduction -> step of two operands. All others are sums."""
ROWS = {"add": "row_sum", "max": "row_max", "min": "row_min", "mul": "row_product"}
"""Step of two operands -> the step that reduces a row so."""


def read_reduction(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    """ReduceSum, ReduceMean and their like, over columns or over the matrices of a stack."""
    kind, source = node.op_type.removeprefix("Reduce"), builder.source(node.input[0])
    axes, keeps = axes_of(builder, node, attributes), bool(attributes.get("keepdims", 1))
    if isinstance(source, Slot) and axes in ([1], [-1]) and not source.flat:
        return replace(_reduce(builder, kind, [source]), flat=not keeps)
    if isinstance(source, Stack) and axes == [source.axis]:
        found = _reduce(builder, kind, list(source.slots), by_column=False)
        return Stack((found,), source.axis) if keeps else found
    if isinstance(source, Stack) and axes in ([2], [-1]) and (keeps or source.axis == 1):
        slots = tuple(_reduce(builder, kind, [slot]) for slot in source.slots)
        return Stack(slots, source.axis) if keeps else join(builder, list(slots))
    raise NotNativeError(f"{node.op_type} over the dimensions {axes}")


def _reduce(builder: StepBuilder, kind: str, slots: list[Slot], *, by_column: bool = True) -> Slot:
    """Reduce the columns of one matrix to one column, or several matrices to one."""
    fold, count = FOLDS.get(kind, "add"), slots[0].width if by_column else len(slots)
    if kind == "LogSumExp":
        # The largest number is taken out, so that no sum is infinite.
        most = _folded(builder, "max", slots, by_column=by_column)
        slots = [builder.add("exp", [builder.pair("sub", s, most)], [], s.width) for s in slots]
        total = _folded(builder, "add", slots, by_column=by_column)
        return builder.pair("add", builder.add("log", [total], [], total.width), most)
    before, after = BEFORE.get(kind), AFTER.get(kind)
    if before == "square":
        slots = [builder.pair("mul", slot, slot) for slot in slots]
    elif before is not None:
        slots = [builder.add(before, [slot], [], slot.width) for slot in slots]
    total = _folded(builder, fold, slots, by_column=by_column)
    if kind == "Mean":
        return builder.pair("div", total, builder.row([float(count)], total.kind))
    return total if after is None else builder.add(after, [total], [], total.width)


def _folded(builder: StepBuilder, fold: str, slots: list[Slot], *, by_column: bool) -> Slot:
    if by_column:
        return builder.add(ROWS[fold], slots, [], 1)
    return reduce(lambda one, other: builder.pair(fold, one, other), slots)


def read_arg(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    """ArgMax and ArgMin of a row."""
    source = builder.matrix(node.input[0])
    if attributes.get("axis", 0) not in (1, -1) or attributes.get("select_last_index", 0):
        raise NotNativeError(f"{node.op_type} over rows, or of the last of equal numbers")
    kind = "arg_max" if node.op_type == "ArgMax" else "arg_min"
    found = builder.add(kind, [source], [], 1, of=KINDS[INT64])
    builder.index_bounds[found.position] = source.width
    return replace(found, flat=not attributes.get("keepdims", 1))


def read_softmax(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    """Softmax of a row."""
    source = builder.matrix(node.input[0])
    if attributes.get("axis", -1) not in (1, -1):
        raise NotNativeError("Softmax over rows")
    return builder.add("softmax", [source], [], source.width)


def read_lp_normalization(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    """LpNormalization: a row of norm 0 becomes zeros."""
    source, power = builder.matrix(node.input[0]), attributes.get("p", 2)
    if attributes.get("axis", -1) not in (1, -1) or power not in (1, 2):
        raise NotNativeError("LpNormalization over rows, or of another norm")
    norm = _reduce(builder, f"L{power}", [source])
    zero = builder.row([0.0], source.kind)
    share = builder.pair("div", source, norm)
    none = builder.pair("equal", norm, zero)
    return builder.add("where", [none, zero, share], [], share.width, of=source.kind)


def read_normalizer(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    """Normalizer of ai.onnx.ml: a row of norm 0 stays as it is."""
    source, norm = builder.matrix(node.input[0]), attributes.get("norm", b"MAX")
    kinds = {b"MAX": "Max", b"L1": "L1", b"L2": "Sum"}
    if norm not in kinds or source.kind != KINDS[FLOAT]:
        raise NotNativeError("Normalizer of another norm or type")
    of = builder.pair("mul", source, source) if norm == b"L2" else source
    size = _reduce(builder, kinds[norm], [of])
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
