"""Tiny versions for tests: an ONNX file of a few nodes, and the other files of a version."""

import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from features.canonical import canonical_json
from features.contract import ModelContract, RequestInput
from training.artifacts.reference import write_reference

DEFAULT_WIDTH = 3


def linear_weights(width: int, outputs: int = 1) -> NDArray[np.float32]:
    """Return (width, outputs) weights 0.1, 0.2, 0.3 ..., so that scores are easy to calculate."""
    tenths = np.arange(1, width * outputs + 1) / 10
    return tenths.astype(np.float32).reshape(width, outputs)


def linear_model(
    width: int,
    outputs: int = 1,
    *,
    weights: NDArray[np.float32] | None = None,
    metadata: Mapping[str, str] | None = None,
    fault_when: float | None = None,
    nan_when: float | None = None,
) -> bytes:
    """Return ONNX bytes: `inputs` (B, width) @ weights (width, outputs) -> `scores`, all float32.

    fault_when  ONNX Runtime raises for the batch if a first input is above it.
    nan_when    a row scores NaN if its first input is above it.
    """
    # The scores are one product of matrices. `last` is the name of the newest result.
    table = linear_weights(width, outputs) if weights is None else weights
    constants = [numpy_helper.from_array(table, "weights")]
    nodes = [helper.make_node("MatMul", ["inputs", "weights"], ["linear"])]
    last = "linear"
    # Both conditions compare the first input.
    if fault_when is not None or nan_when is not None:
        constants.append(numpy_helper.from_array(np.array([0], dtype=np.int64), "first"))
        nodes.append(helper.make_node("Gather", ["inputs", "first"], ["head"], axis=1))
    if fault_when is not None:
        _add_fault(constants, nodes, last, fault_when)
        last = "unless_faulty"
    if nan_when is not None:
        _add_nan(constants, nodes, last, nan_when)
        last = "unless_nan"
    # The newest result becomes `scores`.
    nodes.append(helper.make_node("Identity", [last], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, table.shape[1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    helper.set_model_props(model, dict(metadata or {}))
    return bytes(model.SerializeToString())


def _add_fault(
    constants: list[TensorProto], nodes: list[NodeProto], scores: str, fault_when: float
) -> None:
    """Raise in ONNX Runtime if `head` is above *fault_when*, else `unless_faulty` = *scores*."""
    # Index 9 of a table with one item is out of range, which raises only when such a row comes.
    constants += [
        numpy_helper.from_array(np.array(fault_when, dtype=np.float32), "fault_when"),
        numpy_helper.from_array(np.array(9, dtype=np.int64), "nine"),
        numpy_helper.from_array(np.zeros(1, dtype=np.float32), "table_of_one"),
    ]
    nodes += [
        helper.make_node("Greater", ["head", "fault_when"], ["faulty"]),
        helper.make_node("Cast", ["faulty"], ["faulty_int"], to=TensorProto.INT64),
        helper.make_node("Mul", ["faulty_int", "nine"], ["index"]),
        helper.make_node("Gather", ["table_of_one", "index"], ["zeros"]),
        helper.make_node("Add", [scores, "zeros"], ["unless_faulty"]),
    ]


def _add_nan(
    constants: list[TensorProto], nodes: list[NodeProto], scores: str, nan_when: float
) -> None:
    """Add `unless_nan`, which is NaN where `head` is above *nan_when* and else *scores*."""
    constants += [
        numpy_helper.from_array(np.array(nan_when, dtype=np.float32), "nan_when"),
        numpy_helper.from_array(np.array(np.nan, dtype=np.float32), "nan"),
    ]
    nodes += [
        helper.make_node("Greater", ["head", "nan_when"], ["is_nan"]),
        helper.make_node("Where", ["is_nan", "nan", scores], ["unless_nan"]),
    ]


def tiny_contract(width: int = DEFAULT_WIDTH, outputs: Sequence[str] = ("score",)) -> ModelContract:
    """Return a contract of one entity and *width* request inputs f0, f1, ... with default 0."""
    return ModelContract(
        entities=("subscriber",),
        inputs=tuple(RequestInput(name=f"f{n}", default=0.0) for n in range(width)),
        outputs=tuple(outputs),
    )


def tiny_files(
    model: str = "churn",
    *,
    contract: ModelContract | None = None,
    weights: NDArray[np.float32] | None = None,
    fault_when: float | None = None,
    nan_when: float | None = None,
    golden_rows: int = 32,
    card: Mapping[str, object] | None = None,
    task: str = "",
) -> dict[str, bytes]:
    """Return the five files of a version that verifies and passes its golden test.

    weights  (F, K) float32. Other weights than the default make another version of the model.
    task     that the version states, with bins of random rows. Empty: it states none.
    The manifest is not among the files. No first input of the golden rows is above *fault_when*
    or *nan_when*.
    """
    contract = contract or tiny_contract()
    width, outputs = contract.width, len(contract.outputs)
    table = linear_weights(width, outputs) if weights is None else weights
    # Golden rows without a fault and with the scores that the file gives.
    inputs = np.random.default_rng(7).random((golden_rows, width), dtype=np.float32)
    for limit in (fault_when, nan_when):
        if limit is not None:
            inputs[:, 0] = np.minimum(inputs[:, 0], np.float32(limit))
    scores = inputs @ table
    golden = io.BytesIO()
    np.savez(golden, inputs=inputs, outputs=scores)
    # The files by name.
    return {
        "model.onnx": linear_model(
            width,
            outputs,
            weights=table,
            metadata={"turnout.contract": contract.model_contract},
            fault_when=fault_when,
            nan_when=nan_when,
        ),
        "contract.json": canonical_json(contract.definition()),
        "golden.npz": golden.getvalue(),
        "reference.json": _reference(contract, table, task),
        "card.json": json.dumps({"model": model, **(card or {})}, sort_keys=True).encode(),
    }


def _reference(contract: ModelContract, weights: NDArray[np.float32], task: str) -> bytes:
    """Return reference.json: round edges or, with a task, the bins of 2,000 random rows."""
    if not task:
        inputs = np.linspace(0.1, 0.9, 9).tolist()
        return canonical_json(
            {
                "score": {"edges": np.linspace(0.05, 0.95, 19).tolist()},
                "features": [{"name": name, "edges": inputs} for name in contract.names],
                "decision_threshold": 0.5,
            }
        )
    rows = np.random.default_rng(8).random((2_000, contract.width), dtype=np.float32)
    return write_reference(
        names=contract.names,
        rows=rows,
        scores=rows @ weights,
        outputs=contract.outputs,
        task=task,
        threshold=0.5,
    )
