"""Makes the graph of a version from the graph that a library's converter wrote."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from features.contract import ModelContract, RequestInput
from training.adoption.adapt_graph import SCORES, adapt_graph
from training.adoption.foreign import Adaptation, ColumnSource, ForeignModel
from training.adoption.inspect_graph import inspect_graph
from training.adoption.native_form import NotTreesError, plain_trees
from training.errors import AdoptionError, ConversionError
from training.export.convert import CONTRACT_PROPERTY

LEARNT = "learnt"
"""The scores before a correction."""


def served_graph(
    converted: bytes,
    output: str,
    columns: Sequence[int],
    *,
    name: str,
    model_contract: str,
    negatives_share: float = 1.0,
    negated: bool = False,
) -> bytes:
    """Return ONNX bytes from `inputs`, float32 (B, F), to `scores`, float32 (B, K).

    Trees of one score become plain trees, which gateways can score natively.

    converted        from one or more inputs, whose columns are F in all, in the row's order.
    output           the output that is served; a graph with one output may name it otherwise.
    columns          the K columns of *output* that are served.
    negatives_share  as `convert_to_onnx`; for K = 1 probability.
    negated          whether the score is the negative of the column.

    Raises ConversionError when the graph cannot be served.
    """
    try:
        adapted = _adapted(converted, output, columns)
    except AdoptionError as error:
        raise ConversionError(f"the converted graph cannot be served: {error}") from error
    # A correction of the odds is a shift of the sum of trees, or nodes behind anything else.
    try:
        served = plain_trees(adapted, shift=math.log(negatives_share))
    except NotTreesError:
        served = _corrected(adapted, negatives_share)
    # The file has our name and the contract's hash, and nothing else of its converter.
    model = onnx.load_model_from_string(_negated(served) if negated else served)
    model.graph.name = name
    del model.metadata_props[:]
    helper.set_model_props(model, {CONTRACT_PROPERTY: model_contract})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _adapted(converted: bytes, output: str, columns: Sequence[int]) -> bytes:
    """Return the graph with our input and output, by what `turnout adopt` uses."""
    graph = inspect_graph(converted)
    outputs = [item.name for item in graph.outputs if item.kind != "label"]
    model = ForeignModel("", graph.onnx, graph.inputs, graph.outputs)
    # The row's columns are the inputs' columns in order.
    columns_of = [
        (item.name, column) for item in graph.inputs for column in range(len(item.columns))
    ]
    names = [f"c{index}" for index in range(len(columns_of))]
    adaptation = Adaptation(
        tuple(
            ColumnSource(foreign, column, model_input)
            for (foreign, column), model_input in zip(columns_of, names, strict=True)
        ),
        output if output in outputs else outputs[0],
        tuple(columns),
    )
    contract = ModelContract(
        entities=("row",),
        inputs=tuple(RequestInput(name=item) for item in names),
        outputs=tuple(f"s{index}" for index in range(len(columns))),
    )
    return adapt_graph(model, adaptation, contract)


def _corrected(served: bytes, negatives_share: float) -> bytes:
    """Return a graph of one probability with its odds corrected: p / (p + (1 - p) / share)."""
    if negatives_share == 1.0:
        return served
    share = numpy_helper.from_array(np.array([negatives_share], np.float32), "negatives_share")
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    nodes = [
        helper.make_node("Sub", [one.name, LEARNT], ["negative"]),
        helper.make_node("Div", ["negative", share.name], ["all_negative"]),
        helper.make_node("Add", [LEARNT, "all_negative"], ["either"]),
        helper.make_node("Div", [LEARNT, "either"], [SCORES]),
    ]
    return _behind(served, nodes, [share, one])


def _negated(served: bytes) -> bytes:
    return _behind(served, [helper.make_node("Neg", [LEARNT], [SCORES])], [])


def _behind(served: bytes, nodes: Sequence[Any], constants: Sequence[Any]) -> bytes:
    """Return the graph with *nodes* behind it, which read LEARNT and give SCORES."""
    model = onnx.load_model_from_string(served)
    for node in model.graph.node:
        for index, output in enumerate(node.output):
            if output == SCORES:
                node.output[index] = LEARNT
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    return bytes(model.SerializeToString(deterministic=True))
