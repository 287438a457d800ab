"""Reads an ONNX graph as the steps of a native model (ingress/src/accel/native_model).

A step computes a matrix of numbers from matrices before it, as one operator does. Known are linear
models, small networks, trees, and what usually stands beside them. A graph with another operator is
refused with a reason, and ONNX Runtime scores it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.models.step_builder import KINDS, Step, StepBuilder
from gateway.models.step_operators import read_node
from gateway.models.tree_graph import (
    FLOAT,
    INPUTS,
    SCORES,
    GraphReader,
    NotNativeError,
    TreeScores,
    file_of,
    is_trees,
    last_tree_scores,
    single_trees_graph,
)
from protos.onnx_graph_pb2 import Node

STEPS_MAX = 8_192
"""An isolation forest of 100 trees, as skl2onnx writes it, has some 2,300 steps."""


@dataclass(frozen=True, slots=True)
class TreePart:
    """One tree operator of a model.

    ensemble  what the native library read.
    file      the operator alone.
    picked    as TreeGraph.picked.
    columns   position of the value that it reads.
    """

    ensemble: Any
    file: bytes
    picked: tuple[int, ...] | None
    columns: int


@dataclass(frozen=True, slots=True)
class StepGraph:
    """A graph as steps.

    steps  from `inputs` to `scores`, which the last one computes.
    trees  of the steps, in their order.
    """

    steps: list[Step]
    trees: list[TreePart]


def read_steps(
    onnx: bytes,
    graph: GraphReader,
    width: int,
    read: Callable[[bytes, Sequence[int] | None], Any],
) -> StepGraph:
    """Return the graph of *onnx*, whose rows have *width* inputs, as steps.

    read  reads a file of one tree operator (TreeReader).

    Raises NotNativeError for an operator that is no step, and ValueError for trees that the native
    library does not read.
    """
    builder, trees = StepBuilder(graph, width), list[TreePart]()
    # Trees take the Sigmoid and the picked columns behind them.
    behind = dict[str, tuple[Node, TreeScores]]()
    for node in graph.trees:
        last = last_tree_scores(graph, node)
        behind[last.name] = node, last
    needed = _needed(builder, graph, behind)
    for node in graph.graph.node:
        for name in node.output:
            if name in needed and name not in behind and not is_trees(node):
                _read_node(builder, node)
                break
        for name, (found, last) in behind.items() if is_trees(node) else ():
            if found is node and name in needed:
                columns = builder.source(node.input[0])
                file = file_of(onnx, single_trees_graph(node, last), columns.width)
                ensemble = read(file, last.picked)
                trees.append(TreePart(ensemble, file, last.picked, columns.position))
                scores = builder.add("trees", [columns], [], ensemble.outputs, trees=ensemble)
                builder.slots[name] = scores
        if len(builder.steps) > STEPS_MAX:
            raise NotNativeError(f"it has more than {STEPS_MAX} steps")
    # The native library takes what the last step computes.
    slot = builder.slots.get(SCORES)
    if slot is None or slot.middle or slot.kind != KINDS[FLOAT] or not builder.steps:
        raise NotNativeError("its scores are computed by no step")
    if slot.position != len(builder.steps):
        builder.add("columns", [slot], list(range(slot.width)), slot.width)
    return StepGraph(builder.steps, trees)


def _read_node(builder: StepBuilder, node: Node) -> None:
    try:
        read_node(builder, node)
    except IndexError as error:
        raise NotNativeError(f"the operator {node.op_type[:40]} lacks an input") from error


def _needed(
    builder: StepBuilder, graph: GraphReader, behind: dict[str, tuple[Node, TreeScores]]
) -> set[str]:
    """Return the tensors that lead to the scores, without those between trees and *behind*."""
    needed, waiting = set[str](), [SCORES]
    while waiting:
        name = waiting.pop()
        if name in needed or name in builder.constants or not name or name == INPUTS:
            continue
        needed.add(name)
        maker = behind[name][0] if name in behind else graph.makers.get(name)
        if maker is None:
            raise NotNativeError(f"no operator computes the tensor {name[:40]!r}")
        waiting += maker.input
    return needed
