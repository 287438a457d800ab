"""Fitted scikit-learn model -> the one graph a version holds, byte for byte the same each time."""

import warnings
from typing import Any

import onnx
from onnx import TensorProto, helper
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.convert import to_onnx

from training.errors import ConversionError

OPSET = 21
ML_OPSET = 3
IR_VERSION = 10
CONTRACT_PROPERTY = "turnout.contract"
_TENSOR_TYPE: Any = FloatTensorType
_TO_ONNX: Any = to_onnx


def convert(model: Any, *, name: str, width: int, model_contract: str) -> bytes:  # noqa: ANN401  scikit-learn has no common type
    """Return ONNX bytes: `inputs` float32 (B, F) -> `scores` float32 (B, 1) = P(positive).

    name            of the graph; skl2onnx would draw a random one.
    width           F.
    model_contract  hex, into metadata_props: proved against contract.json at every load.

    Raises ConversionError when skl2onnx cannot, or gives something else than probabilities.
    """
    try:
        with warnings.catch_warnings():
            # skl2onnx 1.20 writes HistGradientBoosting's missing-value flags as bool where the
            # field is int; protobuf 6 warns and converts (protobuf 7 refuses, hence our < 7).
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
            f"skl2onnx cannot convert {type(model).__name__}: {error!r}; logistic, forest and "
            "boosting with sigmoid calibration at most are known to work"
        ) from error
    rewritten = _one_output(converted, name, width, model_contract)
    return bytes(rewritten.SerializeToString(deterministic=True))


def _one_output(converted: Any, name: str, width: int, model_contract: str) -> Any:  # noqa: ANN401
    outputs = [value.name for value in converted.graph.output]
    if "probabilities" not in outputs:
        raise ConversionError(
            f"the converted graph gives {outputs}; `probabilities` (B, 2) is needed: use a "
            "classifier"
        )
    positive = helper.make_tensor("positive_column", TensorProto.INT64, [1], [1])
    nodes = [
        *converted.graph.node,
        helper.make_node("Gather", ["probabilities", positive.name], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1])],
        [*converted.graph.initializer, positive],
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
