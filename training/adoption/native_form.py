"""Brings boosted trees into the form that gateways score fastest, and says what is not native.

Gateways score trees, linear models and small networks natively, and one tree operator also beside
what only ONNX Runtime knows. A sum of trees and a Sigmoid are the shortest graph, as
training.export.convert writes it. Exporters write a
TreeEnsembleClassifier with a logistic function, columns that are picked before and after it, other
comparisons than BRANCH_LEQ, weights of both classes, and leaves without a weight. The sums of the
leaves stay as they are; the Sigmoid has other last bits than the classifier's logistic function. A
graph that has no such form stays as it is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from training.adoption.adapt_graph import INPUTS, SCORES
from training.adoption.graph.column_origins import constants_of
from training.adoption.graph.read_graph import ML_DOMAIN, Model, Node, attributes_of, node_name
from training.export.onnx_model import IR_VERSION, ML_OPSET, OPSET, OnnxModel

DIFFERENCE_MAX = 1e-6
"""How far a score may move, as a share of it if it is above 1. The logistic functions of ONNX
Runtime differ by 1e-7."""
TREES = ("TreeEnsembleRegressor", "TreeEnsembleClassifier")
BESIDE_TREES = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Floor", "Log", "Min", "Max"),
    *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsNaN"),
    *("And", "Or", "Not", "Where", "Gather", "Split", "Cast", "Concat", "Transpose"),
    *("Identity", "Reshape", "Flatten", "Sqrt", "Exp", "Pow", "Sigmoid", "Softmax", "ReduceSum"),
    *("MatMul", "Gemm", "ArgMax", "ArgMin", "ReduceMean", "ReduceMax", "ReduceProd"),
    *("Reciprocal", "Shape", "ConstantOfShape"),
    *("Ceil", "Clip", "IsInf", "Round", "Sign", "Slice", "Squeeze", "Unsqueeze", "Tanh", "Relu"),
    *("ArrayFeatureExtractor", "FeatureVectorizer", "Imputer", "Normalizer", "Scaler"),
    *("Binarizer", "LabelEncoder", "OneHotEncoder"),
}
"""Operators that gateways run by ONNX Runtime beside native trees, as
gateway.models.steps.tree_graph.OPERATORS."""
PRODUCTS = {"MatMul", "Gemm", "LinearRegressor", "LinearClassifier"}
"""Operators that ONNX Runtime may round differently, so native trees do not read from them."""
STEPS = {
    *PRODUCTS,
    *("Neg", "Abs", "Sqrt", "Exp", "Log", "Floor", "Relu", "Sigmoid", "Tanh", "IsNaN", "Not"),
    *("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Pow", "And", "Or", "Where"),
    *("Less", "LessOrEqual", "Equal", "Greater", "GreaterOrEqual", "LeakyRelu", "Softmax"),
    *("Identity", "Reshape", "Flatten", "Cast", "Clip", "Concat", "Gather", "Split", "Slice"),
    *("Ceil", "Round", "Sign", "Reciprocal", "ArgMax", "ArgMin", "LpNormalization", "Squeeze"),
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare"),
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "Unsqueeze", "Shape"),
    *("ConstantOfShape", "ArrayFeatureExtractor", "Scaler", "Imputer", "Normalizer"),
    *("OneHotEncoder", "LabelEncoder"),
}
"""Operators that gateways compute natively, as gateway.models.steps.step_operators.KNOWN."""
WEIGHTS_MAX = 2**16
"""As gateway.models.steps.step_products.WEIGHTS_MAX."""
LOG_ODDS = "log_odds"
TREE_FIELDS = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_values",
    "nodes_modes",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
)
LEAF_FIELDS = ("treeids", "nodeids", "ids", "weights")
"""Lists of a tree operator with one entry for each weight, after `class_` or `target_`."""


@dataclass(frozen=True, eq=False, slots=True)
class NativeForm:
    """An adapted graph in native form, or the graph as it is.

    onnx            None if the graph stays as it is.
    reason          why ONNX Runtime has to score; "" if gateways score natively.
    difference_max  how far scores moved, as a share of those above 1.
    """

    onnx: bytes | None
    reason: str = ""
    difference_max: float = 0.0


class NotTreesError(Exception):
    """The graph cannot be written as one sum of trees. The text is the reason."""


@dataclass(frozen=True, eq=False, slots=True)
class _FoundTrees:
    """The trees of a graph.

    node      the operator.
    served    the class, or 0, whose weights are summed.
    column    feature of the trees -> column of a row.
    logistic  whether the score is the logistic function of the sum.
    """

    node: Node
    served: int
    column: Callable[[int], int]
    logistic: bool


def native_form(adapted: bytes, rows: NDArray[np.float32]) -> NativeForm:
    """Return *adapted* in native form, compared with it on *rows*, (N, F).

    rows  edge rows of its trees should be among them (`adapted_rows`).
    """
    try:
        form = plain_trees(adapted)
    except NotTreesError:
        return NativeForm(None, why_not_native(adapted))
    # The rewritten trees must give the same scores, NaN for NaN.
    expected, found = OnnxModel(adapted).scores(rows), OnnxModel(form).scores(rows)
    sizes = np.maximum(1.0, np.abs(np.nan_to_num(expected.astype(np.float64))))
    differences = np.abs(expected.astype(np.float64) - found) / sizes
    differences[np.isnan(expected) & np.isnan(found)] = 0
    worst = float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))
    if worst > DIFFERENCE_MAX:
        return NativeForm(None, why_not_native(adapted))
    return NativeForm(form, difference_max=worst)


def plain_trees(adapted: bytes, *, shift: float = 0.0) -> bytes:
    """Return the trees of *adapted* as one TreeEnsembleRegressor, and a Sigmoid for a probability.

    shift  is added to the sum of every row, before a Sigmoid.

    Trees of any number of leaves are written. Raises NotTreesError for a graph with other operators
    than boosted trees of one output.
    """
    model = onnx.load_model_from_string(adapted)
    found = _find_trees(model)
    return _written(model, _regressor(found, shift), logistic=found.logistic)


def why_not_native(learner: bytes) -> str:
    """Return why gateways score a graph by ONNX Runtime; "" if they score it or its trees natively.

    learner  the graph without nodes of on-demand features.

    A gateway still compares both when it loads the version.
    """
    graph = onnx.load_model_from_string(learner).graph
    nodes = _nodes_to({SCORES}, graph.node)
    trees = [node for node in nodes if node.op_type in TREES]
    in_front = _nodes_to({name for node in trees for name in node.input}, graph.node)
    for node in nodes:
        # ONNX Runtime runs what stands beside one operator of trees.
        if node.op_type in TREES or (len(trees) == 1 and node.op_type in BESIDE_TREES):
            continue
        if node.op_type not in STEPS or (node in in_front and node.op_type in PRODUCTS):
            beside = "stands beside its trees" if trees else "is not scored natively"
            return f"the node {node_name(node)} {beside}"
    weights = sum(math.prod(constant.dims) for constant in graph.initializer)
    if not trees and weights > WEIGHTS_MAX:
        return f"it has {weights:,} weights, and {WEIGHTS_MAX:,} at most are scored natively"
    odd = (_odd_sums(node.op_type, attributes_of(node)) for node in trees)
    return next((reason for reason in odd if reason), "")


def _nodes_to(names: set[str], nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes that compute these tensors, last first."""
    needed, found = set(names), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            found.append(node)
            needed.update(node.input)
    return found


def _odd_sums(kind: str, trees: Mapping[str, Any]) -> str:
    """Return what of a tree operator's sums is not computed natively; "" if everything is."""
    transform = trees.get("post_transform", b"NONE")
    if transform not in (b"NONE", b"LOGISTIC", b"SOFTMAX"):
        return f"its sums are transformed by {transform.decode()}"
    if trees.get("aggregate_function", b"SUM") not in (b"SUM", b"AVERAGE"):
        return "its trees are not added up"
    # A leaf has one weight of a class, and two classes are added up in the usual ways only.
    prefix = "class" if kind == TREES[1] else "target"
    lists = (trees[f"{prefix}_{name}"] for name in ("treeids", "nodeids", "ids"))
    weighed = list(zip(*lists, strict=True))
    if len(set(weighed)) != len(weighed):
        return "a leaf has two weights of one class"
    labels = trees.get("classlabels_int64s") or trees.get("classlabels_strings") or ()
    classes = set(trees[f"{prefix}_ids"])
    tensor = trees.get("base_values_as_tensor")
    base_count = len(trees.get("base_values", ())) if tensor is None else math.prod(tensor.dims)
    if len(labels) == 2 and base_count > (classes == {0}):
        return f"its two classes have {base_count} base values"
    return ""


def _find_trees(model: Model) -> _FoundTrees:
    """Return the trees of one score. Raises NotTreesError for a graph with other operators."""
    constants = constants_of(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    # From the scores back to the trees: operators that leave one column as it is, or its sigmoid.
    name, column, sigmoid = SCORES, 0, False
    node = makers[name]
    while node.op_type not in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
        picked = _picked_column(node, constants)
        if picked is not None:
            column = picked
        elif node.op_type == "Sigmoid" and not sigmoid:
            sigmoid = True
        elif not _leaves_as_is(node, constants):
            raise NotTreesError(f"the node {node_name(node)} is no boosted tree")
        name = node.input[0]
        if name not in makers:
            raise NotTreesError("the graph has no boosted trees")
        node = makers[name]
    logistic = sigmoid or node.op_type == "TreeEnsembleClassifier"
    _check_scores(model, node, name, column, sigmoid=sigmoid)
    # From the trees back to the row: at most one Gather of columns.
    before = makers.get(node.input[0])
    if node.input[0] == INPUTS:
        return _FoundTrees(node, column, lambda feature: feature, logistic)
    if before is not None and before.op_type == "Gather" and before.input[0] == INPUTS:
        order = [int(index) for index in np.ravel(constants[before.input[1]])]
        return _FoundTrees(node, column, lambda feature: order[feature], logistic)
    found = "no node" if before is None else f"the node {node_name(before)}"
    raise NotTreesError(f"{found} makes the columns of the trees, and natively they are the row's")


def _picked_column(node: Node, constants: Mapping[str, Any]) -> int | None:
    """Return the column that a node picks; None if it picks none, or more than one."""
    picks = constants.get(node.input[1]) if len(node.input) == 2 else None
    selects = node.op_type == "ArrayFeatureExtractor" or (
        node.op_type == "Gather" and attributes_of(node).get("axis", 0) in (1, -1)
    )
    return int(picks.ravel()[0]) if selects and picks is not None and picks.size == 1 else None


def _leaves_as_is(node: Node, constants: Mapping[str, Any]) -> bool:
    if node.op_type in ("Identity", "Reshape", "Flatten"):
        return True
    if node.op_type == "Cast":
        return bool(attributes_of(node)["to"] == TensorProto.FLOAT)
    # onnxmltools multiplies probabilities by 1.
    return node.op_type == "Mul" and bool(np.all(constants.get(node.input[1], 0) == 1))


def _check_scores(model: Model, node: Node, name: str, column: int, *, sigmoid: bool) -> None:
    """Raise NotTreesError unless *name* of the trees is one sum or the probability of one class."""
    outputs = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    if outputs != 1:
        raise NotTreesError(f"{outputs} outputs are served, and natively there is one")
    attributes = attributes_of(node)
    transform = attributes.get("post_transform", b"NONE")
    if node.op_type == "TreeEnsembleRegressor":
        if transform != b"NONE":
            raise NotTreesError(
                f"the sum of the trees is transformed by {transform.decode()}, and natively by a "
                "logistic function or not at all"
            )
        if attributes.get("aggregate_function", b"SUM") != b"SUM" or attributes["n_targets"] != 1:
            raise NotTreesError("the trees do not give one sum, as boosted trees do")
        return
    if sigmoid or transform != b"LOGISTIC" or name != node.output[1]:
        raise NotTreesError(
            f"the trees' probabilities are of {transform.decode()}, and natively of a sum with a "
            "logistic function, as boosted trees of two classes have it"
        )
    if len(set(attributes["class_ids"])) == 1 and column != 1:
        raise NotTreesError("the negative class is served, and natively the positive of two")


def _regressor(found: _FoundTrees, shift: float) -> Node:
    """Return the same trees as one TreeEnsembleRegressor with BRANCH_LEQ and a weight a leaf.

    shift  is added to the base value.
    """
    attributes = attributes_of(found.node)
    if any(name.endswith("_as_tensor") for name in attributes):
        raise NotTreesError("the trees have numbers of float64")
    nodes: dict[str, Any] = {
        name: list(attributes[name]) for name in TREE_FIELDS if name in attributes
    }
    nodes.setdefault("nodes_missing_value_tracks_true", [0] * len(nodes["nodes_modes"]))
    leaves, base = _leaves(attributes, found.served, nodes)
    # Every comparison is x <= t, of columns of the row.
    for index, mode in enumerate(nodes["nodes_modes"]):
        if mode != b"LEAF":
            _compare_by_less_or_equal(nodes, index)
            nodes["nodes_featureids"][index] = found.column(nodes["nodes_featureids"][index])
    return helper.make_node(
        "TreeEnsembleRegressor",
        [INPUTS],
        [LOG_ODDS if found.logistic else SCORES],
        domain=ML_DOMAIN,
        n_targets=1,
        base_values=[base + shift],
        **nodes,
        **leaves,
    )


def _leaves(
    attributes: Mapping[str, Any], served: int, nodes: Mapping[str, Any]
) -> tuple[dict[str, Any], float]:
    """Return the regressor's lists of leaves with the weights of one class, and its base value."""
    # Take the weights of one class.
    prefix = "class_" if "class_ids" in attributes else "target_"
    weights = [
        (tree, number, weight)
        for tree, number, which, weight in zip(
            *(attributes[prefix + name] for name in LEAF_FIELDS), strict=True
        )
        if which == served or len(set(attributes[prefix + "ids"])) == 1
    ]
    weighed = {(tree, number) for tree, number, _ in weights}
    if len(weighed) != len(weights):
        raise NotTreesError("a leaf has two weights, and natively one")
    # Leaves without a weight weigh nothing.
    weights += [
        (tree, number, 0.0)
        for tree, number, mode in zip(
            nodes["nodes_treeids"], nodes["nodes_nodeids"], nodes["nodes_modes"], strict=True
        )
        if mode == b"LEAF" and (tree, number) not in weighed
    ]
    # Each class may have a base value.
    base = list(attributes.get("base_values", [])) or [0.0]
    if len(base) > 1 and len(set(attributes[prefix + "ids"])) == 1:
        raise NotTreesError(f"the trees have {len(base)} base values, and natively one")
    leaves = {
        "target_treeids": [tree for tree, _, _ in weights],
        "target_nodeids": [number for _, number, _ in weights],
        "target_ids": [0] * len(weights),
        "target_weights": [weight for _, _, weight in weights],
    }
    return leaves, float(base[served] if len(base) > 1 else base[0])


def _compare_by_less_or_equal(nodes: Mapping[str, Any], index: int) -> None:
    """Write the comparison of a node as x <= t, which is the same for every float32 and for NaN."""
    mode, threshold = nodes["nodes_modes"][index], np.float32(nodes["nodes_values"][index])
    if mode not in (b"BRANCH_LEQ", b"BRANCH_LT", b"BRANCH_GT", b"BRANCH_GTE"):
        raise NotTreesError(f"a node compares by {mode.decode()}")
    if mode in (b"BRANCH_LT", b"BRANCH_GTE"):
        # x < t is x <= the float32 below t.
        if not np.isfinite(threshold):
            raise NotTreesError(f"a node compares with {threshold}")
        nodes["nodes_values"][index] = float(np.nextafter(threshold, np.float32(-np.inf)))
    if mode in (b"BRANCH_GT", b"BRANCH_GTE"):
        # x > t is the other branch of x <= t, and NaN stays where it was.
        true, false = nodes["nodes_truenodeids"], nodes["nodes_falsenodeids"]
        true[index], false[index] = false[index], true[index]
        nodes["nodes_missing_value_tracks_true"][index] ^= 1
    nodes["nodes_modes"][index] = b"BRANCH_LEQ"


def _written(model: Model, regressor: Node, *, logistic: bool) -> bytes:
    """Return the file of the trees, with the input, output and contract of *model*.

    logistic  whether a Sigmoid stands behind them.
    """
    sigmoid = [helper.make_node("Sigmoid", [LOG_ODDS], [SCORES])] if logistic else []
    graph = helper.make_graph(
        [regressor, *sigmoid],
        "adapted",
        [model.graph.input[0]],
        [model.graph.output[0]],
    )
    written = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="turnout",
    )
    written.metadata_props.extend(model.metadata_props)
    return bytes(written.SerializeToString(deterministic=True))
