"""Reads an ONNX graph as the steps of a native model (ingress/src/accel/native_model).

A step computes a matrix of numbers from matrices before it, as one operator does. Known are linear
models, small networks, trees, and what usually stands beside them. A graph with another operator is
refused with a reason, and ONNX Runtime scores it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.models.steps.step_builder import KINDS, Slot, Step, StepBuilder, used_steps
from gateway.models.steps.step_operators import read_node
from gateway.models.steps.tree_graph import (
    DOUBLE,
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

TreesReader = Callable[[bytes, Sequence[int] | None], Any]
"""Reads a file of one tree operator (gateway.models.native_scorer.TreeReader)."""


@dataclass(frozen=True, slots=True)
class TreePart:
    """One tree operator of a model.

    ensemble  what the native library read.
    file      the operator alone.
    picked    as TreeGraph.picked.
    front     steps that compute what it reads as float32; empty: it reads the model's inputs.
    """

    ensemble: Any
    file: bytes
    picked: tuple[int, ...] | None
    front: list[Step]


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
    read: TreesReader,
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
                part, builder.slots[name] = _read_trees(builder, onnx, node, last, read)
                trees.append(part)
    # The native library takes what the last step computes.
    slot = builder.slots.get(SCORES)
    plain = isinstance(slot, Slot) and slot.kind == KINDS[FLOAT] and not slot.flat
    if not isinstance(slot, Slot) or not plain or slot.constant or slot.position == 0:
        raise NotNativeError("its scores are computed by no step")
    return StepGraph(used_steps(builder.steps, slot.position), trees)


def _read_trees(
    builder: StepBuilder, onnx: bytes, node: Node, last: TreeScores, read: TreesReader
) -> tuple[TreePart, Slot]:
    """Add the step of a tree operator, and return its parts and its slot."""
    columns = builder.matrix(node.input[0])
    kind = {KINDS[FLOAT]: FLOAT, KINDS[DOUBLE]: DOUBLE}.get(columns.kind)
    if kind is None:
        raise NotNativeError("its trees read integers, truths or texts")
    file = file_of(onnx, single_trees_graph(node, last), columns.width, kind)
    ensemble = read(file, last.picked)
    # Columns that were only widened are those before.
    columns = builder.narrower.get(columns.position, columns)
    front = used_steps(builder.steps, columns.position)
    if columns.kind == KINDS[DOUBLE]:
        front.append(("cast", [len(front)], [KINDS[FLOAT]], [], None))
    scores = builder.add("trees", [columns], [], ensemble.outputs, of=KINDS[FLOAT], trees=ensemble)
    return TreePart(ensemble, file, last.picked, front), scores


def _read_node(builder: StepBuilder, node: Node) -> None:
    try:
        read_node(builder, node)
    except IndexError as error:
        raise NotNativeError(f"the operator {node.op_type[:40]} lacks an input") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise NotNativeError(f"the operator {node.op_type[:40]} has unusual attributes") from error


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
