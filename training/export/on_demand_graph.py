"""Makes ONNX nodes of on-demand features, and puts them in front of a model.

The front maps `inputs`, float32 (B, F), to COLUMNS, float32 (B, C): the model inputs that the
learner is given, then one column for each on-demand feature. Training fits on what the front gives
and gateways run the same nodes, so there is one implementation.

Expressions are computed in float64 and rounded to float32 once, at the end. So seconds since 1970
are exact, and a score does not depend on how a vectorised float32 logarithm rounds.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from features.contract import TIME_NAMES
from features.views import FLOAT32_MAX
from host.clock import DAY_S
from training.export.onnx_model import IR_VERSION, OPSET, OnnxModel
from training.on_demand import (
    NOW,
    Column,
    Number,
    OnDemand,
    Operation,
    Term,
    is_truth,
    used_columns,
)

COLUMNS = "on_demand/columns"
"""The tensor between the front and the model. Trees behind it are scored natively."""
LOG1P_LINEAR_BELOW = 1e-8
"""Below it, log1p(x) is x to the precision of float32, and 1 + x loses digits of x."""

NODES = {
    "+": "Add",
    "-": "Sub",
    "*": "Mul",
    "/": "Div",
    "neg": "Neg",
    "<": "Less",
    "<=": "LessOrEqual",
    ">": "Greater",
    ">=": "GreaterOrEqual",
    "==": "Equal",
    "and": "And",
    "or": "Or",
    "not": "Not",
    "where": "Where",
    "is_missing": "IsNaN",
    "min": "Min",
    "max": "Max",
    "abs": "Abs",
    "floor": "Floor",
}
"""Operation -> the ONNX operator that does the same."""


class OnDemandFront:
    """The nodes of on-demand features, and a session that runs them alone."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Take the nodes as a model of their own, from `inputs` (B, F) to COLUMNS (B, C)."""
        self.model = model
        self._onnx_model = OnnxModel(model.SerializeToString(deterministic=True), COLUMNS)

    def columns(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the learner's columns (N, C) of model inputs *rows* (N, F), both float32."""
        return self._onnx_model.scores(rows)

    def before(self, learner: bytes) -> bytes:
        """Return ONNX bytes of these nodes and then *learner*, from `inputs` to `scores`.

        learner  from `inputs` (B, C) to `scores` (B, K), as training.export.convert makes it.
        """
        joined = onnx.load_model_from_string(learner)
        # The learner reads COLUMNS instead of its `inputs`.
        for node in joined.graph.node:
            for index, name in enumerate(node.input):
                if name == "inputs":
                    node.input[index] = COLUMNS
        front = self.model.graph
        graph = helper.make_graph(
            [*front.node, *joined.graph.node],
            joined.graph.name,
            list(front.input),
            list(joined.graph.output),
            [*front.initializer, *joined.graph.initializer],
            value_info=list(front.output),
        )
        # What else the file says of itself stays.
        joined.graph.CopyFrom(graph)
        onnx.checker.check_model(joined, full_check=True)
        return bytes(joined.SerializeToString(deterministic=True))


class NoOnDemandFront:
    """The learner is given the model inputs themselves."""

    def columns(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return *rows* (N, F), which are the learner's columns."""
        return rows

    def before(self, learner: bytes) -> bytes:
        """Return *learner*, which is the whole model."""
        return learner


def on_demand_front(
    names: Sequence[str], learner_inputs: Sequence[str], features: Sequence[tuple[OnDemand, Term]]
) -> OnDemandFront | NoOnDemandFront:
    """Return the nodes of *features*.

    names           the F model inputs (ModelContract.names).
    learner_inputs  those of them that the learner is given, in order.
    features        the on-demand features with their terms; empty: the front changes nothing.
    """
    if not features:
        return NoOnDemandFront()
    graph = _Front(names)
    graph.read_columns(set().union(*(used_columns(term) for _, term in features)))
    values = [graph.as_number(term) for _, term in features]
    graph.join_columns(learner_inputs, values, [_default(feature) for feature, _ in features])
    columns = len(learner_inputs) + len(features)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "on_demand",
            [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, len(names)])],
            [helper.make_tensor_value_info(COLUMNS, TensorProto.FLOAT, [None, columns])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="turnout",
    )
    onnx.checker.check_model(model, full_check=True)
    return OnDemandFront(model)


def _default(feature: OnDemand) -> float:
    return math.nan if feature.default is None else feature.default


class _Front:
    """Collects the nodes and constants of a front. Equal terms are computed once."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._made: dict[Term, str] = {}
        self._count = 0
        self._inputs = "inputs"
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def as_number(self, term: Term) -> str:
        """Return the tensor (1, B) float64 of a term; a truth is 1 or 0."""
        tensor = self._tensor(term)
        if is_truth(term):
            return self._node("Cast", [tensor], to=TensorProto.DOUBLE)
        return tensor

    def join_columns(
        self, learner_inputs: Sequence[str], values: Sequence[str], defaults: Sequence[float]
    ) -> None:
        """Round the values to float32, put defaults where there is none, and join the columns."""
        wide = self._node("Concat", values, axis=0) if len(values) > 1 else values[0]
        # What is NaN, infinite, or beyond float32 becomes the default.
        limit = self._constant(np.array([FLOAT32_MAX]))
        usable = self._node("LessOrEqual", [self._node("Abs", [wide]), limit])
        default = self._constant(np.array(defaults, dtype=np.float64)[:, np.newaxis])
        chosen = self._node("Where", [usable, wide, default])
        columns = self._node("Cast", [chosen], to=TensorProto.FLOAT)
        # The learner's model inputs come first.
        if learner_inputs:
            columns = self._node("Concat", [self._gathered(learner_inputs), columns], axis=0)
        self.nodes.append(helper.make_node("Transpose", [columns], [COLUMNS], perm=[1, 0]))

    def read_columns(self, used: set[str]) -> None:
        """Make a tensor (1, B) float64 of each used column, with few nodes for all of them.

        With the rows of a batch side by side, a column is one piece of memory: 128 rows of 20
        inputs and 5 expressions took 40 us with a column of (B, 1) for each, and take 18 us so.
        """
        self._inputs = self._node("Transpose", ["inputs"], perm=[1, 0])
        needed = used - {NOW} | (set(TIME_NAMES) if NOW in used else set())
        names = [name for name in self._names if name in needed]
        wide = self._node("Cast", [self._gathered(names)], to=TensorProto.DOUBLE)
        tensors = [wide]
        if len(names) > 1:
            tensors = [self._new_name() for _ in names]
            self.nodes.append(
                helper.make_node("Split", [wide], tensors, axis=0, num_outputs=len(names))
            )
        self._made = {Column(name): t for name, t in zip(names, tensors, strict=True)}
        # Days and seconds of the day are exact each in float32, and their sum in float64.
        if NOW in used:
            day, second = (Column(name) for name in TIME_NAMES)
            midnight = Operation("*", (day, Number(float(DAY_S))))
            self._made[Column(NOW)] = self._tensor(Operation("+", (midnight, second)))

    def _tensor(self, term: Term) -> str:
        """Return the tensor of a term: float64 (1, B) or (1), or bool for a truth."""
        if term not in self._made:
            if isinstance(term, Number):
                self._made[term] = self._constant(np.array([term.value]))
            else:
                assert isinstance(term, Operation)
                arguments = [self._tensor(argument) for argument in term.arguments]
                self._made[term] = self._operation(term.name, arguments)
        return self._made[term]

    def _operation(self, name: str, arguments: Sequence[str]) -> str:
        if name == "!=":
            return self._node("Not", [self._node("Equal", arguments)])
        if name != "log1p":
            return self._node(NODES[name], arguments)
        # ONNX has no log1p.
        (x,) = arguments
        limit = self._tensor(Number(LOG1P_LINEAR_BELOW))
        small = self._node("Less", [self._node("Abs", [x]), limit])
        log = self._node("Log", [self._node("Add", [x, self._tensor(Number(1.0))])])
        return self._node("Where", [small, x, log])

    def _node(self, kind: str, arguments: Sequence[str], **attributes: Any) -> str:  # noqa: ANN401  ONNX attributes
        result = self._new_name()
        self.nodes.append(helper.make_node(kind, list(arguments), [result], **attributes))
        return result

    def _gathered(self, names: Sequence[str]) -> str:
        """Return the tensor of some model inputs, (len(names), B) float32."""
        if list(names) == self._names:
            return self._inputs
        indexes = np.array([self._names.index(name) for name in names], dtype=np.int64)
        return self._node("Gather", [self._inputs, self._constant(indexes)], axis=0)

    def _constant(self, value: NDArray[Any]) -> str:
        name = self._new_name()
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def _new_name(self) -> str:
        self._count += 1
        return f"on_demand/{self._count}"
