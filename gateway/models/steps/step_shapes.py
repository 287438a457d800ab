"""Operators that change the shape of a tensor, or pick from it, as steps of a native model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gateway.models.steps.step_builder import KINDS, TEXT, Slot, Stack, StepBuilder, library_kind
from gateway.models.steps.tree_graph import FLOAT, INT64, NotNativeError, numbers_of
from protos.onnx_graph_pb2 import Node

Attributes = Mapping[str, Any]


def axes_of(builder: StepBuilder, node: Node, attributes: Attributes) -> list[int] | None:
    """Return the dimensions that a node names as its second input, or before opset 13 itself."""
    if len(node.input) > 1 and node.input[1]:
        return [int(axis) for axis in builder.constant(node.input[1]).ravel()]
    return attributes.get("axes")


def read_reshape(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    """Reshape that keeps the rows, makes columns of matrices, or a matrix of one dimension."""
    source = builder.source(node.input[0])
    shape = [int(size) for size in builder.constant(node.input[1]).ravel()]
    if 0 in shape and attributes.get("allowzero", 0):
        raise NotNativeError(f"Reshape to {shape[:4]}")
    if isinstance(source, Stack):
        width = source.width * len(source.slots)
        if source.axis == 1 and shape in ([-1, width], [0, width], [0, -1]):
            return join(builder, list(source.slots))
        raise NotNativeError(f"Reshape to {shape[:4]} of {len(source.slots)} matrices")
    width = source.width
    if shape == [-1] and width == 1:
        return replace(source, flat=True)
    if (len(shape) == 2 and shape in ([-1, width], [0, width], [0, -1])) or (
        width == 1 and shape == [-1, 1]
    ):
        return replace(source, flat=False)
    # One matrix of three dimensions.
    for axis, known in ((0, [1, -1, width]), (1, [-1, 1, width])):
        if shape == known:
            return Stack((replace(source, flat=False),), axis)
    raise NotNativeError(f"Reshape to {shape[:4]} of {width} columns")


def read_flatten(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    """Flatten that keeps the rows."""
    source = builder.source(node.input[0])
    if attributes.get("axis", 1) != 1 or (isinstance(source, Stack) and source.axis == 0):
        raise NotNativeError("Flatten changes the number of rows")
    if isinstance(source, Stack):
        return join(builder, list(source.slots))
    return replace(source, flat=False)


def read_unsqueeze(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    """One more dimension, of size 1."""
    source, axes = builder.source(node.input[0]), axes_of(builder, node, attributes)
    if isinstance(source, Slot) and source.flat and axes in ([1], [-1]):
        return replace(source, flat=False)
    if isinstance(source, Slot) and not source.flat and axes in ([0], [1]):
        return Stack((source,), axes[0])
    raise NotNativeError(f"Unsqueeze of {axes}")


def read_squeeze(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    """One dimension of size 1 less."""
    source, axes = builder.source(node.input[0]), axes_of(builder, node, attributes)
    if isinstance(source, Stack) and axes == [source.axis] and len(source.slots) == 1:
        return source.slots[0]
    if isinstance(source, Slot) and source.width == 1 and axes in ([1], [-1]):
        return replace(source, flat=True)
    raise NotNativeError(f"Squeeze of {axes}")


def join(builder: StepBuilder, slots: list[Slot]) -> Slot:
    """Return one matrix with the columns of all."""
    if len(slots) == 1:
        return slots[0]
    if len({slot.kind for slot in slots}) > 1 or any(slot.flat for slot in slots):
        raise NotNativeError("Concat of other things than columns")
    return builder.add("concat", slots, [], sum(slot.width for slot in slots))


def read_concat(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    """Concat of columns, or of the matrices of stacks."""
    sources, axis = [builder.source(name) for name in node.input], attributes.get("axis")
    stacks = [source for source in sources if isinstance(source, Stack)]
    if not stacks and axis in (1, -1):
        return join(builder, [source for source in sources if isinstance(source, Slot)])
    if stacks and len(stacks) == len(sources) and len({stack.axis for stack in stacks}) == 1:
        if axis == stacks[0].axis:
            return Stack(tuple(slot for stack in stacks for slot in stack.slots), axis)
        if axis in (2, -1):
            return builder.each(lambda *slots: join(builder, list(slots)), *stacks)
    raise NotNativeError("Concat of other things than columns")


def read_split(builder: StepBuilder, node: Node, attributes: Attributes) -> None:
    """Split of columns. It gives every output its slot."""
    source = builder.matrix(node.input[0])
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
        columns = list(range(at, min(at + size, source.width)))
        builder.slots[name] = pick(builder, source, columns, "Split")
        at += size


def read_slice(builder: StepBuilder, node: Node, _: Attributes) -> Slot:
    """Slice of columns."""
    source = builder.matrix(node.input[0])
    parts = [builder.constant(name).ravel().tolist() if name else None for name in node.input[1:]]
    starts, ends, axes, steps = [*parts, None, None][:4] if len(parts) > 1 else [None] * 4
    if not (starts and ends and axes in ([1], [-1]) and steps in (None, [1])):
        raise NotNativeError("Slice of other things than neighbouring columns")
    return pick(builder, source, list(range(source.width)[starts[0] : ends[0]]), "Slice")


def read_picked(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    """Gather and ArrayFeatureExtractor: columns of a matrix, or numbers of a constant by index."""
    data, index = node.input[0], node.input[1]
    if data in builder.constants and index not in builder.constants:
        return _by_index(builder, node, attributes)
    source, picked = builder.source(data), builder.constant(index)
    by_column = node.op_type != "Gather" or attributes.get("axis", 0) in (1, -1)
    if not by_column or picked.dtype.kind != "i" or picked.ndim > 2 or isinstance(source, Stack):
        raise NotNativeError(f"{node.op_type} picks other things than columns")
    if node.op_type == "Gather" and picked.ndim != 1:
        raise NotNativeError("Gather makes more or fewer dimensions")
    columns = [int(at) + (source.width if at < 0 else 0) for at in picked.ravel()]
    if source.flat and columns != [0]:
        raise NotNativeError(f"{node.op_type} picks rows")
    return pick(builder, source, columns, node.op_type)


def pick(builder: StepBuilder, source: Slot, columns: list[int], operator: str) -> Slot:
    """Return some columns of a matrix, in this order."""
    if not columns or not 0 <= min(columns) <= max(columns) < source.width:
        raise NotNativeError(f"{operator} picks a column that there is not")
    if columns == list(range(source.width)):
        return source
    return builder.add("columns", [source], columns, len(columns))


def _by_index(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    """Numbers of a constant, one for each index that is computed."""
    indexes, values = builder.source(node.input[1]), builder.constant(node.input[0])
    kind = KINDS[builder.constants[node.input[0]].data_type]
    lists = values.ndim == 1 and attributes.get("axis", 0) in (0, -1)
    if not lists or isinstance(indexes, Stack) or indexes.kind != KINDS[INT64] or indexes.width > 1:
        raise NotNativeError(f"{node.op_type} picks rows of a constant")
    # ONNX Runtime fails on a row whose index there is not, and such a fault counts in a rollout.
    if builder.index_bounds.get(indexes.position, len(values) + 1) > len(values):
        raise NotNativeError(f"{node.op_type} by an index that may be out of range")
    numbers = [float(number) for number in values]
    table = [numbers[0], *(float(at) for at in range(len(numbers))), *numbers]
    of = kind if kind == TEXT else library_kind(kind)
    found = builder.add("look_up", [indexes], [library_kind(kind)], 1, table, of=of)
    # ArrayFeatureExtractor picks columns of one row, so its result is (1, R).
    return found if node.op_type == "Gather" else replace(found, flat=True)


def read_shape(builder: StepBuilder, node: Node, attributes: Attributes) -> None:
    """Shape of a matrix, which only ConstantOfShape may read."""
    source = builder.matrix(node.input[0])
    if attributes:
        raise NotNativeError("Shape of some dimensions")
    builder.shapes[node.output[0]] = source


def read_constant_of_shape(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    """Give every row the same number."""
    like, value = builder.shapes.get(node.input[0]), attributes.get("value")
    if like is None:
        raise NotNativeError("ConstantOfShape of a shape that is no matrix's")
    number = np.zeros(1, np.float32) if value is None else numbers_of(value).ravel()
    kind = KINDS[FLOAT if value is None else value.data_type]
    return builder.row([float(number[0])] * like.width, kind)
