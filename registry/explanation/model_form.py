"""Finds the sum behind the scores of a version: trees or a linear model, and what follows it.

A score can be explained exactly if it is one function of one sum over columns. The graph is
followed from `scores` back to the operator that sums. What may stand behind the sum is listed in
STEPS; every other operator is refused by its name, so a network or a mean of several models is
never explained as if it were a sum.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.explanation.errors import NotExplainedError
from registry.explanation.onnx_nodes import GraphNode, GraphNodes, read_nodes
from registry.explanation.tree_paths import LINKS, SummedTrees, read_trees

SCORES, INPUTS = "scores", "inputs"
PASSED = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
"""Operators behind the sum that leave its columns as they are."""
TREES = {"TreeEnsembleClassifier", "TreeEnsembleRegressor"}
LINEAR = {"LinearClassifier", "LinearRegressor", "MatMul", "Gemm"}
STEPS_MAX = 64
ADVICE = (
    "linear models and sums of trees of one model can be explained; a mean of several models "
    "(calibration='sigmoid' fits three), a network or a forest of anomalies cannot"
)


@dataclass(frozen=True, eq=False, slots=True)
class LinearSum:
    """K sums of C columns: columns @ coefficients (C, K) + intercepts (K,), and what follows."""

    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    link: str


@dataclass(frozen=True, eq=False)
class ModelForm:
    """How the scores of a version are computed.

    matrix       the tensor (B, C) whose columns are summed.
    raw          the tensor (B, K') that the summing operator gives.
    raw_link     what the operator does to its sums: a value of LINKS.
    trees        the trees that are summed; None for a linear model.
    linear       the coefficients; None for trees.
    combined     (K, K') how the margin of each score is made of the sums.
    shifts       (K,) what is added to it.
    link         margin -> score: a value of LINKS.
    odds_factor  the odds of the score are divided by it behind the link; 1: they are not.
    """

    nodes: GraphNodes
    matrix: str
    raw: str
    raw_link: str
    trees: SummedTrees | None
    linear: LinearSum | None
    combined: NDArray[np.float64]
    shifts: NDArray[np.float64]
    link: str
    odds_factor: float


_Step = tuple[str, Any, str]
"""What a node behind the sum does, with what value, and the tensor that it reads."""


def find_form(onnx: bytes, outputs: int) -> ModelForm:
    """Return the form of a version's model with K *outputs*.

    Raises NotExplainedError, which names the operator that is in the way.
    """
    nodes = read_nodes(onnx)
    # Walk back from the scores to the operator that sums; the last step first.
    steps: list[tuple[str, Any]] = []
    tensor = SCORES
    while (node := nodes.maker(tensor)).kind not in TREES | LINEAR:
        what, value, tensor = _step_back(nodes, node)
        steps.append((what, value))
        if len(steps) > STEPS_MAX:
            raise NotExplainedError(f"more than {STEPS_MAX} operators stand behind the sum")
    # Read it, and let what follows act on its columns, nearest to the sum first.
    if node.kind.endswith("Classifier") and tensor != node.outputs[1]:
        raise NotExplainedError("the label of a classifier is served, and it has no sum")
    summed = read_trees(node) if node.kind in TREES else _linear_sum(nodes, node)
    chain = _Chain(summed)
    for what, value in reversed(steps):
        chain.follow(what, value)
    if len(chain.combined) != outputs:
        raise NotExplainedError(
            f"its graph serves {len(chain.combined)} columns of a sum for {outputs} outputs"
        )
    return ModelForm(
        nodes=nodes,
        matrix=node.inputs[0],
        raw=tensor,
        raw_link=summed.link,
        trees=summed if isinstance(summed, SummedTrees) else None,
        linear=summed if isinstance(summed, LinearSum) else None,
        combined=chain.combined,
        shifts=chain.shifts,
        link=chain.link,
        odds_factor=chain.odds_factor,
    )


def _linear_sum(nodes: GraphNodes, node: GraphNode) -> LinearSum:
    """Return coefficients and intercepts of a linear operator."""
    fields = node.attributes
    # A product of matrices by a constant, with constants added.
    if node.kind in ("MatMul", "Gemm"):
        table = nodes.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        plain = not fields.get("transA", 0) and fields.get("alpha", 1.0) == 1.0
        if table is None or table.ndim != 2 or not plain:
            raise NotExplainedError(f"{node.shown} has no constant coefficients; {ADVICE}")
        coefficients = table.T if fields.get("transB", 0) else table
        intercepts = np.zeros(coefficients.shape[1])
        if len(node.inputs) > 2:
            added = nodes.constants.get(node.inputs[2])
            if added is None or fields.get("beta", 1.0) != 1.0:
                raise NotExplainedError(f"{node.shown} has no constant intercepts; {ADVICE}")
            intercepts = intercepts + added.ravel()
        return LinearSum(coefficients.astype(np.float64), intercepts, "identity")
    # An operator for linear models, whose coefficients are attributes.
    link = LINKS.get(fields.get("post_transform", b"NONE"))
    if link is None:
        raise NotExplainedError(f"{node.shown} transforms its sum in a way that is not known here")
    table = np.asarray(fields["coefficients"], dtype=np.float64)
    intercepts = np.asarray(fields.get("intercepts", np.zeros(1)), dtype=np.float64)
    rows = int(fields.get("targets", len(intercepts)))
    if not rows or table.size % rows or intercepts.size not in (1, rows):
        raise NotExplainedError(f"{node.shown} contradicts itself: it has {table.size} numbers")
    coefficients = table.reshape(rows, -1).T
    intercepts = np.broadcast_to(intercepts, (rows,)).copy()
    # One sum for two classes: the other class has its negative.
    if node.kind == "LinearClassifier" and rows == 1:
        coefficients = np.concatenate([-coefficients, coefficients], axis=1)
        intercepts = np.concatenate([-intercepts, intercepts])
    return LinearSum(coefficients, intercepts, link)


def _step_back(nodes: GraphNodes, node: GraphNode) -> _Step:
    """Return what *node* does behind the sum.

    Raises NotExplainedError for an operator that may not stand there.
    """
    for kinds, read in STEPS:
        if node.kind in kinds:
            step = read(nodes, node)
            if step is not None:
                return step
    raise NotExplainedError(f"the operator {node.shown} stands behind the sum; {ADVICE}")


def _passed(_: GraphNodes, node: GraphNode) -> _Step:
    return "pass", None, node.inputs[0]


def _picked(nodes: GraphNodes, node: GraphNode) -> _Step | None:
    picks = nodes.constants.get(node.inputs[1])
    columns = node.kind == "ArrayFeatureExtractor" or node.attributes.get("axis", 0) in (1, -1)
    if picks is None or not columns:
        return None
    return "pick", [int(index) for index in np.ravel(picks)], node.inputs[0]


def _logistic(_: GraphNodes, node: GraphNode) -> _Step:
    return "logistic", None, node.inputs[0]


def _softmax(_: GraphNodes, node: GraphNode) -> _Step | None:
    along_columns = node.attributes.get("axis", -1) in (1, -1)
    return ("softmax", None, node.inputs[0]) if along_columns else None


def _negated(_: GraphNodes, node: GraphNode) -> _Step:
    return "affine", (-1.0, 0.0), node.inputs[0]


def _affine(nodes: GraphNodes, node: GraphNode) -> _Step | None:
    """Read a constant that is added to a tensor, or by which it is multiplied."""
    first, second = (nodes.constants.get(name) for name in node.inputs[:2])
    given = second if first is None else first
    if given is None or (first is not None and second is not None):
        return None
    constant = np.ravel(given).astype(np.float64)
    tensor = node.inputs[0 if first is None else 1]
    match node.kind, first is None:
        case "Add", _:
            return "affine", (1.0, constant), tensor
        case "Mul", _:
            return "affine", (constant, 0.0), tensor
        case "Sub", True:
            return "affine", (1.0, -constant), tensor
        case "Sub", False:
            return "affine", (-1.0, constant), tensor
        case "Div", True if np.all(constant != 0):
            return "affine", (1.0 / constant, 0.0), tensor
    return None


def _corrected_odds(nodes: GraphNodes, node: GraphNode) -> _Step | None:
    """Read p / (p + (1 - p) / share), as training writes it for a share of the negatives."""
    learnt, either = node.inputs
    for add in (nodes.makers.get(either),):
        if add is None or add.kind != "Add" or add.inputs[0] != learnt:
            return None
        divide = nodes.makers.get(add.inputs[1])
        if divide is None or divide.kind != "Div":
            return None
        share, subtract = nodes.constants.get(divide.inputs[1]), nodes.makers.get(divide.inputs[0])
        if share is None or share.size != 1 or subtract is None or subtract.kind != "Sub":
            return None
        one = nodes.constants.get(subtract.inputs[0])
        if one is None or not np.all(one == 1) or subtract.inputs[1] != learnt:
            return None
        return "odds", float(share.ravel()[0]), learnt
    return None


def _normalised(nodes: GraphNodes, node: GraphNode) -> _Step | None:
    """Read p / sum(|p|) over the classes, as converters write it behind a classifier."""
    if node.kind == "Normalizer":
        return ("normalise", None, node.inputs[0]) if node.attributes.get("norm") == b"L1" else None
    learnt, total = node.inputs
    summed = nodes.makers.get(total)
    sizes = None if summed is None else nodes.makers.get(summed.inputs[0])
    if summed is None or summed.kind != "ReduceSum" or sizes is None or sizes.kind != "Abs":
        return None
    return ("normalise", None, learnt) if sizes.inputs[0] == learnt else None


STEPS: tuple[tuple[set[str], Callable[[GraphNodes, GraphNode], _Step | None]], ...] = (
    (PASSED, _passed),
    ({"Gather", "ArrayFeatureExtractor"}, _picked),
    ({"Sigmoid"}, _logistic),
    ({"Softmax"}, _softmax),
    ({"Neg"}, _negated),
    ({"Div"}, _corrected_odds),
    ({"Div", "Normalizer"}, _normalised),
    ({"Add", "Sub", "Mul", "Div"}, _affine),
)
"""Operators that may stand behind the sum, and what reads them."""


class _Chain:
    """What is served, as combinations of the sums, while operators behind the sum follow."""

    def __init__(self, summed: SummedTrees | LinearSum) -> None:
        width = len(summed.intercepts if isinstance(summed, LinearSum) else summed.paths.constant)
        self.combined, self.shifts = np.eye(width), np.zeros(width)
        self.link, self.odds_factor = "identity", 1.0
        self.whole = True
        """Whether the output has every class of the sums."""
        self._linear = summed if isinstance(summed, LinearSum) else None
        if summed.link != "identity":
            self.follow(summed.link, None)

    def follow(self, what: str, value: Any) -> None:  # noqa: ANN401  as the step has it
        """Let one operator act. Raises NotExplainedError if the score is no function of a sum."""
        if what == "pick":
            self.combined, self.shifts, self.whole = self.combined[value], self.shifts[value], False
        elif what == "affine" and self.link == "identity" and self.odds_factor == 1.0:
            scale, shift = (np.broadcast_to(part, self.shifts.shape) for part in value)
            self.combined = self.combined * scale[:, None]
            self.shifts = self.shifts * scale + shift
        elif what in ("logistic", "softmax") and self.link == "identity":
            self.link = what
            if what == "softmax":
                # A softmax does not see what is added to all classes.
                self.combined = self.combined - self.combined.mean(axis=0)
                self.shifts = self.shifts - self.shifts.mean()
        elif what == "normalise" and self._adds_up_to_one():
            pass  # the divisor is 1
        elif what == "odds" and self.link == "logistic":
            self.shifts = self.shifts + np.log(value)
        elif what == "odds" and self.link == "identity" and self.odds_factor == 1.0:
            # The odds of a forest's probability are no sum, so the correction is a map of its own.
            self.odds_factor = float(value)
        elif what != "pass" and not (what == "affine" and _changes_nothing(value)):
            raise NotExplainedError(
                f"its score is transformed twice behind the sum ({what} after {self.link}); "
                f"{ADVICE}"
            )

    def _adds_up_to_one(self) -> bool:
        """Whether the scores of a row add up to 1: both classes of two, or a softmax."""
        if self.link == "softmax":
            return self.whole
        if self.link != "logistic" or len(self.combined) != 2 or self._linear is None:
            return False
        intercepts = self.combined @ self._linear.intercepts + self.shifts
        sums = np.column_stack([self.combined @ self._linear.coefficients.T, intercepts])
        return np.array_equal(sums[0], -sums[1])


def _changes_nothing(value: tuple[Any, Any]) -> bool:
    scale, shift = value
    return bool(np.all(np.asarray(scale) == 1) and np.all(np.asarray(shift) == 0))
