"""Makes a graph that was exported for one number of rows take any number."""

from typing import Any

import onnx

from training.adoption.graph.read_graph import Model, node_name
from training.errors import AdoptionError

SIZES = (1, 2, 64)
"""Numbers of rows at which the shapes of all nodes are inferred."""
ROWS = "rows"


def fixed_batch(model: Model) -> int | None:
    """Return the number of rows that a graph takes; None if it takes any."""
    sizes = {_rows_of(value) for value in model.graph.input} - {0}
    return max(sizes) if sizes else None


def check_batch(model: Model) -> tuple[str, ...]:
    """Return a warning for a fixed number of rows, () for none.

    Raises AdoptionError if the graph takes no other number of rows.
    """
    fixed = fixed_batch(model)
    if fixed is None:
        return ()
    for rows in SIZES:
        problem = _problem_at(model, fixed, rows)
        if problem:
            raise AdoptionError(
                f"the graph was exported for {fixed} row(s) a run, and {problem}. Export it for "
                "any number of rows (torch: dynamic_shapes={'x': {0: 'rows'}} or dynamic_axes=...; "
                'skl2onnx: FloatTensorType([None, 12]); tf2onnx: --inputs "x:0[-1,12]")'
            )
    return (f"the graph was exported for {fixed} row(s) a run; it is served for any number",)


def with_rows(model: Model, rows: int | str) -> Model:
    """Return a copy whose inputs have *rows* rows, a number or a name, and outputs no shapes."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.value_info[:]
    for value in changed.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if not dimensions:
            continue
        if isinstance(rows, int):
            dimensions[0].dim_value = rows
        else:
            dimensions[0].dim_param = rows
    for value in changed.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return changed


def _rows_of(value: Any) -> int:  # noqa: ANN401  onnx.ValueInfoProto
    dimensions = value.type.tensor_type.shape.dim
    return int(dimensions[0].dim_value) if dimensions else 0


def _problem_at(model: Model, fixed: int, rows: int) -> str:
    """Return which node keeps its number of rows when the inputs have *rows*; "" for none."""
    try:
        inferred = onnx.shape_inference.infer_shapes(
            with_rows(model, rows), strict_mode=True, data_prop=True
        ).graph
    except onnx.shape_inference.InferenceError as error:
        return f"with {rows} its nodes do not fit each other ({str(error)[-160:]})"
    shapes = {
        value.name: [item.dim_value for item in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
        if value.type.HasField("tensor_type")
    }
    ends = {value.name for value in model.graph.output}
    for node in model.graph.node:
        found = shapes.get(node.output[0], [])
        keeps = node.op_type in ("Reshape", "Expand") or node.output[0] in ends
        if keeps and found and found[0] == fixed != rows and found[0] > 0:
            return f"its node {node_name(node)} always gives {fixed}"
    return ""
