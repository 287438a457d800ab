"""Small foreign graphs in the shapes that exporters write, and what adopts them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from features.contract import ModelContract, RequestInput
from training.adoption.foreign import Adaptation, ColumnSource, ForeignModel, Transform
from training.adoption.inspect_graph import inspect_graph

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
ML = "ai.onnx.ml"
EXPORTED = Path(__file__).parent / "exported"
"""Files that exporters wrote; `export_models.py` beside them is the recipe."""
Tensor = tuple[str, int, Sequence[int | str | None] | None]
"""(name, type of ONNX, shape)."""


def onnx_file(
    nodes: Sequence[Any],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    constants: Mapping[str, NDArray[Any]] | None = None,
    *,
    opsets: Mapping[str, int] | None = None,
    ir: int = 8,
) -> bytes:
    """Return an ONNX file of these nodes, unchecked."""
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    versions = opsets or {"": 13, ML: 3}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(name, version) for name, version in versions.items()],
        ir_version=ir,
    )
    return bytes(model.SerializeToString())


def linear_file(
    width: int = 3, *, columns: int = 1, opset: int = 13, ir: int = 8, rows: int | None = None
) -> bytes:
    """`x` (rows, width) times fixed weights gives `y` (rows, columns)."""
    weights = np.linspace(-1, 1, width * columns, dtype=np.float32).reshape(width, columns)
    return onnx_file(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        [("x", FLOAT, [rows, width])],
        [("y", FLOAT, [rows, columns])],
        {"weights": weights},
        opsets={"": opset},
        ir=ir,
    )


def tree_node(
    inputs: Sequence[str], outputs: Sequence[str], *, classifier: bool, feature: int = 0
) -> Any:  # noqa: ANN401  onnx.NodeProto
    """Return one tree of one split: column *feature* <= 0.5."""
    nodes: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [feature, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
    }
    leaves = {"treeids": [0, 0], "nodeids": [1, 2], "ids": [0, 0], "weights": [-0.3, 0.7]}
    prefix = "class_" if classifier else "target_"
    extra: dict[str, Any] = (
        {"classlabels_int64s": [0, 1], "post_transform": "LOGISTIC"}
        if classifier
        else {"n_targets": 1}
    )
    return helper.make_node(
        "TreeEnsembleClassifier" if classifier else "TreeEnsembleRegressor",
        inputs,
        outputs,
        domain=ML,
        **nodes,
        **{prefix + name: value for name, value in leaves.items()},
        **extra,
    )


def trees_file(**changes: Any) -> bytes:  # noqa: ANN401  attributes of ONNX
    """Return a tree with one split, whose attributes change; None removes one."""
    attributes: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [1, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0, 0],
        "class_nodeids": [1, 2],
        "class_ids": [0, 0],
        "class_weights": [-0.3, 0.7],
        "classlabels_int64s": [0, 1],
        "post_transform": "LOGISTIC",
    }
    attributes = {
        name: value for name, value in (attributes | changes).items() if value is not None
    }
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "p"], domain=ML, **attributes
    )
    return onnx_file([node], [("x", FLOAT, [None, 2])], [("p", FLOAT, [None, 2])])


def many_leaves() -> bytes:
    """A tree of 65 leaves: each split has a leaf, and the next split."""
    splits, leaves = 64, 65
    return trees_file(
        nodes_treeids=[0] * (splits + leaves),
        nodes_nodeids=list(range(splits + leaves)),
        nodes_featureids=[0] * (splits + leaves),
        nodes_values=[float(value) for value in range(splits)] + [0.0] * leaves,
        nodes_modes=["BRANCH_LEQ"] * splits + ["LEAF"] * leaves,
        nodes_truenodeids=[splits + number for number in range(splits)] + [0] * leaves,
        nodes_falsenodeids=[*range(1, splits), splits + splits] + [0] * leaves,
        class_treeids=[0] * leaves,
        class_nodeids=[splits + number for number in range(leaves)],
        class_ids=[0] * leaves,
        class_weights=[number / 4 - 8.0 for number in range(leaves)],
    )


def mixed_file() -> bytes:
    """A number, a text, a whole number and a boolean, each an input of its own."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["plan"],
            ["code"],
            domain=ML,
            keys_strings=["pre", "post", "biz"],
            values_floats=[10.0, 20.0, 40.0],
            default_float=-1.0,
        ),
        helper.make_node("Cast", ["calls"], ["calls_float"], to=FLOAT),
        helper.make_node("Cast", ["abroad"], ["abroad_float"], to=FLOAT),
        helper.make_node("Concat", ["age", "code", "calls_float", "abroad_float"], ["row"], axis=1),
        helper.make_node("MatMul", ["row", "weights"], ["y"]),
    ]
    return onnx_file(
        nodes,
        [
            ("age", FLOAT, [None, 1]),
            ("plan", STRING, [None, 1]),
            ("calls", INT64, [None, 1]),
            ("abroad", TensorProto.BOOL, [None, 1]),
        ],
        [("y", FLOAT, [None, 1])],
        {"weights": np.array([[1.0], [0.5], [100.0], [1000.0]], np.float32)},
    )


def exported(name: str) -> bytes:
    """Return a file that an exporter wrote."""
    return (EXPORTED / f"{name}.onnx").read_bytes()


def opened(content: bytes) -> ForeignModel:
    """Return the foreign model of an ONNX file."""
    found = inspect_graph(content)
    return ForeignModel(found.producer, found.onnx, found.inputs, found.outputs)


def adoption(
    model: ForeignModel,
    *,
    output: str = "",
    selected: tuple[int, ...] = (),
    transform: Transform = "none",
    reverse: bool = False,
) -> tuple[Adaptation, ModelContract]:
    """Return an adaptation by name and order, and the contract that it makes.

    Words become dictionaries; an unknown word is "?", and a missing one the first.

    reverse  the contract has the columns from last to first.
    """
    # Every column of the graph is an input of the contract.
    columns, inputs = [], []
    for item in model.inputs:
        for index, name in enumerate(item.columns):
            words = item.categories[index] if item.categories else ()
            inputs.append(RequestInput(name=name, dictionary=words))
            columns.append(
                ColumnSource(
                    item.name,
                    index,
                    name,
                    dictionary=words,
                    unknown="?" if words else "",
                    missing=words[0] if words else "",
                )
            )
    # The first output with scores is served: all classes, or the positive of two.
    served = next(
        item
        for item in model.outputs
        if (item.name == output or not output) and item.width and item.kind != "label"
    )
    chosen = selected or ((served.width - 1,) if served.width < 3 else tuple(range(served.width)))
    contract = ModelContract(
        entities=(),
        inputs=tuple(reversed(inputs) if reverse else inputs),
        outputs=tuple(f"score_{column}" for column in chosen),
    )
    return Adaptation(tuple(columns), served.name, chosen, transform), contract


def sample_rows(contract: ModelContract, count: int = 200) -> NDArray[np.float32]:
    """Return (count, F) rows: normal numbers, and every position of a dictionary."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(count, contract.width)).astype(np.float32)
    for column, item in enumerate(contract.inputs):
        if item.dictionary:
            rows[:, column] = rng.integers(0, len(item.dictionary) + 1, count)
    return rows


def parsed(content: bytes) -> Any:  # noqa: ANN401  onnx.ModelProto
    """Return the model of an ONNX file."""
    return onnx.load_model_from_string(content)
