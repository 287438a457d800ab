"""Brings a foreign graph to `inputs` (B, F) -> `scores` (B, K) by nodes that only move data.

The nodes of the foreign graph stay as they are. In front of them columns are picked, positions of
dictionaries become words, and numbers get the type that the graph takes. Behind them the served
columns are picked. The certificate compares both graphs.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from features.contract import ModelContract
from training.adoption.foreign import Adaptation, ColumnSource, ForeignModel, ForeignOutput
from training.adoption.foreign_feed import check_adaptation, integer_bounds, number_of, texts_of
from training.adoption.graph.dynamic_batch import ROWS, with_rows
from training.adoption.graph.read_graph import (
    ML_DOMAIN,
    OPSET_IF_NONE,
    Model,
    Node,
    opset_of,
    raise_opset,
)
from training.errors import AdoptionError
from training.export.convert import CONTRACT_PROPERTY
from training.export.onnx_model import IR_VERSION

INPUTS, SCORES = "inputs", "scores"
OWN = "turnout/"
"""Begins the names of added nodes and tensors."""
FOREIGN = "foreign/"
"""Begins names of the foreign graph that would be taken for ours."""
RESERVED = (OWN, "on_demand/")
OPSET_FOR_MISSING = 9
"""The first with IsNaN and Where for all types, and with ConstantOfShape."""
ML_OPSET_FOR_TEXTS = 4
"""The first whose LabelEncoder finds NaN among its keys."""


def adapt_graph(model: ForeignModel, adaptation: Adaptation, contract: ModelContract) -> bytes:
    """Return ONNX bytes from `inputs`, float32 (B, F), to `scores`, float32 (B, K), any B.

    The same arguments always give the same bytes. Raises AdoptionError when the adaptation does not
    fit the graph or the contract.
    """
    # Take the graph for any number of rows, without what does not serve scores.
    check_adaptation(model, adaptation, contract)
    graph = with_rows(onnx.load_model_from_string(model.onnx), ROWS)
    graph = _with_opsets(graph, model, adaptation)
    served = next(item for item in model.outputs if item.name == adaptation.output)
    ranks = _output_ranks(graph)
    _prune(graph, adaptation.output)
    renamed = _rename_reserved(graph)
    # Nodes in front of each input, and behind the served output.
    front = _Front(contract)
    for value in graph.graph.input:
        foreign = next((name for name in renamed if renamed[name] == value.name), value.name)
        sources = sorted(
            (item for item in adaptation.columns if item.foreign_input == foreign),
            key=lambda item: item.column,
        )
        front.feed(value, sources)
    behind = _Behind(graph)
    output = renamed.get(adaptation.output, adaptation.output)
    behind.serve(output, served, adaptation, rank=ranks.get(adaptation.output, 0))
    # Put the parts together, and name the contract.
    adapted = helper.make_model(
        helper.make_graph(
            [*front.nodes, *graph.graph.node, *behind.nodes],
            "adapted",
            [helper.make_tensor_value_info(INPUTS, TensorProto.FLOAT, [None, contract.width])],
            [
                helper.make_tensor_value_info(
                    SCORES, TensorProto.FLOAT, [None, len(contract.outputs)]
                )
            ],
            [*front.constants, *graph.graph.initializer, *behind.constants],
        ),
        opset_imports=_used_opsets(graph),
        ir_version=IR_VERSION,
        producer_name="turnout",
    )
    _rename(adapted.graph, {**front.aliases, **behind.aliases})
    helper.set_model_props(adapted, {CONTRACT_PROPERTY: contract.model_contract})
    try:
        onnx.checker.check_model(adapted)
    except onnx.checker.ValidationError as error:
        raise AdoptionError(
            f"the adapted graph is no valid ONNX graph: {str(error)[:300]}. Export the model again "
            "with opset 21 (target_opset=21, opset_version=21)"
        ) from error
    return bytes(adapted.SerializeToString(deterministic=True))


class _Front:
    """Nodes that make the inputs of a foreign graph from `inputs`."""

    def __init__(self, contract: ModelContract) -> None:
        self._positions = {name: index for index, name in enumerate(contract.names)}
        self._width = contract.width
        self.nodes: list[Node] = []
        self.constants: list[Any] = []
        self.aliases: dict[str, str] = {}
        """Tensor of the foreign graph -> another name for the same values."""

    def feed(self, value: Any, sources: Sequence[ColumnSource]) -> None:  # noqa: ANN401  onnx.ValueInfoProto
        """Make one input of the graph from its sources, in the order of its columns."""
        tensor = value.type.tensor_type
        rank = len(tensor.shape.dim)
        # All columns of the row in its order need no node.
        as_is = [self._positions.get(item.model_input, -1) for item in sources]
        plain = all(_is_plain(item) for item in sources) and tensor.elem_type == TensorProto.FLOAT
        if plain and as_is == list(range(self._width)) and rank == 2:
            self.aliases[value.name] = INPUTS
            return
        # Neighbouring columns that are treated alike are moved together.
        parts = []
        for (treatment, _), group in groupby(enumerate(sources), lambda item: _treatment(*item)):
            part = [item for _, item in group]
            if treatment == "picked":
                parts.append(self._picked(part, tensor.elem_type))
            elif treatment == "coded":
                parts.append(self._coded(part[0], tensor.elem_type))
            else:
                parts.append(self._constant(part[0], tensor.elem_type))
        joined = parts[0] if len(parts) == 1 else self._add("Concat", parts, axis=1)
        if rank == 1:
            joined = self._add("Reshape", [joined, self._const("flat", np.array([-1]))])
        self.aliases[value.name] = joined

    def _picked(self, sources: Sequence[ColumnSource], kind: int) -> str:
        """Columns of the row as numbers of the type *kind*."""
        columns = self._gather([self._positions[item.model_input] for item in sources])
        missing = [_missing_number(item, kind) for item in sources]
        if not np.isnan(missing).all():
            # Columns without a number for NaN keep it.
            absent = self._add("IsNaN", [columns])
            numbers = self._const("missing", np.array([missing], dtype=np.float32))
            columns = self._add("Where", [absent, numbers, columns])
        bounds = integer_bounds(kind)
        if bounds is not None:
            low, high = (self._const("bound", np.float32(bound)) for bound in bounds)
            columns = self._add("Min", [self._add("Max", [columns, low]), high])
        return self._cast(columns, kind)

    def _coded(self, source: ColumnSource, kind: int) -> str:
        """A category: the word of each position, as a text or as a number."""
        column = self._gather([self._positions[source.model_input]])
        keys = [float(position) for position in range(len(source.dictionary))] + [float("nan")]
        words = texts_of(source)
        if kind == TensorProto.STRING:
            values: dict[str, Any] = {"values_strings": words[:-1], "default_string": words[-1]}
        elif integer_bounds(kind) is not None:
            numbers = [int(number_of(word, 0)) for word in words]
            values = {"values_int64s": numbers[:-1], "default_int64": numbers[-1]}
        else:
            floats = [number_of(word, float("nan")) for word in words]
            values = {"values_floats": floats[:-1], "default_float": floats[-1]}
        coded = self._add("LabelEncoder", [column], domain=ML_DOMAIN, keys_floats=keys, **values)
        produced = TensorProto.INT64 if "values_int64s" in values else TensorProto.FLOAT
        return coded if kind in (produced, TensorProto.STRING) else self._cast(coded, kind)

    def _constant(self, source: ColumnSource, kind: int) -> str:
        """Give every row the constant."""
        value = source.constant
        if kind == TensorProto.STRING:
            values = np.array([str(value)], dtype=object)
        else:
            values = np.array([value], dtype=helper.tensor_dtype_to_np_dtype(kind))
        # One index 0 for each row picks the value.
        shape = self._add("Shape", [self._gather([0])])
        zeros = self._add(
            "ConstantOfShape", [shape], value=numpy_helper.from_array(np.array([0], np.int64))
        )
        return self._add("Gather", [self._const("constant", values), zeros], axis=0)

    def _gather(self, positions: Sequence[int]) -> str:
        indexes = self._const("columns", np.array(positions, dtype=np.int64))
        return self._add("Gather", [INPUTS, indexes], axis=1)

    def _cast(self, name: str, kind: int) -> str:
        return name if kind == TensorProto.FLOAT else self._add("Cast", [name], to=kind)

    def _add(
        self,
        operator: str,
        inputs: Sequence[str],
        domain: str = "",
        **attributes: Any,  # noqa: ANN401  as of helper.make_node
    ) -> str:
        output = f"{OWN}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                operator, inputs, [output], name=output, domain=domain or None, **attributes
            )
        )
        return output

    def _const(self, what: str, values: Any) -> str:  # noqa: ANN401  an array or a number
        name = f"{OWN}{what}_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name


class _Behind:
    """Nodes that make `scores` from the served output of a foreign graph."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.nodes: list[Node] = []
        self.constants: list[Any] = []
        self.aliases: dict[str, str] = {}

    def serve(self, output: str, served: ForeignOutput, adaptation: Adaptation, rank: int) -> None:
        """Shape, transform and pick the columns of *output*. *rank* is 0 if it is not known."""
        name = output
        if rank != 2:
            name = self._add("Reshape", [name, self._const("shape", [-1, served.width])])
        name = (
            self._add("Cast", [name], to=TensorProto.FLOAT) if self._may_be_wide(output) else name
        )
        if adaptation.transform == "sigmoid":
            name = self._add("Sigmoid", [name])
        if adaptation.transform == "softmax":
            name = self._add("Softmax", [name], axis=1)
        if list(adaptation.selected) != list(range(served.width)):
            name = self._add("Gather", [name, self._const("served", adaptation.selected)], axis=1)
        self.aliases[name] = SCORES

    def _may_be_wide(self, output: str) -> bool:
        """Whether an output may have another type than float32."""
        inferred = onnx.shape_inference.infer_shapes(self._model).graph
        types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.value_info, *inferred.output)
        }
        return types.get(output, 0) != TensorProto.FLOAT

    def _add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:  # noqa: ANN401
        output = f"{OWN}behind_{operator.lower()}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _const(self, what: str, values: Sequence[int]) -> str:
        name = f"{OWN}behind_{what}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
        return name


def _is_plain(source: ColumnSource) -> bool:
    return source.constant is None and not source.dictionary and source.missing == ""


def _treatment(index: int, source: ColumnSource) -> tuple[str, int]:
    """How a column is made. Columns with equal results, as neighbours, are made together."""
    if source.constant is not None:
        return "constant", index
    if source.dictionary:
        return "coded", index
    return "picked", -1


def _missing_number(source: ColumnSource, kind: int) -> float:
    """The number for NaN; NaN if the graph gets NaN."""
    has_nan = kind in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
    return number_of(source.missing, float("nan") if has_nan else 0.0)


def _with_opsets(graph: Model, model: ForeignModel, adaptation: Adaptation) -> Model:
    """Return the graph with the operator versions that the added nodes need."""
    kinds = {item.name: item.kind for item in model.inputs}
    numbers = any(
        item.constant is not None
        or item.missing != ""
        or kinds[item.foreign_input] in ("integer", "boolean")
        for item in adaptation.columns
    )
    graph = raise_opset(
        graph, "", OPSET_FOR_MISSING if numbers and opset_of(graph, "") else opset_of(graph, "")
    )
    if opset_of(graph, "") == 0:
        graph = raise_opset(graph, "", OPSET_IF_NONE)
    if any(item.dictionary for item in adaptation.columns):
        graph = raise_opset(graph, ML_DOMAIN, ML_OPSET_FOR_TEXTS)
    return graph


def _used_opsets(graph: Model) -> list[Any]:
    """Return the versions of domains, in one order, "" always among them."""
    names = {item.domain if item.domain != "ai.onnx" else "" for item in graph.opset_import}
    return [helper.make_opsetid(name, opset_of(graph, name)) for name in sorted({"", *names})]


def _output_ranks(graph: Model) -> dict[str, int]:
    """Return output -> number of dimensions, where the nodes say it."""
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in inferred.output
        if value.type.tensor_type.HasField("shape")
    }


def _prune(model: Model, output: str) -> None:
    """Remove nodes, constants and inputs on which an output does not depend."""
    needed, nodes = {output}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    graph = model.graph
    for field, kept in (
        (graph.node, list(reversed(nodes))),
        (graph.initializer, [item for item in graph.initializer if item.name in needed]),
        (graph.input, [item for item in graph.input if item.name in needed]),
        (graph.output, [item for item in graph.output if item.name == output]),
    ):
        del field[:]
        field.extend(kept)
    # Descriptions are no part of a version. Torch writes paths of its user's machine into them.
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""


def _rename_reserved(model: Model) -> dict[str, str]:
    """Rename tensors of a foreign graph that would be taken for ours. Return old -> new name."""
    graph = model.graph
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    names |= {item.name for item in (*graph.input, *graph.output)}
    renamed = {
        name: FOREIGN + name
        for name in names
        if name in (INPUTS, SCORES) or name.startswith((*RESERVED, FOREIGN))
    }
    _rename(graph, renamed)
    return renamed


def _rename(graph: Any, names: Mapping[str, str]) -> None:  # noqa: ANN401  onnx.GraphProto
    """Give tensors other names, in every node and list of a graph."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for item in (*graph.initializer, *graph.input, *graph.output):
        item.name = names.get(item.name, item.name)
