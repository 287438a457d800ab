"""Products with a matrix of weights, as steps of a native model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.models.steps.step_builder import Slot, StepBuilder
from gateway.models.steps.tree_graph import NotNativeError
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


def read_product(builder: StepBuilder, node: Node, attributes: Attributes) -> Slot:
    """MatMul and Gemm with constant weights."""
    source, weights = builder.matrix(node.input[0]), builder.constant(node.input[1])
    scale, share = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if node.op_type == "Gemm":
        if attributes.get("transA", 0):
            raise NotNativeError("Gemm with transA")
        weights = weights.T if attributes.get("transB", 0) else weights
    if weights.ndim != 2 or weights.shape[0] != source.width:
        raise NotNativeError(f"{node.op_type} of {source.width} columns with {weights.shape}")
    bias = np.zeros(weights.shape[1])
    if len(node.input) > 2 and node.input[2]:
        given = builder.constant(node.input[2])
        if given.size not in (1, weights.shape[1]):
            raise NotNativeError("the bias of Gemm is of another size")
        bias = np.broadcast_to(given.ravel(), bias.shape)
    return add_product(builder, source, weights * scale, bias * share, PART)


def add_product(
    builder: StepBuilder, source: Slot, weights: NDArray[Any], bias: NDArray[Any], part: int
) -> Slot:
    """Add a product with (inputs, outputs) weights, of which *part* products are added at once."""
    outputs = weights.shape[1]
    builder.weights += weights.size
    if builder.weights > WEIGHTS_MAX:
        raise NotNativeError(f"{builder.weights} weights; {WEIGHTS_MAX} at most are native")
    numbers = np.concatenate([weights.ravel(), bias.ravel()]).astype(np.float64).tolist()
    return builder.add("dense", [source], [outputs, part, 0], outputs, numbers)
