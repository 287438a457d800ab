"""Native trees score with the bits of ONNX Runtime, or ONNX Runtime scores."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gateway.models import native_scorer
from gateway.models.native_scorer import (
    Ensemble,
    NativeScorer,
    choose_scorer,
    draw_comparison_rows,
    find_difference,
    load_tree_reader,
    same_scores,
)
from host.onnx_runtime import onnxruntime
from registry.bundle import Bundle, seal_files, verify_bundle
from registry.scoring import Session
from registry.types import ScoringError
from tests.property_examples import examples
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.skipif(load_tree_reader() is None, reason="turnout_ingress is not built")
WIDTH = 3
GOLDEN = np.random.default_rng(5).normal(size=(8, WIDTH)).astype(np.float32)
NUMBERS = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.5, 1.0, 3e38, math.inf, -math.inf])


def onnx_of(
    trees: list[list[dict[str, Any]]],
    base: float = 0.25,
    width: int = WIDTH,
    *,
    sigmoid: bool = True,
    **overrides: object,
) -> bytes:
    """Return an ONNX file as `convert` writes boosted trees.

    trees      the nodes of each tree, root first.
    sigmoid    whether the scores are probabilities.
    overrides  attributes that replace those of a valid file.
    """
    all_nodes = [
        (tree, index, node) for tree, nodes in enumerate(trees) for index, node in enumerate(nodes)
    ]
    leaves = [(tree, index, node) for tree, index, node in all_nodes if "weight" in node]
    # One entry a node, then one entry a leaf.
    attributes: dict[str, object] = {
        "n_targets": 1,
        "base_values": [base],
        "nodes_treeids": [tree for tree, _, _ in all_nodes],
        "nodes_nodeids": [index for _, index, _ in all_nodes],
        "nodes_modes": ["LEAF" if "weight" in node else "BRANCH_LEQ" for _, _, node in all_nodes],
        "nodes_featureids": [node.get("feature", 0) for _, _, node in all_nodes],
        "nodes_values": [float(node.get("threshold", 0.0)) for _, _, node in all_nodes],
        "nodes_truenodeids": [node.get("yes", 0) for _, _, node in all_nodes],
        "nodes_falsenodeids": [node.get("no", 0) for _, _, node in all_nodes],
        "nodes_missing_value_tracks_true": [
            int(node.get("missing", 0)) for _, _, node in all_nodes
        ],
        "target_treeids": [tree for tree, _, _ in leaves],
        "target_nodeids": [index for _, index, _ in leaves],
        "target_ids": [0] * len(leaves),
        "target_weights": [float(node["weight"]) for _, _, node in leaves],
    } | overrides
    # The graph is the trees, and a Sigmoid behind them for a probability.
    sums = "odds" if sigmoid else "scores"
    regressor = helper.make_node(
        "TreeEnsembleRegressor", ["inputs"], [sums], domain="ai.onnx.ml", **attributes
    )
    behind = [helper.make_node("Sigmoid", ["odds"], ["scores"])] if sigmoid else []
    graph = helper.make_graph(
        [regressor, *behind],
        "trees",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1])],
    )
    # The releases are those that training writes.
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def session_of(onnx: bytes) -> Session:
    """Return an ONNX Runtime session of a file, on one thread as registry.bundle opens it."""
    return Session(runtime_of(onnx), WIDTH, 1)


def runtime_of(onnx: bytes) -> Any:  # noqa: ANN401  onnxruntime exports no type
    """Return onnxruntime's own session of a file, with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options)


def native_of(onnx: bytes) -> NativeScorer:
    """Return the native trees of a file; ValueError when it is of another kind."""
    return NativeScorer(ensemble_of(onnx))


def ensemble_of(onnx: bytes) -> Ensemble:
    """Return the native library's own object for a file."""
    read = load_tree_reader()
    assert read is not None
    return read(onnx)


def bundle_of(onnx: bytes) -> Bundle:
    """Return a version whose model is this file."""
    files = {**tiny_files(), "model.onnx": onnx}
    return verify_bundle(
        seal_files(files, model="churn", author="t", created_unix_ms=1), trusted_key=None
    )


@st.composite
def random_tree(draw: st.DrawFn, splits_max: int) -> list[dict[str, Any]]:
    """Draw a tree: it begins as one leaf, and leaves are split up to *splits_max* times."""
    nodes: list[dict[str, Any]] = [{"weight": draw(st.floats(-2, 2, width=32))}]
    for _ in range(draw(st.integers(0, splits_max))):
        leaves = [index for index, node in enumerate(nodes) if "weight" in node]
        split = draw(st.sampled_from(leaves))
        nodes += [{"weight": draw(st.floats(-2, 2, width=32))} for _ in range(2)]
        nodes[split] = {
            "feature": draw(st.integers(0, WIDTH - 1)),
            "threshold": draw(NUMBERS),
            "missing": draw(st.booleans()),
            "yes": len(nodes) - 2,
            "no": len(nodes) - 1,
        }
    return nodes


@pytest.mark.walk
@examples(75)
@given(
    st.sampled_from([31, 63]).flatmap(
        lambda splits_max: st.lists(random_tree(splits_max), min_size=1, max_size=4)
    ),
    st.floats(-20, 20, width=32),
    st.booleans(),
)
def test_native_trees_score_random_trees_with_onnxruntimes_bits(
    trees: list[list[dict[str, Any]]], base: float, sigmoid: bool
) -> None:
    """The trees have ties, -0, infinities, and NaN to either side; batches have any size."""
    onnx = onnx_of(trees, base, sigmoid=sigmoid)
    ensemble, session = ensemble_of(onnx), session_of(onnx)
    rows = draw_comparison_rows(GOLDEN, ensemble.thresholds())
    assert find_difference(ensemble, session, rows) == ""


@examples(75)
@given(st.lists(random_tree(63), min_size=1, max_size=3))
def test_leaf_rows_lead_to_every_leaf_that_a_row_can_reach(
    trees: list[list[dict[str, Any]]],
) -> None:
    """A walk from node to node says which leaves a row reaches, and what each node allows."""
    found = ensemble_of(onnx_of(trees)).leaf_rows(GOLDEN.astype(np.float64), 10_000)
    assert found is not None
    rows = [*GOLDEN, *np.frombuffer(found, np.float64).astype(np.float32).reshape(-1, WIDTH)]
    for nodes in trees:
        assert {walked(nodes, row) for row in rows} == set(reachable(nodes))
    known = np.array(rows, np.float64)
    assert ensemble_of(onnx_of(trees)).leaf_rows(known, 0) == b""


def walked(nodes: list[dict[str, Any]], row: NDArray[np.float32]) -> int:
    """Return the index of the leaf that a row leads to."""
    index = 0
    while "weight" not in nodes[index]:
        node = nodes[index]
        value = row[node["feature"]]
        left = node["missing"] if math.isnan(value) else value <= np.float32(node["threshold"])
        index = node["yes"] if left else node["no"]
    return index


def reachable(
    nodes: list[dict[str, Any]], index: int = 0, values: tuple[frozenset[float], ...] | None = None
) -> list[int]:
    """Return the leaves that rows reach whose values are next to thresholds, or NaN."""
    if values is None:
        edges = [np.float32(node["threshold"]) for node in nodes if "threshold" in node]
        near = [np.nextafter(edge, np.float32(np.inf)) for edge in edges]
        # One object for all missing values, because NaN does not equal NaN.
        values = (frozenset([*map(float, [*edges, *near, 0.0, -np.inf]), math.nan]),) * WIDTH
    node = nodes[index]
    if "weight" in node:
        return [index]
    here, leaves = values[node["feature"]], []
    left = {
        value
        for value in here
        if (node["missing"] if math.isnan(value) else value <= np.float32(node["threshold"]))
    }
    for child, kept in (("yes", frozenset(left)), ("no", here - left)):
        if kept:
            narrowed = list(values)
            narrowed[node["feature"]] = kept
            leaves += reachable(nodes, node[child], tuple(narrowed))
    return leaves


def test_version_with_too_many_leaves_is_scored_by_onnxruntime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A comparison that leaves leaves out proves nothing about them."""
    monkeypatch.setattr(native_scorer, "LEAF_ROWS_MAX", 0)
    monkeypatch.setattr(native_scorer, "draw_comparison_rows", lambda *_: GOLDEN[:1])
    onnx = onnx_of([STUMP])
    session = session_of(onnx)
    assert choose_scorer(bundle_of(onnx), session) is session


def boosted(leaves: int = 31) -> bytes:
    """Return the ONNX file of boosting that is fitted to rows with missing values."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from training.export.convert import convert_to_onnx

    rows = np.random.default_rng(1).normal(size=(400, WIDTH)).astype(np.float32)
    rows[::9, 1] = np.nan
    learner = HistGradientBoostingClassifier(
        max_iter=4, max_leaf_nodes=leaves, min_samples_leaf=4, random_state=1
    )
    learner.fit(rows, np.nan_to_num(rows).sum(axis=1) > 0)
    return convert_to_onnx(learner, name="boosted", width=WIDTH, model_contract="c0")


@pytest.mark.walk
def test_choose_scorer_uses_native_trees_for_a_fitted_version() -> None:
    """The native library reads what training.export.convert writes for boosting."""
    onnx = boosted()
    scorer = choose_scorer(bundle_of(onnx), session_of(onnx))
    assert isinstance(scorer, NativeScorer)
    assert scorer.short_runs, "four trees cost less than two microseconds a row"


@pytest.mark.walk
def test_choose_scorer_keeps_onnxruntime_when_bits_differ() -> None:
    """Native trees that differ in the last bit of one score are not used."""
    onnx = boosted()

    class OtherBits(Session):
        def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
            scores = super().run(matrix)
            scores[-1:] = np.nextafter(scores[-1:], np.float32(2))
            return scores

    other = OtherBits(runtime_of(onnx), WIDTH, 1)
    assert choose_scorer(bundle_of(onnx), other) is other


LEAF = {"weight": 1.0}
STUMP: list[dict[str, Any]] = [
    {"feature": 0, "threshold": 0.0, "yes": 1, "no": 2},
    {"weight": 1.0},
    {"weight": 2.0},
]


def chain(splits: int) -> list[dict[str, Any]]:
    """Return the deepest tree of splits + 1 leaves."""
    nodes: list[dict[str, Any]] = []
    for split in range(splits):
        index = 2 * split
        nodes += [{"feature": 0, "threshold": -split, "yes": index + 2, "no": index + 1}, LEAF]
    return [*nodes, LEAF]


@pytest.mark.parametrize("splits", [31, 32, 63])
def test_native_trees_score_the_deepest_trees(splits: int) -> None:
    """Trees of 32 and of 64 leaves, the most of a word, are scored."""
    onnx = onnx_of([chain(splits)])
    rows = draw_comparison_rows(GOLDEN, ensemble_of(onnx).thresholds())
    assert same_scores(native_of(onnx), session_of(onnx), rows)


@pytest.mark.parametrize(
    "onnx",
    [
        onnx_of([STUMP], n_targets=0),
        onnx_of([STUMP], n_targets=2**40),
        onnx_of([STUMP], post_transform="LOGISTIC"),
        onnx_of([STUMP], aggregate_function="MIN"),
        onnx_of([STUMP], n_targets=2, post_transform="SOFTMAX"),
        onnx_of([STUMP], nodes_modes=["BRANCH_MEMBER", "LEAF", "LEAF"]),
        onnx_of([STUMP], nodes_values=[math.nan, 0.0, 0.0]),
        onnx_of([STUMP], nodes_featureids=[WIDTH, 0, 0]),
        onnx_of([STUMP], nodes_truenodeids=[0, 0, 0]),
        onnx_of([STUMP], nodes_truenodeids=[9, 0, 0]),
        onnx_of([STUMP], nodes_truenodeids=[-1, 0, 0]),
        onnx_of([STUMP], nodes_values=[0.0]),
        onnx_of([STUMP], target_weights=[1.0]),
        onnx_of([STUMP], target_nodeids=[1, 1]),
        onnx_of([STUMP], target_ids=[0, 1]),
        onnx_of([STUMP], base_values=[1.0, 2.0]),
        onnx_of([[LEAF]], width=0),
        onnx_of([[LEAF]], width=2**60),
        tiny_files()["model.onnx"],
        b"",
        b"\xff" * 40,
    ],
    ids=range(21),
)
def test_native_trees_refuse_another_kind_of_file(onnx: bytes) -> None:
    """The reader raises ValueError, so that ONNX Runtime scores."""
    with pytest.raises(ValueError, match=r"."):
        native_of(onnx)


@examples(80)
@given(st.data())
def test_native_trees_refuse_or_read_a_damaged_file_without_a_panic(data: st.DataObject) -> None:
    """Some bytes are changed or the end is cut off; a file that is read still scores rows."""
    onnx = bytearray(onnx_of([STUMP, chain(5)]))
    for _ in range(data.draw(st.integers(0, 3))):
        onnx[data.draw(st.integers(0, len(onnx) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(onnx[: data.draw(st.integers(0, len(onnx)))])
    try:
        native = native_of(cut if data.draw(st.booleans()) else bytes(onnx))
        assert native.run(GOLDEN).shape == (len(GOLDEN), 1)
    except (ValueError, ScoringError):
        return


def test_native_trees_raise_scoring_error_for_a_matrix_of_another_shape() -> None:
    """The type of error is the one that ONNX Runtime's session raises."""
    native = native_of(onnx_of([STUMP]))
    for matrix in (np.zeros((2, WIDTH + 1), np.float32), np.zeros(WIDTH, np.float32)):
        with pytest.raises(ScoringError, match=r"is scored"):
            native.run(matrix)
    with pytest.raises(ScoringError):
        native.run(np.zeros((2, WIDTH), np.float64))
    assert native.run(np.zeros((0, WIDTH), np.float32)).shape == (0, 1)
    transposed = np.asfortranarray(GOLDEN)
    assert native.run(transposed).tobytes() == native.run(GOLDEN).tobytes()
