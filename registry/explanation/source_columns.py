"""Says of which inputs each column is made that stands in front of the sum.

Nodes of on-demand features, scalers, encoders and moved columns stand there. Columns are followed
through operators that keep them apart; an operator that mixes columns is refused by its name. In
front of on-demand features a row is a column of a tensor (training.export.on_demand_graph), so
tensors may be transposed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from registry.explanation.errors import NotExplainedError
from registry.explanation.model_form import INPUTS
from registry.explanation.onnx_nodes import GraphNode, GraphNodes

Sources = frozenset[int]
"""The positions of the inputs that a column is made of."""
NOTHING: Sources = frozenset()

SAME = {
    *("Identity", "Cast", "Abs", "Neg", "Floor", "Ceil", "Round", "Sign", "Log", "Exp", "Sqrt"),
    *("Not", "IsNaN", "Clip", "Imputer", "Scaler", "Binarizer", "LabelEncoder", "CategoryMapper"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Sigmoid", "Tanh", "Relu"),
}
"""Operators that make each column of the same column."""
JOINED = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "And", "Or", "Where"),
    *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"),
}
"""Operators that make each column of the same column of several tensors."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a tensor. *across*: they lie along its first axis, (C, B)."""

    sources: tuple[Sources, ...]
    across: bool = False


class SourceTracer:
    """Follows columns through the nodes of a graph with F inputs."""

    def __init__(self, nodes: GraphNodes, inputs: int) -> None:
        own = tuple(frozenset({column}) for column in range(inputs))
        self._nodes = nodes
        self._known = {INPUTS: _Columns(own)}

    def sources(self, tensor: str) -> tuple[Sources, ...]:
        """Return of which inputs each column of a tensor (B, C) is made.

        Raises NotExplainedError for an operator whose columns cannot be followed.
        """
        columns = self._columns(tensor)
        if columns.across:
            raise NotExplainedError(f"the rows of {tensor[:80]!r} lie across its columns")
        return columns.sources

    def _columns(self, tensor: str) -> _Columns:
        # Tensors are followed without recursion, because a graph may be thousands of nodes long.
        waiting = [tensor]
        while waiting:
            name = waiting[-1]
            if name in self._known or name in self._nodes.constants:
                waiting.pop()
                continue
            node = self._nodes.maker(name)
            if len(waiting) > len(self._nodes.makers) + 1:
                raise NotExplainedError("its graph goes round in a circle")
            missing = [
                item
                for item in node.inputs
                if item and item not in self._known and item not in self._nodes.constants
            ]
            if missing and node.kind not in ROW_CONSTANTS:
                waiting += missing[:1]
                continue
            self._known |= self._after(node)
            waiting.pop()
        return self._known[tensor]

    def _after(self, node: GraphNode) -> dict[str, _Columns]:
        """Return the columns of each output of *node*."""
        if node.kind in ROW_CONSTANTS:
            return dict.fromkeys(node.outputs, _Columns((NOTHING,)))
        rule = RULES.get(node.kind)
        if node.kind in SAME:
            rule = SourceTracer._same
        elif node.kind in JOINED:
            rule = SourceTracer._joined
        found = rule(self, node) if rule else None
        if found is None:
            raise NotExplainedError(
                f"the operator {node.shown} stands in front of the sum and mixes columns; columns "
                "that are made one by one can be followed (scalers, encoders, on-demand features)"
            )
        return dict(zip(node.outputs, found, strict=False))

    def _input(self, node: GraphNode, index: int = 0) -> _Columns | None:
        return self._known.get(node.inputs[index])

    def _same(self, node: GraphNode) -> list[_Columns] | None:
        first = self._input(node)
        return None if first is None else [first]

    def _joined(self, node: GraphNode) -> list[_Columns] | None:
        tensors = [self._known[name] for name in node.inputs if name in self._known]
        if not tensors:
            return [_Columns((NOTHING,))]
        across = tensors[0].across
        width = max(len(item.sources) for item in tensors)
        # A constant or a single column is joined with each column.
        for name in node.inputs:
            constant = self._nodes.constants.get(name)
            if constant is not None and constant.ndim:
                width = max(width, constant.shape[0 if across else -1])
        if any(item.across != across or len(item.sources) not in (1, width) for item in tensors):
            return None
        spread = [
            item.sources if len(item.sources) > 1 else item.sources * width for item in tensors
        ]
        return [
            _Columns(tuple(NOTHING.union(*parts) for parts in zip(*spread, strict=True)), across)
        ]

    def _transposed(self, node: GraphNode) -> list[_Columns] | None:
        first = self._input(node)
        if first is None or list(node.attributes.get("perm", [1, 0])) != [1, 0]:
            return None
        return [_Columns(first.sources, not first.across)]

    def _gathered(self, node: GraphNode) -> list[_Columns] | None:
        picks, first = self._nodes.constants.get(node.inputs[1]), self._input(node)
        if first is None:
            # A constant that is repeated for each row.
            return [_Columns((NOTHING,))]
        axis = 1 if node.kind == "ArrayFeatureExtractor" else int(node.attributes.get("axis", 0))
        if picks is None or axis not in ((0,) if first.across else (1, -1)):
            return None
        indexes = [int(index) for index in np.ravel(picks)]
        if not all(-len(first.sources) <= index < len(first.sources) for index in indexes):
            return None
        return [_Columns(tuple(first.sources[index] for index in indexes), first.across)]

    def _concatenated(self, node: GraphNode) -> list[_Columns] | None:
        tensors = [self._known.get(name) for name in node.inputs]
        known = [item for item in tensors if item is not None]
        if len(known) != len(tensors) or len({item.across for item in known}) != 1:
            return None
        axis = 1 if node.kind == "FeatureVectorizer" else int(node.attributes.get("axis", 1))
        if axis not in ((0,) if known[0].across else (1, -1)):
            return None
        return [_Columns(tuple(s for item in known for s in item.sources), known[0].across)]

    def _split(self, node: GraphNode) -> list[_Columns] | None:
        first, count = self._input(node), len(node.outputs)
        if first is None or int(node.attributes.get("axis", 0)) not in (
            (0,) if first.across else (1, -1)
        ):
            return None
        sizes = node.attributes.get("split")
        if len(node.inputs) > 1:
            sizes = self._nodes.constants.get(node.inputs[1])
        if sizes is None:
            sizes = np.full(count, -(-len(first.sources) // count))
            sizes[-1] = len(first.sources) - sizes[:-1].sum()
        ends = np.cumsum(sizes)
        if len(ends) != count or ends[-1] != len(first.sources):
            return None
        return [
            _Columns(first.sources[end - size : end], first.across)
            for end, size in zip(ends.tolist(), np.asarray(sizes).tolist(), strict=True)
        ]

    def _one_hot(self, node: GraphNode) -> list[_Columns] | None:
        first = self._input(node)
        words = node.attributes.get("cats_strings", node.attributes.get("cats_int64s", ()))
        if first is None or len(first.sources) != 1 or first.across:
            return None
        return [_Columns(first.sources * len(words))]


ROW_CONSTANTS = {"Shape", "ConstantOfShape"}
"""Operators whose result depends on the number of rows only."""

RULES: dict[str, Callable[[SourceTracer, GraphNode], list[_Columns] | None]] = {
    "Transpose": SourceTracer._transposed,
    "Gather": SourceTracer._gathered,
    "ArrayFeatureExtractor": SourceTracer._gathered,
    "Concat": SourceTracer._concatenated,
    "FeatureVectorizer": SourceTracer._concatenated,
    "Split": SourceTracer._split,
    "OneHotEncoder": SourceTracer._one_hot,
}
