"""Every kind of tree operator is scored natively with the bits of ONNX Runtime."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from gateway.models.native_scorer import (
    NativeScorer,
    choose_scorer,
    draw_comparison_rows,
    find_difference,
    load_tree_reader,
    same_scores,
)
from registry.scoring import Session
from tests.gateway.models.test_native_trees import (
    GOLDEN,
    NUMBERS,
    WIDTH,
    bundle_of,
    ensemble_of,
    runtime_of,
)
from tests.property_examples import examples

pytestmark = pytest.mark.skipif(load_tree_reader() is None, reason="turnout_ingress is not built")
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
Tree = list[dict[str, Any]]
"""Nodes of a tree, root first. A leaf has `weights`, target -> weight."""


def operator(
    trees: list[Tree],
    *,
    targets: int,
    classes: bool = False,
    double: bool = False,
    **attributes: object,
) -> bytes:
    """Return the ONNX file of one tree operator.

    targets     number of targets or classes.
    classes     whether it is a TreeEnsembleClassifier, of which the probabilities are served.
    double      whether its numbers and inputs are float64.
    attributes  further attributes of the operator.
    """
    # The lists, with numbers of float64 as tensors.
    prefix = "class" if classes else "target"
    lists = attribute_lists(trees, prefix)
    if double:
        for name in ("nodes_values", f"{prefix}_weights"):
            lists[f"{name}_as_tensor"] = double_tensor(lists.pop(name))
        if "base_values" in attributes:
            attributes["base_values_as_tensor"] = double_tensor(attributes.pop("base_values"))
    # The operator, alone in its graph.
    own = {"classlabels_int64s": list(range(targets))} if classes else {"n_targets": targets}
    node = helper.make_node(
        "TreeEnsembleClassifier" if classes else "TreeEnsembleRegressor",
        ["inputs"],
        ["label", "scores"] if classes else ["scores"],
        domain="ai.onnx.ml",
        **lists | own | attributes,
    )
    graph = helper.make_graph(
        [node],
        "trees",
        [
            helper.make_tensor_value_info(
                "inputs", TensorProto.DOUBLE if double else TensorProto.FLOAT, [None, WIDTH]
            )
        ],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, targets])],
    )
    # The releases are those that training writes.
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def attribute_lists(trees: list[Tree], prefix: str) -> dict[str, Any]:
    """Return the lists of an operator that describe its trees. *prefix* is class or target."""
    # One entry for each node, and one for each weight of a leaf.
    nodes = [(tree, at, node) for tree, nodes in enumerate(trees) for at, node in enumerate(nodes)]
    weights = [
        (tree, at, target, weight)
        for tree, at, node in nodes
        for target, weight in node.get("weights", {}).items()
    ]
    return {
        "nodes_treeids": [tree for tree, _, _ in nodes],
        "nodes_nodeids": [at for _, at, _ in nodes],
        "nodes_modes": [node.get("mode", "LEAF") for _, _, node in nodes],
        "nodes_featureids": [node.get("feature", 0) for _, _, node in nodes],
        "nodes_values": [float(node.get("threshold", 0.0)) for _, _, node in nodes],
        "nodes_truenodeids": [node.get("yes", 0) for _, _, node in nodes],
        "nodes_falsenodeids": [node.get("no", 0) for _, _, node in nodes],
        "nodes_missing_value_tracks_true": [int(node.get("missing", 0)) for _, _, node in nodes],
        f"{prefix}_treeids": [tree for tree, _, _, _ in weights],
        f"{prefix}_nodeids": [at for _, at, _, _ in weights],
        f"{prefix}_ids": [target for _, _, target, _ in weights],
        f"{prefix}_weights": [float(weight) for _, _, _, weight in weights],
    }


def double_tensor(numbers: Any) -> TensorProto:  # noqa: ANN401  a list of an attribute
    """Return a list of numbers as a tensor of float64."""
    return helper.make_tensor("numbers", TensorProto.DOUBLE, [len(numbers)], numbers)


def session_with(onnx: bytes, outputs: int) -> Session:
    """Return ONNX Runtime's session of a file with this many scores."""
    return Session(runtime_of(onnx), WIDTH, outputs)


def find_bits(onnx: bytes, outputs: int) -> str:
    """Return why native trees do not stand in for ONNX Runtime; "" if all bits are the same."""
    ensemble = ensemble_of(onnx)
    assert ensemble.outputs == outputs
    golden = GOLDEN.astype(np.float64 if ensemble.double else np.float32)
    rows = draw_comparison_rows(golden, ensemble.thresholds())
    return find_difference(ensemble, session_with(onnx, outputs), rows)


@st.composite
def grown_tree(draw: st.DrawFn, targets: tuple[int, ...], splits_max: int) -> Tree:
    """Draw a tree whose leaves have a weight for each of *targets*."""
    weight = st.floats(-2, 2, width=32)

    def leaf() -> dict[str, Any]:
        return {"weights": {target: draw(weight) for target in targets}}

    # A seed makes large trees at the cost of small ones.
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    modes = draw(st.lists(st.sampled_from(MODES), min_size=1, max_size=6))
    nodes = [leaf()]
    for _ in range(draw(st.integers(0, splits_max))):
        leaves = [at for at, node in enumerate(nodes) if "weights" in node]
        at = int(random.choice(leaves[-4:]))
        nodes[at] = {
            "mode": modes[random.integers(len(modes))],
            "feature": int(random.integers(WIDTH)),
            "threshold": draw(NUMBERS) if random.random() < 0.2 else float(random.normal()),
            "missing": bool(random.integers(2)),
            "yes": len(nodes),
            "no": len(nodes) + 1,
        }
        nodes += [leaf(), leaf()]
    return nodes


@st.composite
def ensembles(draw: st.DrawFn) -> tuple[bytes, int]:
    """Draw (file, number of scores): any mode, number of leaves, targets and kind of operator."""
    targets = draw(st.integers(1, 4))
    classes = targets > 1 and draw(st.booleans())
    one_class = classes and targets == 2 and draw(st.booleans())
    # A tree adds to one target, as boosting does, or to all, as a forest does.
    every = tuple(range(targets))
    double = draw(st.booleans())
    kinds = st.just((0,)) if one_class else st.sampled_from([every, *((at,) for at in every)])
    if targets == 2 and classes and not one_class:
        kinds = st.just(every)
    splits_max = draw(st.sampled_from([3, 31, 150]))
    trees = draw(
        st.lists(kinds.flatmap(lambda kind: grown_tree(kind, splits_max)), min_size=1, max_size=20)
    )
    transforms = ["NONE", "LOGISTIC", "SOFTMAX"] if targets > 1 else ["NONE"]
    attributes: dict[str, object] = {"post_transform": draw(st.sampled_from(transforms))}
    if one_class:
        attributes["post_transform"] = draw(st.sampled_from(["NONE", "LOGISTIC"]))
    if not classes:
        attributes["aggregate_function"] = draw(st.sampled_from(["SUM", "AVERAGE"]))
    # ONNX Runtime adds no base value to a sum without a weight, so such files are refused.
    given = {target for nodes in trees for node in nodes for target in node.get("weights", {})}
    based = not classes or one_class or targets > 2
    if draw(st.booleans()) and based and (one_class or len(given) == targets):
        count = 1 if one_class else targets
        attributes["base_values"] = [draw(st.floats(-2, 2, width=32)) for _ in range(count)]
    file = operator(trees, targets=targets, classes=classes, double=double, **attributes)
    return file, targets


@pytest.mark.walk
@examples(150)
@given(ensembles())
def test_random_ensembles_have_onnxruntimes_bits(drawn: tuple[bytes, int]) -> None:
    """The rows take each branch; there are NaN, infinities, -0, equal thresholds, single leaves."""
    assert find_bits(*drawn) == ""


def stump(mode: str, threshold: float, **parts: object) -> Tree:
    """Return a tree of one comparison."""
    node = {"mode": mode, "feature": 0, "threshold": threshold, "yes": 1, "no": 2}
    return [node | parts, {"weights": {0: 1.0}}, {"weights": {0: 2.0}}]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_each_comparison_has_onnxruntimes_bits(mode: str, missing: bool, double: bool) -> None:
    """Thresholds are zeros of both signs, infinities, the smallest and the largest numbers."""
    for threshold in (0.0, -0.0, 1.5, 1e-45, 3.4028235e38, math.inf, -math.inf):
        onnx = operator([stump(mode, threshold, missing=missing)], targets=1, double=double)
        assert find_bits(onnx, 1) == "", threshold


def test_thresholds_between_two_float32_are_kept_apart() -> None:
    """The number between them goes to the left of one tree and to the right of the other."""
    trees = [stump("BRANCH_LEQ", 1.0 + 2**-40), stump("BRANCH_LEQ", 1.0 + 2**-39)]
    ensemble = ensemble_of(operator(trees, targets=1, double=True))
    rows = np.full((3, WIDTH), 1.0) + np.array([[0.0], [1.5 * 2**-40], [2**-38]])
    assert np.frombuffer(ensemble.run(rows), np.float32).tolist() == [2.0, 3.0, 4.0]
    with pytest.raises(BufferError):
        ensemble.run(rows.astype(np.float32))


def category_tree(categories: int) -> Tree:
    """Return a tree that tests for one category after the other, and shares what is behind them."""
    nodes: Tree = []
    for at in range(categories):
        nodes.append(
            {
                "mode": "BRANCH_EQ",
                "feature": at % 2,
                "threshold": float(at),
                "yes": categories,
                "no": at + 1 if at + 1 < categories else categories + 1,
            }
        )
    inner = {"mode": "BRANCH_LEQ", "feature": 2, "threshold": 0.5}
    shared = [inner | {"yes": categories + 2, "no": categories + 3}, {"weights": {0: 0.5}}]
    return [*nodes, *shared, {"weights": {0: 1.0}}, {"weights": {0: -1.0}}]


def test_nodes_with_several_parents_are_scored() -> None:
    """Onnxmltools writes LightGBM's categories so. Each parent's branch is compared."""
    onnx = operator([category_tree(40), stump("BRANCH_LEQ", 0.0)], targets=1)
    assert find_bits(onnx, 1) == ""
    found = ensemble_of(onnx).leaf_rows(GOLDEN.astype(np.float64), 10_000)
    assert found is not None
    rows = np.frombuffer(found, np.float64).reshape(-1, WIDTH)
    equal = {float(at) for at in range(40)}
    assert equal <= {float(value) for row in rows for value in row[:2]}


def test_nodes_below_themselves_are_refused() -> None:
    """A cycle has no end."""
    looped = stump("BRANCH_LEQ", 0.0)
    looped[1] = looped[0] | {"yes": 0, "no": 2}
    with pytest.raises(ValueError, match="no end"):
        ensemble_of(operator([looped], targets=1))


def chain_of(splits: int) -> Tree:
    """Return a tree as deep as it has comparisons."""
    nodes: Tree = []
    for split in range(splits):
        at = 2 * split
        nodes += [
            {
                "mode": "BRANCH_GT",
                "feature": split % WIDTH,
                "threshold": -split,
                "yes": at + 2,
                "no": at + 1,
            },
            {"weights": {0: 1.0 + split}},
        ]
    return [*nodes, {"weights": {0: 0.25}}]


@pytest.mark.parametrize("splits", [32, 64, 500, 5_000])
def test_the_deepest_trees_are_scored(splits: int) -> None:
    """No recursion ends at a depth; every number of rows up to 4,096 is scored."""
    onnx = operator([chain_of(splits), stump("BRANCH_LT", 1.0)], targets=1)
    ensemble, session = ensemble_of(onnx), session_with(onnx, 1)
    rows = np.resize(draw_comparison_rows(GOLDEN, ensemble.thresholds()), (4_096, WIDTH))
    assert same_scores(NativeScorer(ensemble), session, rows)


def weights_of(*targets: int, sign: float = 1.0) -> Tree:
    """Return a tree of two leaves with weights for these targets."""
    node = {"mode": "BRANCH_LEQ", "feature": 0, "threshold": 0.5, "yes": 1, "no": 2}
    leaves = [{"weights": {at: sign * (0.25 + at) for at in targets}} for _ in range(2)]
    return [node, *leaves]


def test_two_classes_are_scored_in_the_ways_of_onnxruntime() -> None:
    """Weights of one class are probabilities unless one is negative; then they are log-odds."""
    cases = [
        ([weights_of(0)], {}),
        ([weights_of(0)], {"post_transform": "LOGISTIC", "base_values": [0.5]}),
        ([weights_of(0), weights_of(0, sign=-1.0)], {"post_transform": "LOGISTIC"}),
        ([weights_of(0, sign=-1.0)], {}),
        ([weights_of(0), weights_of(0, sign=-1.5)], {"post_transform": "SOFTMAX"}),
        ([weights_of(1, sign=-1.0)], {"post_transform": "LOGISTIC"}),
        ([weights_of(0, 1), weights_of(1, sign=-1.0)], {"post_transform": "SOFTMAX"}),
    ]
    for trees, attributes in cases:
        assert find_bits(operator(trees, targets=2, classes=True, **attributes), 2) == ""


@pytest.mark.parametrize(
    ("trees", "targets", "attributes"),
    [
        ([weights_of(0, 1)], 2, {"base_values": [0.5, 0.5]}),
        ([weights_of(0), [{"weights": {}}]], 1, {}),
        ([weights_of(0)], 3, {"base_values": [0.5]}),
        ([weights_of(0)], 3, {"base_values": [0.5, 0.25, 1.0]}),
        ([weights_of(0)], 3, {"post_transform": "PROBIT"}),
        ([weights_of(3)], 3, {}),
    ],
)
def test_sums_that_become_scores_in_other_ways_are_refused(
    trees: list[Tree], targets: int, attributes: dict[str, Any]
) -> None:
    """ONNX Runtime scores them."""
    with pytest.raises(ValueError, match=r"."):
        ensemble_of(operator(trees, targets=targets, classes=targets > 1, **attributes))


def test_picked_scores_are_returned_in_their_order() -> None:
    """A column that does not exist is refused."""
    read = load_tree_reader()
    assert read is not None
    onnx = operator([weights_of(0, 1, 2)], targets=3, classes=True, post_transform="SOFTMAX")
    expected = session_with(onnx, 3).run(GOLDEN)
    for picked in ([2], [1, 0], [0, 0, 2]):
        found = NativeScorer(read(onnx, picked)).run(GOLDEN)
        assert found.tobytes() == expected[:, picked].tobytes()
    with pytest.raises(ValueError, match="picked"):
        read(onnx, [3])


@pytest.mark.walk
@pytest.mark.parametrize("negatives_share", [1.0, 0.25])
def test_a_fitted_forest_is_scored_natively(negatives_share: float) -> None:
    """Its positive column is picked, and odds are corrected behind the trees by ONNX Runtime."""
    from sklearn.ensemble import RandomForestClassifier

    from training.export.convert import convert_to_onnx

    rows = np.random.default_rng(1).normal(size=(3_000, WIDTH)).astype(np.float32)
    noise = np.random.default_rng(2).normal(size=3_000)
    forest = RandomForestClassifier(n_estimators=20, max_depth=12, random_state=1)
    forest.fit(rows, rows.sum(axis=1) + noise > 0)
    onnx = convert_to_onnx(
        forest, name="f", width=WIDTH, model_contract="c0", negatives_share=negatives_share
    )
    session = session_with(onnx, 1)
    scorer = choose_scorer(bundle_of(onnx), session)
    assert isinstance(scorer, NativeScorer)
    assert same_scores(scorer, session, rows)
