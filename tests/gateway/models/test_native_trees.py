"""Native trees and ONNX Runtime give the same bits, or ONNX Runtime is asked."""

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gateway.models.native_trees import (
    Ensemble,
    NativeTrees,
    choose_scorer,
    draw_comparison_rows,
    load_tree_reader,
    same_bits,
)
from registry.bundle import Bundle, Session, seal_files, verify_bundle
from registry.types import ScoringError
from tests.property_examples import examples
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.skipif(load_tree_reader() is None, reason="turnout_ingress is not built")
WIDTH = 3
GOLDEN = np.random.default_rng(5).normal(size=(8, WIDTH)).astype(np.float32)
NUMBERS = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.5, 1.0, 3e38, math.inf, -math.inf])


def onnx_of(
    trees: list[list[dict[str, Any]]], base: float = 0.25, width: int = WIDTH, **said: object
) -> bytes:
    """Return an ONNX file as `convert` writes boosted trees; the nodes of each tree, root first."""
    every = [
        (tree, place, node) for tree, nodes in enumerate(trees) for place, node in enumerate(nodes)
    ]
    leaves = [(tree, place, node) for tree, place, node in every if "weight" in node]
    attributes: dict[str, object] = {
        "n_targets": 1,
        "base_values": [base],
        "nodes_treeids": [tree for tree, _, _ in every],
        "nodes_nodeids": [place for _, place, _ in every],
        "nodes_modes": ["LEAF" if "weight" in node else "BRANCH_LEQ" for _, _, node in every],
        "nodes_featureids": [node.get("feature", 0) for _, _, node in every],
        "nodes_values": [float(node.get("threshold", 0.0)) for _, _, node in every],
        "nodes_truenodeids": [node.get("yes", 0) for _, _, node in every],
        "nodes_falsenodeids": [node.get("no", 0) for _, _, node in every],
        "nodes_missing_value_tracks_true": [int(node.get("missing", 0)) for _, _, node in every],
        "target_treeids": [tree for tree, _, _ in leaves],
        "target_nodeids": [place for _, place, _ in leaves],
        "target_ids": [0] * len(leaves),
        "target_weights": [float(node["weight"]) for _, _, node in leaves],
    } | said
    regressor = helper.make_node(
        "TreeEnsembleRegressor", ["inputs"], ["odds"], domain="ai.onnx.ml", **attributes
    )
    graph = helper.make_graph(
        [regressor, helper.make_node("Sigmoid", ["odds"], ["scores"])],
        "trees",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def session_of(onnx: bytes) -> Session:
    """Return what ONNX Runtime makes of a file, on one thread as registry.bundle.load has it."""
    return Session(runtime_of(onnx), WIDTH, 1)


def runtime_of(onnx: bytes) -> Any:  # noqa: ANN401  onnxruntime exports no type
    """Return a session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options)


def native_of(onnx: bytes) -> NativeTrees:
    """Return what the native library makes of it."""
    return NativeTrees(ensemble_of(onnx))


def ensemble_of(onnx: bytes) -> Ensemble:
    """Return the library's own object."""
    read = load_tree_reader()
    assert read is not None
    return read(onnx)


def bundle_of(onnx: bytes) -> Bundle:
    """Return a version that holds this file."""
    files = {**tiny_files(), "model.onnx": onnx}
    return verify_bundle(
        seal_files(files, model="churn", author="t", created_unix_ms=1), trusted_key=None
    )


@st.composite
def grown(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw one tree: a leaf, of which some are split again and again."""
    nodes: list[dict[str, Any]] = [{"weight": draw(st.floats(-2, 2, width=32))}]
    for _ in range(draw(st.integers(0, 31))):
        leaves = [place for place, node in enumerate(nodes) if "weight" in node]
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
@given(st.lists(grown(), min_size=1, max_size=4), st.floats(-20, 20, width=32))
def test_drawn_trees_score_the_same_bits(trees: list[list[dict[str, Any]]], base: float) -> None:
    """Whatever the trees: ties, -0, infinities, NaN to either side, any number of rows."""
    onnx = onnx_of(trees, base)
    native, session = native_of(onnx), session_of(onnx)
    rows = draw_comparison_rows(GOLDEN, ensemble_of(onnx).thresholds())
    assert same_bits(native, session, rows)


def boosted(leaves: int = 31) -> bytes:
    """Return boosting fitted to rows of which some miss a value, as a version would hold it."""
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
def test_a_fitted_version_is_scored_natively() -> None:
    """What training.export.convert writes for boosting is the kind that is known."""
    onnx = boosted()
    scorer = choose_scorer(bundle_of(onnx), session_of(onnx))
    assert isinstance(scorer, NativeTrees)
    assert scorer.short_runs, "four trees, two microseconds a row"


@pytest.mark.walk
def test_other_bits_leave_it_to_onnxruntime() -> None:
    """A kernel that differs in the last bit of one leaf answers nobody."""
    onnx = boosted()

    class Other(Session):
        def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
            scores = super().run(matrix)
            scores[-1:] = np.nextafter(scores[-1:], np.float32(2))
            return scores

    other = Other(runtime_of(onnx), WIDTH, 1)
    assert choose_scorer(bundle_of(onnx), other) is other


LEAF = {"weight": 1.0}
LINE: list[dict[str, Any]] = [
    {"feature": 0, "threshold": 0.0, "yes": 1, "no": 2},
    {"weight": 1.0},
    {"weight": 2.0},
]


def chain(splits: int) -> list[dict[str, Any]]:
    """Return a tree of splits + 1 leaves, as deep as can be."""
    nodes: list[dict[str, Any]] = []
    for split in range(splits):
        place = 2 * split
        nodes += [{"feature": 0, "threshold": -split, "yes": place + 2, "no": place + 1}, LEAF]
    return [*nodes, LEAF]


def test_thirty_two_leaves_fit() -> None:
    """However they hang."""
    onnx = onnx_of([chain(31)])
    rows = draw_comparison_rows(GOLDEN, ensemble_of(onnx).thresholds())
    assert same_bits(native_of(onnx), session_of(onnx), rows)


@pytest.mark.parametrize(
    "onnx",
    [
        onnx_of([chain(32)]),
        onnx_of([LINE], post_transform="LOGISTIC"),
        onnx_of([LINE], aggregate_function="MIN"),
        onnx_of([LINE], n_targets=2),
        onnx_of([LINE], nodes_modes=["BRANCH_LT", "LEAF", "LEAF"]),
        onnx_of([LINE], nodes_values=[math.nan, 0.0, 0.0]),
        onnx_of([LINE], nodes_featureids=[WIDTH, 0, 0]),
        onnx_of([LINE], nodes_truenodeids=[0, 0, 0]),
        onnx_of([LINE], nodes_truenodeids=[9, 0, 0]),
        onnx_of([LINE], nodes_truenodeids=[-1, 0, 0]),
        onnx_of([LINE], nodes_values=[0.0]),
        onnx_of([LINE], target_weights=[1.0]),
        onnx_of([LINE], target_nodeids=[1, 1]),
        onnx_of([LINE], target_ids=[0, 1]),
        onnx_of([LINE], base_values=[1.0, 2.0]),
        onnx_of([[LEAF]], width=0),
        onnx_of([[LEAF]], width=2**60),
        tiny_files()["model.onnx"],
        b"",
        b"\xff" * 40,
    ],
    ids=range(20),
)
def test_another_kind_of_file_is_not_read(onnx: bytes) -> None:
    """It is onnxruntime's, or nobody's."""
    with pytest.raises(ValueError, match=r"."):
        native_of(onnx)


@examples(80)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_and_harms_nobody(data: st.DataObject) -> None:
    """Some bytes changed, or the end cut off: no panic, and rows still have scores."""
    onnx = bytearray(onnx_of([LINE, chain(5)]))
    for _ in range(data.draw(st.integers(0, 3))):
        onnx[data.draw(st.integers(0, len(onnx) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(onnx[: data.draw(st.integers(0, len(onnx)))])
    try:
        native = native_of(cut if data.draw(st.booleans()) else bytes(onnx))
        assert native.run(GOLDEN).shape == (len(GOLDEN), 1)
    except (ValueError, ScoringError):
        return


def test_a_matrix_of_another_shape_is_a_scoring_error() -> None:
    """As ONNX Runtime's would be."""
    native = native_of(onnx_of([LINE]))
    for matrix in (np.zeros((2, WIDTH + 1), np.float32), np.zeros(WIDTH, np.float32)):
        with pytest.raises(ScoringError, match=r"is scored"):
            native.run(matrix)
    with pytest.raises(ScoringError):
        native.run(np.zeros((2, WIDTH), np.float64))
    assert native.run(np.zeros((0, WIDTH), np.float32)).shape == (0, 1)
    turned = np.asfortranarray(GOLDEN)
    assert native.run(turned).tobytes() == native.run(GOLDEN).tobytes()
