"""Operators of ai.onnx.ml beside trees, as steps of a native model."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gateway.models.steps.step_builder import (
    KINDS,
    TEXT,
    Slot,
    Stack,
    StepBuilder,
    library_kind,
)
from gateway.models.steps.step_products import ALL_PRODUCTS, add_product
from gateway.models.steps.step_reductions import read_normalizer
from gateway.models.steps.step_shapes import read_picked
from gateway.models.steps.tree_graph import FLOAT, INT64, STRING, NotNativeError, numbers_of
from protos.onnx_graph_pb2 import Node

Attributes = Mapping[str, Any]
TABLE_TYPES = {"int64": INT64, "float": FLOAT, "string": STRING}
"""What the lists of a LabelEncoder are named by -> element type."""
TABLE_DEFAULTS: Mapping[int, Any] = {INT64: -1, FLOAT: 0.0, STRING: b"_Unused"}


def _scaler(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    slot = builder.matrix(node.input[0])
    for name, kind, neutral in (("offset", "sub", 0.0), ("scale", "mul", 1.0)):
        values = attributes.get(name, [neutral])
        if slot.kind != KINDS[FLOAT] or len(values) not in (1, slot.width):
            raise NotNativeError("Scaler of another width or type")
        slot = builder.add(kind, [slot, builder.row(list(values))], [], slot.width)
    return slot


def _imputer(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source = builder.matrix(node.input[0])
    filled = attributes.get("imputed_value_floats", [])
    if len(filled) not in (1, source.width) or source.kind != KINDS[FLOAT]:
        raise NotNativeError("Imputer of another width or type")
    numbers = [attributes.get("replaced_value_float", 0.0)]
    numbers += filled if len(filled) == source.width else filled * source.width
    return builder.add("impute", [source], [], source.width, numbers)


def _one_hot(builder: StepBuilder, node: Node, attributes: Attributes) -> Stack:
    source, zeros = builder.matrix(node.input[0]), attributes.get("zeros", 1)
    texts = source.kind == TEXT
    categories = attributes.get("cats_strings" if texts else "cats_int64s", [])
    numbers = [builder.text(item) if texts else float(item) for item in categories]
    if source.width != 1 or not numbers or not zeros:
        raise NotNativeError("OneHotEncoder of several columns, of no categories or with errors")
    slot = builder.add("one_hot", [source], [], len(numbers), numbers, of=KINDS[FLOAT])
    return Stack((slot,), 1)


def _label_encoder(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot | Stack:
    source = builder.source(node.input[0])
    kind = source.slots[0].kind if isinstance(source, Stack) else source.kind
    (keyed, keys), (to, values) = (_table(builder, attributes, part) for part in ("keys", "values"))
    if not keys or len(keys) != len(values) or kind != KINDS.get(keyed) or to not in KINDS:
        raise NotNativeError("LabelEncoder of another type, or with lists that do not fit")
    default = TABLE_DEFAULTS.get(to, 0.0)
    for name, of in TABLE_TYPES.items():
        default = attributes.get(f"default_{name}", default) if of == to else default
    if "default_tensor" in attributes:
        default = (numbers_of(attributes["default_tensor"]).ravel().tolist() or [default])[0]
    first = builder.text(default) if isinstance(default, bytes) else float(default)
    numbers, of = [first, *keys, *values], KINDS[to]
    return builder.each(
        lambda slot: builder.add("look_up", [slot], [library_kind(of)], slot.width, numbers, of=of),
        source,
    )


def _table(builder: StepBuilder, attributes: Attributes, part: str) -> tuple[int, list[float]]:
    """Return the element type of the keys or values of a LabelEncoder, and the numbers of them."""
    tensor = attributes.get(f"{part}_tensor")
    if tensor is not None:
        return tensor.data_type, [float(number) for number in numbers_of(tensor).ravel()]
    for name, kind in TABLE_TYPES.items():
        given = attributes.get(f"{part}_{name}s")
        if given:
            texts = kind == STRING
            return kind, [builder.text(item) if texts else float(item) for item in given]
    return FLOAT, []


def _linear(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    source, transform = builder.matrix(node.input[0]), attributes.get("post_transform", b"NONE")
    weights = np.array(attributes.get("coefficients", ()), np.float32)
    if source.kind != KINDS[FLOAT] or not weights.size or weights.size % source.width:
        raise NotNativeError(f"{node.op_type} of another width or type")
    weights = weights.reshape(-1, source.width).T
    outputs = weights.shape[1]
    bias = np.array(attributes.get("intercepts") or [0.0] * outputs, np.float32)
    regressor = node.op_type == "LinearRegressor"
    if bias.size != outputs or (regressor and attributes.get("targets", 1) != outputs):
        raise NotNativeError(f"{node.op_type} with other numbers of weights")
    slot = add_product(builder, source, weights, bias, ALL_PRODUCTS)
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


ML_OPERATORS: Mapping[str, Callable[[StepBuilder, Node, Attributes], Slot | Stack]] = {
    "ArrayFeatureExtractor": read_picked,
    "Scaler": _scaler,
    "Imputer": _imputer,
    "Normalizer": read_normalizer,
    "OneHotEncoder": _one_hot,
    "LabelEncoder": _label_encoder,
    "LinearRegressor": _linear,
    "LinearClassifier": _linear_classifier,
}
