"""Makes the graph that skl2onnx writes for float64 inputs one that ONNX Runtime loads.

scikit-learn scales, imputes and multiplies in float64. In float32, a scaler moves rows across the
thresholds of trees behind it, and a column such as a time in seconds loses its last digits. Trees
take float32, as in scikit-learn and XGBoost, and their scores are float32.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
SCORES_AT = {"TreeEnsembleClassifier": 1, "TreeEnsembleRegressor": 0}
"""Operator -> which of its outputs has scores."""


def widened(model: Any, imputed: Sequence[NDArray[np.float64]]) -> Any:  # noqa: ANN401  onnx.ModelProto
    """Return *model* with trees between casts, imputers as simple nodes, and float32 outputs.

    imputed  values of each imputer in float64, because its node has float32 only.
    """
    # Nodes that ONNX Runtime has in float32 only are replaced or stand between casts.
    nodes: list[Any] = []
    constants = list(model.graph.initializer)
    narrow = {
        item.name
        for item in model.graph.output
        if item.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    for index, node in enumerate(model.graph.node):
        if node.op_type in TREES:
            nodes += _cast_around(node, index, narrow)
        elif node.op_type == "ConstantOfShape":
            nodes.append(_double_constant(node))
        elif node.op_type == "Imputer":
            more_nodes, more_constants = _imputer(node, index, imputed)
            nodes += more_nodes
            constants += more_constants
        else:
            nodes.append(node)
    # Scores leave the graph as float32.
    outputs = []
    for output in model.graph.output:
        narrowed = output.type.tensor_type.elem_type == TensorProto.DOUBLE
        if narrowed:
            inside = f"{output.name}/double"
            for node in nodes:
                node.output[:] = [inside if name == output.name else name for name in node.output]
                node.input[:] = [inside if name == output.name else name for name in node.input]
            nodes.append(helper.make_node("Cast", [inside], [output.name], to=TensorProto.FLOAT))
            output.type.tensor_type.elem_type = TensorProto.FLOAT
        outputs.append(output)
    graph = helper.make_graph(nodes, model.graph.name, list(model.graph.input), outputs, constants)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.CopyFrom(graph)
    return result


def _cast_around(node: Any, index: int, float_outputs: set[str]) -> list[Any]:  # noqa: ANN401  onnx.NodeProto
    """Return the node of trees between a cast to float32 and a cast back to float64.

    float_outputs  outputs of the graph that the converter knows to be float32 already.
    """
    narrow, trees = f"trees_{index}/input", onnx.NodeProto()
    trees.CopyFrom(node)
    trees.input[0] = narrow
    at = SCORES_AT[node.op_type]
    cast = helper.make_node("Cast", [node.input[0]], [narrow], to=TensorProto.FLOAT)
    if node.output[at] in float_outputs:
        return [cast, trees]
    trees.output[at] = f"trees_{index}/scores"
    return [
        cast,
        trees,
        helper.make_node("Cast", [trees.output[at]], [node.output[at]], to=TensorProto.DOUBLE),
    ]


def _double_constant(node: Any) -> Any:  # noqa: ANN401  onnx.NodeProto
    """Return a ConstantOfShape whose float32 value is float64, as what it is joined with."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    zero = np.zeros(1, np.float32)
    value = numpy_helper.to_array(attributes["value"]) if "value" in attributes else zero
    if value.dtype != np.float32:
        return node
    tensor = numpy_helper.from_array(np.asarray(value, np.float64))
    return helper.make_node("ConstantOfShape", list(node.input), list(node.output), value=tensor)


def _imputer(
    node: Any,  # noqa: ANN401  onnx.NodeProto
    index: int,
    imputed: Sequence[NDArray[np.float64]],
) -> tuple[list[Any], list[Any]]:
    """Return nodes and constants that replace one value by another, as `Imputer` in float64."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    values = np.array(attributes.get("imputed_value_floats", []), dtype=np.float64)
    if not len(values):
        return [node], []  # texts or whole numbers, which have no other width
    for exact in imputed:
        if np.array_equal(exact.astype(np.float32), values.astype(np.float32)):
            values = exact
    replaced = float(attributes.get("replaced_value_float", np.nan))
    prefix = f"imputer_{index}"
    missing, (source,), (target,) = f"{prefix}/missing", node.input, node.output
    constants = [numpy_helper.from_array(values[np.newaxis], f"{prefix}/values")]
    if np.isnan(replaced):
        test = helper.make_node("IsNaN", [source], [missing])
    else:
        constants.append(numpy_helper.from_array(np.array([replaced]), f"{prefix}/replaced"))
        test = helper.make_node("Equal", [source, f"{prefix}/replaced"], [missing])
    choice = helper.make_node("Where", [missing, f"{prefix}/values", source], [target])
    return [test, choice], constants
