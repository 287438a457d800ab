"""Converts a fitted scikit-learn model to the ONNX graph of a version, always to the same bytes."""

import math
import warnings
from typing import Any

import onnx
from onnx import TensorProto, helper
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.convert import to_onnx

from training.errors import ConversionError
from training.export.onnx_model import IR_VERSION, ML_OPSET, OPSET

CONTRACT_PROPERTY = "turnout.contract"
_TENSOR_TYPE: Any = FloatTensorType
_TO_ONNX: Any = to_onnx


def convert_to_onnx(
    model: Any,  # noqa: ANN401  scikit-learn has no common type
    *,
    name: str,
    width: int,
    model_contract: str,
    negatives_share: float = 1.0,
) -> bytes:
    """Return ONNX bytes that map `inputs`, float32 (B, F), to `scores`, float32 (B, 1).

    A score is P(positive).

    name            name of the graph. skl2onnx would give it a random name.
    width           F.
    model_contract  hash (hex) for the metadata. It is compared with contract.json at every load.
    negatives_share share of the negative rows that the model was fitted on. Below 1 the graph
                    corrects the odds: it adds the share's logarithm to their logarithm.

    Raises ConversionError when skl2onnx cannot convert the model, or it gives no probabilities.
    """
    try:
        with warnings.catch_warnings():
            # skl2onnx 1.20 writes bools into an int field for HistGradientBoosting. protobuf 6
            # warns and converts them. protobuf 7 raises, so it is excluded.
            warnings.filterwarnings("ignore", "Field onnx.AttributeProto", DeprecationWarning)
            converted = _TO_ONNX(
                model,
                initial_types=[("inputs", _TENSOR_TYPE([None, width]))],
                options={"zipmap": False},
                target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
                name=name,
            )
    except Exception as error:
        raise ConversionError(
            f"skl2onnx cannot convert {type(model).__name__}: {error!r}; use logistic, forest or "
            "boosting, with sigmoid calibration or none"
        ) from error
    rewritten = _with_single_output(converted, name, width, model_contract, negatives_share)
    return bytes(rewritten.SerializeToString(deterministic=True))


def _with_single_output(
    converted: Any,  # noqa: ANN401
    name: str,
    width: int,
    model_contract: str,
    negatives_share: float,
) -> Any:  # noqa: ANN401
    # A label and two probabilities are what a binary classifier gives.
    outputs = [value.name for value in converted.graph.output]
    if "probabilities" not in outputs:
        raise ConversionError(
            f"the converted graph has outputs {outputs}; `probabilities` (B, 2) is needed, so use "
            "a classifier"
        )
    # Replace the label and the two probabilities by one column of scores.
    nodes, constants = _boosted_as_regressor(
        converted.graph, math.log(negatives_share)
    ) or _positive_column_nodes(converted.graph, negatives_share)
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    rewritten = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="turnout",
    )
    helper.set_model_props(rewritten, {CONTRACT_PROPERTY: model_contract})
    onnx.checker.check_model(rewritten)
    return rewritten


def _positive_column_nodes(graph: Any, negatives_share: float) -> tuple[list[Any], list[Any]]:  # noqa: ANN401
    """Return nodes and constants that select `scores` from `probabilities` (B, 2).

    With *negatives_share* below 1, p becomes p / (p + (1 - p) / negatives_share): the shift of the
    log-odds by its logarithm, without an infinity at 0 or 1.
    """
    positive = helper.make_tensor("positive_column", TensorProto.INT64, [1], [1])
    selected = "scores" if negatives_share == 1.0 else "learnt"
    column = helper.make_node("Gather", ["probabilities", positive.name], [selected], axis=1)
    if negatives_share == 1.0:
        return [*graph.node, column], [*graph.initializer, positive]
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    left_out = helper.make_tensor("negatives_share", TensorProto.FLOAT, [1], [negatives_share])
    corrected = [
        helper.make_node("Sub", [one.name, "learnt"], ["negative"]),
        helper.make_node("Div", ["negative", left_out.name], ["all_negative"]),
        helper.make_node("Add", ["learnt", "all_negative"], ["either"]),
        helper.make_node("Div", ["learnt", "either"], ["scores"]),
    ]
    constants = [*graph.initializer, positive, one, left_out]
    return [*graph.node, column, *corrected], constants


def _boosted_as_regressor(graph: Any, shift: float) -> tuple[list[Any], list[Any]] | None:  # noqa: ANN401
    """Return a boosted binary classifier as a regressor and a sigmoid, with the same trees.

    The regressor computes no label and no second column: 64 rows of 100 trees take 155 us, and
    192 us with the classifier. Return None for any other graph. The parity certificate is made
    for the result.

    shift  is added to the log-odds of every row.
    """
    # Only a single tree ensemble with one class and one base value can be replaced.
    node = graph.node[0]
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if (
        len(graph.node) != 1
        or node.op_type != "TreeEnsembleClassifier"
        or attributes.get("post_transform") != b"LOGISTIC"
        or len(set(attributes["class_ids"])) != 1
        or len(attributes.get("base_values", [])) != 1
    ):
        return None
    # The nodes stay. The attributes of the leaves get the regressor's names.
    trees = {name: value for name, value in attributes.items() if name.startswith("nodes_")}
    leaves = {
        f"target_{name}": attributes[f"class_{name}"]
        for name in ("ids", "nodeids", "treeids", "weights")
    }
    regressor = helper.make_node(
        "TreeEnsembleRegressor",
        ["inputs"],
        ["log_odds"],
        domain="ai.onnx.ml",
        n_targets=1,
        base_values=[value + shift for value in attributes["base_values"]],
        **trees,
        **{**leaves, "target_ids": [0] * len(leaves["target_ids"])},
    )
    return [regressor, helper.make_node("Sigmoid", ["log_odds"], ["scores"])], []
