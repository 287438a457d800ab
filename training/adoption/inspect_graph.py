"""Says what a foreign graph takes and gives, or why it cannot be adopted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from training.adoption.foreign import (
    Feed,
    ForeignInput,
    ForeignOutput,
    InputKind,
)
from training.adoption.foreign_session import ForeignSession
from training.adoption.graph.column_origins import (
    TREES,
    FoundColumns,
    constants_of,
    find_columns,
    tree_splits,
)
from training.adoption.graph.dynamic_batch import check_batch
from training.adoption.graph.read_graph import (
    ML_DOMAIN,
    OPSET_IF_NONE,
    Model,
    Node,
    attributes_of,
    node_name,
    opset_of,
    read_graph,
)
from training.errors import AdoptionError

COLUMNS_MAX = 5_000
"""Inputs of a model, over all inputs of its graph."""
PROBE_ROWS = 3
"""Rows of the run that shows the shapes of outputs, because files state wrong ones."""

INPUT_KINDS: dict[int, InputKind] = {
    TensorProto.FLOAT: "float",
    TensorProto.FLOAT16: "float",
    TensorProto.DOUBLE: "double",
    TensorProto.INT64: "integer",
    TensorProto.INT32: "integer",
    TensorProto.INT16: "integer",
    TensorProto.INT8: "integer",
    TensorProto.UINT64: "integer",
    TensorProto.UINT32: "integer",
    TensorProto.UINT16: "integer",
    TensorProto.UINT8: "integer",
    TensorProto.BOOL: "boolean",
    TensorProto.STRING: "text",
}
PROBABILITY_NODES = {"Sigmoid", "Softmax"}


@dataclass(frozen=True, eq=False, slots=True)
class InspectedGraph:
    """A foreign graph that can be adapted.

    onnx      one file with its weights inside; it scores as the file that was read.
    producer  for example "skl2onnx 1.20.0"; "" if the file does not say.
    """

    onnx: bytes
    producer: str
    inputs: tuple[ForeignInput, ...]
    outputs: tuple[ForeignOutput, ...]
    warnings: tuple[str, ...] = ()


def inspect_graph(content: bytes, external: Mapping[str, bytes] | None = None) -> InspectedGraph:
    """Return what the graph of an ONNX file takes and gives.

    external  name of each file with weights -> its content.

    ONNX Runtime runs the graph once, so this belongs in a child process with limits. Raises
    AdoptionError, which names the node and the exporter's option that helps.
    """
    try:
        return _inspected(read_graph(content, external))
    except AdoptionError:
        raise
    except Exception as error:  # onnx and numpy raise a dozen types of errors on bad files
        raise AdoptionError(
            f"the ONNX file contradicts itself ({str(error).strip()[-160:]!r}); export the model "
            "again"
        ) from error


def _inspected(model: Model) -> InspectedGraph:
    # Inputs: types and widths as the file states them.
    widths = input_widths(model)
    _refuse_features_outside(model, widths)
    found = find_columns(model, widths)
    inputs = tuple(_foreign_input(value, widths[value.name], found) for value in model.graph.input)
    warnings = check_batch(model)
    # Outputs: their shapes as a run shows them. Dictionaries of classes become columns.
    classes = _drop_zipmaps(model)
    inlined = bytes(model.SerializeToString(deterministic=True))
    session = ForeignSession(inlined)
    feed = probe_feed(inlined, inputs, session.batch or PROBE_ROWS)
    outputs, problems = [], []
    for value in model.graph.output:
        try:
            zipped = classes.get(value.name, ())
            outputs.append(_foreign_output(model, value, session, feed, zipped))
        except AdoptionError as error:
            problems.append(error)
    # Outputs that are no columns may stand beside those that are.
    if problems and all(item.kind == "label" for item in outputs):
        raise problems[0]
    if all(item.kind == "label" for item in outputs):
        raise AdoptionError(
            f"the graph gives labels only, in {[item.name for item in outputs]}; a rollout "
            "compares scores. Export probabilities or values as well (skl2onnx and onnxmltools "
            "give them for every classifier with predict_proba; let a torch model return them)"
        )
    return InspectedGraph(
        onnx=inlined,
        producer=f"{model.producer_name} {_first_line(model.producer_version)}".strip(),
        inputs=inputs,
        outputs=tuple(outputs),
        warnings=warnings,
    )


def input_widths(model: Model) -> dict[str, int]:
    """Return input -> number of columns. Raises AdoptionError for inputs that are no columns."""
    # Each input is a tensor of (rows,) or (rows, columns).
    widths: dict[str, int] = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type not in INPUT_KINDS:
            raise AdoptionError(
                f"the graph's input {value.name!r} is no tensor of numbers, booleans or texts. "
                "Export the model with one tensor for its columns, or a tensor for each column "
                "(skl2onnx: initial_types=[...] without DictionaryType)"
            )
        dimensions = list(tensor.shape.dim) if tensor.HasField("shape") else []
        if len(dimensions) == 1:
            widths[value.name] = 1
            continue
        if len(dimensions) != 2 or dimensions[1].dim_value < 1:
            shape = [item.dim_value or item.dim_param or "?" for item in dimensions]
            raise AdoptionError(
                f"the graph's input {value.name!r} has shape {shape}; (rows, columns) with a fixed "
                "number of columns is needed. State the columns at the export (skl2onnx and "
                'onnxmltools: initial_types=[("X", FloatTensorType([None, 12]))]; torch: an '
                "example input of shape (rows, columns))"
            )
        widths[value.name] = dimensions[1].dim_value
    # A model has a bounded number of columns.
    total = sum(widths.values())
    if total > COLUMNS_MAX:
        raise AdoptionError(
            f"the graph takes {total} columns; the most is {COLUMNS_MAX}. Select features before "
            "the fit, or move the encoding of wide texts into the model"
        )
    return widths


def probe_feed(content: bytes, inputs: tuple[ForeignInput, ...], rows: int) -> Feed:
    """Return *rows* rows of zeros, and of known words, in the types that the graph takes."""
    types = input_types(onnx.load_model_from_string(content))
    feed: dict[str, NDArray[Any]] = {}
    for item in inputs:
        if item.kind == "text":
            words = [known[0] if known else "" for known in item.categories]
            feed[item.name] = np.array([words] * rows, dtype=object)
        else:
            feed[item.name] = np.zeros((rows, len(item.columns)), dtype=types[item.name])
    return feed


def input_types(model: Model) -> dict[str, np.dtype[Any]]:
    """Return input -> numpy type of a graph; object for texts."""
    return {
        value.name: np.dtype(object)
        if value.type.tensor_type.elem_type == TensorProto.STRING
        else onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in model.graph.input
    }


def class_names(model: Model, output: str, width: int) -> tuple[str, ...]:
    """Return the names of the classes of an output of *width* columns; () if the file has none.

    They stand at a classifier, or in the list from which the label is taken.
    """
    node = _producer_of(model, output)
    ordered = [] if node is None else [node]
    for item in [*ordered, *model.graph.node]:
        attributes = attributes_of(item)
        for name in ("classlabels_strings", "classlabels_int64s"):
            labels = attributes.get(name, [])
            if labels and len(labels) == width:
                return tuple(
                    label.decode() if isinstance(label, bytes) else str(label) for label in labels
                )
    # skl2onnx takes the label out of a list of classes.
    constants = constants_of(model)
    for item in model.graph.node:
        classes = constants.get(item.input[0]) if item.op_type == "ArrayFeatureExtractor" else None
        if classes is not None and classes.size == width and classes.dtype.kind in "iOSU":
            return tuple(
                word.decode() if isinstance(word, bytes) else str(word)
                for word in classes.ravel().tolist()
            )
    return ()


def _drop_zipmaps(model: Model) -> dict[str, tuple[str, ...]]:
    """Give each ZipMap's output the columns that it names. Return output -> names of its classes.

    ONNX Runtime has no ZipMap of float64, and a list of dictionaries is no tensor of scores.
    """
    classes = {}
    for node in model.graph.node:
        if node.op_type != "ZipMap":
            continue
        attributes = attributes_of(node)
        labels = attributes.get("classlabels_strings") or attributes.get("classlabels_int64s", [])
        classes[node.output[0]] = tuple(
            label.decode() if isinstance(label, bytes) else str(label) for label in labels
        )
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]
    # The type of the output follows from the node before it.
    for index, value in enumerate(model.graph.output):
        if value.name in classes:
            model.graph.output[index].CopyFrom(onnx.ValueInfoProto(name=value.name))
    if classes and opset_of(model, "") == 0:
        model.opset_import.extend([onnx.helper.make_opsetid("", OPSET_IF_NONE)])
    return classes


def _first_line(text: str) -> str:
    """Return a version; CatBoost writes a page of build notes in its place."""
    first = text.strip().partition("\n")[0].strip()
    return "" if first.endswith(":") else first


def _foreign_input(value: Any, width: int, found: FoundColumns) -> ForeignInput:  # noqa: ANN401  onnx.ValueInfoProto
    name = value.name
    kind = INPUT_KINDS[value.type.tensor_type.elem_type]
    columns = (name,) if width == 1 else tuple(f"{name}_{column}" for column in range(width))
    words = tuple(found.categories.get((name, column), ()) for column in range(width))
    return ForeignInput(name, kind, columns, words if kind == "text" else ())


def _foreign_output(
    model: Model,
    value: Any,  # noqa: ANN401  onnx.ValueInfoProto
    session: ForeignSession,
    feed: Feed,
    zipped: tuple[str, ...],
) -> ForeignOutput:
    """Describe an output. *zipped* are the classes of its ZipMap, if it had one."""
    # A run shows the output's shape and type.
    name = value.name
    try:
        scores = session.run(feed, name)
    except AdoptionError:
        raise
    except Exception as error:
        raise AdoptionError(
            f"ONNX Runtime cannot run the graph on {PROBE_ROWS} rows of zeros: {str(error)[:300]}"
        ) from error
    if scores.dtype.kind != "f":
        return ForeignOutput(name, "label", scores.shape[1])
    if zipped:
        return ForeignOutput(name, "probabilities", scores.shape[1], zipped)
    # Probabilities are of a classifier with a label beside them, or of a node that makes them.
    has_label = any(
        other.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.STRING)
        for other in model.graph.output
        if other.type.HasField("tensor_type")
    )
    classes = class_names(model, name, scores.shape[1])
    makes = _makes_probabilities(_producer_of(model, name))
    if makes or (has_label and scores.shape[1] > 1 and classes):
        return ForeignOutput(name, "probabilities", scores.shape[1], classes)
    return ForeignOutput(name, "values", scores.shape[1])


def _makes_probabilities(node: Node | None) -> bool:
    if node is None:
        return False
    attributes = attributes_of(node)
    return node.op_type in PROBABILITY_NODES or (
        node.op_type in ("TreeEnsembleClassifier", "LinearClassifier")
        and attributes.get("post_transform") in (b"LOGISTIC", b"SOFTMAX")
    )


def _producer_of(model: Model, output: str) -> Node | None:
    """Return the node that makes an output, before operators that leave values as they are."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in ("Identity", "Cast", "Mul", "Reshape"):
        node = makers.get(node.input[0])
    return node


def _refuse_features_outside(model: Model, widths: Mapping[str, int]) -> None:
    """Refuse trees that read a column which their row does not have."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: list(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input)
    }
    for node in model.graph.node:
        if node.op_type not in TREES or node.domain != ML_DOMAIN:
            continue
        dimensions = shapes.get(node.input[0], [])
        width = widths.get(node.input[0], dimensions[-1].dim_value if dimensions else 0)
        outside = [
            column for column, _ in tree_splits(node) if column < 0 or (width and column >= width)
        ]
        if outside:
            raise AdoptionError(
                f"the graph has the node {node_name(node)}, which reads column {outside[0]} of "
                f"rows of {width} columns. Export with the number of columns that the model was "
                "fitted on (initial_types)"
            )
