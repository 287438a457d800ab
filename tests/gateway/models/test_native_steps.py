"""Linear models, networks and what stands beside trees are scored natively as by ONNX Runtime."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gateway.isolation.breadcrumbs import BreadcrumbScorer
from gateway.models import native_scorer
from gateway.models.native_scorer import (
    EDGE_VALUES,
    NativeScorer,
    choose_scorer,
    load_tree_reader,
    prove_native,
)
from gateway.models.steps.tree_graph import NotNativeError
from gateway.native_library import load_native_library
from registry.golden import ScoreTolerance
from registry.scoring import Session, allowed_differences, score_differences
from tests.gateway.models.exported_learners import double_learners, exported, learners
from tests.gateway.models.test_native_trees import WIDTH, bundle_of, runtime_of
from tests.property_examples import examples

pytestmark = pytest.mark.skipif(load_tree_reader() is None, reason="turnout_ingress is not built")
Rows = NDArray[np.float32]
GOLDEN: Rows = np.random.default_rng(5).normal(size=(64, WIDTH)).astype(np.float32)
OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
TOLERANCE = ScoreTolerance(absolute=1e-6, relative=1e-6)


def graph_of(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, NDArray[Any]], outputs: int
) -> bytes:
    """Return the file of these nodes, from `inputs` to `scores`."""
    graph = helper.make_graph(
        nodes,
        "steps",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, WIDTH])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, outputs])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=10)
    return bytes(model.SerializeToString())


def prove(file: bytes, outputs: int, size: float = 1.0) -> NativeScorer:
    """Return the native scorer of a file. AssertionError: ONNX Runtime would score a part of it."""
    read = load_tree_reader()
    assert read is not None
    session = Session(runtime_of(file), WIDTH, outputs)
    scorer = prove_native(file, GOLDEN, session, read, size)
    assert isinstance(scorer, NativeScorer), scorer
    assert scorer.native_model is not None
    return scorer


def compare(file: bytes, outputs: int, *, exact: bool = False, size: float = 1.0) -> None:
    """Check the native scores of a file, in batches of 1 to 4,096 rows, with portable vectors too.

    exact  all bits have to be those of ONNX Runtime.
    size   as prove_native.
    """
    scorer, session = prove(file, outputs, size), Session(runtime_of(file), WIDTH, outputs)
    model: Any = scorer.native_model
    assert model.exact == exact
    # Usual rows, with an edge value in every third.
    random = np.random.default_rng(6)
    rows = random.normal(size=(4_096, WIDTH)).astype(np.float32)
    edges = np.array([*EDGE_VALUES, 1e-39, 1e30], np.float32)
    rows[::3, 1] = random.choice(edges, len(rows[::3]))
    whole = scorer.run(rows)
    for count in (1, 7, 64, 4_096):
        part = rows[:count]
        found, expected = scorer.run(part), session.run(part)
        if exact:
            same = found.view(np.int32) == expected.view(np.int32)
            assert (same | (np.isnan(found) & np.isnan(expected))).all()
        tolerance = ScoreTolerance(TOLERANCE.absolute * size, TOLERANCE.relative)
        allowed = allowed_differences(tolerance, expected)
        assert (score_differences(found, expected) <= allowed).all()
        # A row has the same bits in every batch, and with every kind of vectors.
        assert found.tobytes() == whole[:count].tobytes()
        assert model.run_portable(part) == found.tobytes()


EXACT = {
    "imputer, scaler, boosting",
    "scaler, forest",
    "bagged trees",
    "bagged trees, values",
    "isotonic calibration",
    "bins, boosting",
    "products of two, boosting",
}


@pytest.mark.parametrize("name", learners())
def test_what_skl2onnx_writes_is_scored_natively(name: str) -> None:
    """Trees behind a scaler have the bits of ONNX Runtime, and all others nearly."""
    make, classes, missing = learners()[name]
    file, outputs = exported(make(), missing=missing, classes=classes)
    compare(file, outputs, exact=name in EXACT, size=1.0 if classes else 4.0)


@pytest.mark.parametrize("name", double_learners())
def test_learners_of_float64_are_scored_natively(name: str) -> None:
    """Trees of float64 have the bits of ONNX Runtime, and so does a scaler in front of them."""
    make, classes = double_learners()[name]
    file, outputs = exported(make(), classes=classes, double=True)
    compare(file, outputs, exact=name != "logistic")


def layers(widths: Sequence[int], activation: str, last: str, seed: int = 1) -> bytes:
    """Return a network as PyTorch exports it: Gemm with transposed weights, and activations."""
    random = np.random.default_rng(seed)
    nodes, constants, name, inputs = list[onnx.NodeProto](), {}, "inputs", WIDTH
    for at, outputs in enumerate(widths):
        constants[f"w{at}"] = random.normal(size=(outputs, inputs)).astype(np.float32) / inputs**0.5
        constants[f"b{at}"] = random.normal(size=outputs).astype(np.float32)
        gemm = [name, f"w{at}", f"b{at}"]
        nodes.append(helper.make_node("Gemm", gemm, [f"sum{at}"], transB=1))
        kind = activation if at < len(widths) - 1 else last
        nodes.append(helper.make_node(kind, [f"sum{at}"], [f"layer{at}"]))
        name, inputs = f"layer{at}", outputs
    nodes[-1].output[0] = "scores"
    return graph_of(nodes, constants, widths[-1])


@pytest.mark.walk
@examples(60)
@given(
    st.lists(st.sampled_from([1, 2, 3, 8, 16, 17, 33, 64, 65, 280]), min_size=1, max_size=4),
    st.sampled_from(["Relu", "Tanh", "Sigmoid", "LeakyRelu"]),
    st.sampled_from(["Sigmoid", "Softmax", "Identity"]),
    st.integers(0, 1_000),
)
def test_random_networks_score_as_by_onnxruntime(
    widths: list[int], activation: str, last: str, seed: int
) -> None:
    """Layers of 280 have sums of several parts. Four of them are just small enough."""
    compare(layers(widths, activation, last, seed), widths[-1], size=2.0)


def test_on_demand_features_are_computed_natively() -> None:
    """Comparisons, choices, splits and arithmetic in float64, with one rounding at the end."""
    nodes = [
        helper.make_node("Cast", ["inputs"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node(
            "Split", ["wide"], [f"c{at}" for at in range(WIDTH)], axis=1, num_outputs=WIDTH
        ),
        helper.make_node("IsNaN", ["c0"], ["missing"]),
        helper.make_node("Greater", ["c1", "c2"], ["above"]),
        helper.make_node("Not", ["missing"], ["known"]),
        helper.make_node("And", ["known", "above"], ["both"]),
        helper.make_node("Div", ["c1", "c2"], ["ratio"]),
        helper.make_node("Max", ["ratio", "low"], ["bounded"]),
        helper.make_node("Floor", ["bounded"], ["floor"]),
        helper.make_node("Where", ["both", "floor", "low"], ["chosen"]),
        helper.make_node("Concat", ["chosen", "ratio"], ["joined"], axis=1),
        helper.make_node("Cast", ["joined"], ["scores"], to=TensorProto.FLOAT),
    ]
    compare(graph_of(nodes, {"low": np.array([[-1.5]])}, 2), 2, exact=True)


def linear(weights: NDArray[Any], **changes: object) -> bytes:
    """Return a graph of one product, `sum` = inputs x weights, and what makes scores of it."""
    nodes = [
        helper.make_node("MatMul", ["inputs", "weights"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["scores"]),
    ]
    for name, value in changes.items():
        setattr(nodes[1], name, value)
    return graph_of(nodes, {"weights": weights}, weights.shape[-1])


def refusal(file: bytes) -> str:
    """Return why a file is not scored natively."""
    read = load_tree_reader()
    assert read is not None
    session = Session(runtime_of(layers([1], "Relu", "Sigmoid")), WIDTH, 1)
    with pytest.raises((NotNativeError, ValueError)) as caught:
        prove_native(file, GOLDEN, session, read)
    reason = str(caught.value)
    assert 0 < len(reason) < 200
    return reason


def test_malformed_and_unknown_graphs_are_refused_with_a_reason() -> None:
    """ONNX Runtime would refuse some of them itself; the reader has to do without it."""
    # Damage one file in several ways.
    good = np.ones((WIDTH, 1), np.float32)
    cut = onnx.load_model_from_string(linear(good))
    cut.graph.initializer[0].raw_data = cut.graph.initializer[0].raw_data[:-1]
    without = onnx.load_model_from_string(linear(good))
    del without.graph.initializer[:]
    outside = onnx.load_model_from_string(linear(good))
    outside.graph.initializer[0].ClearField("raw_data")
    outside.graph.initializer[0].data_location = TensorProto.EXTERNAL
    huge = onnx.load_model_from_string(linear(good))
    huge.graph.initializer[0].dims[:] = [2**62, 2**62]
    bare = onnx.load_model_from_string(linear(good))
    del bare.graph.node[1].input[:]
    late = onnx.load_model_from_string(linear(good))
    late.graph.node.insert(0, late.graph.node.pop(1))
    # Each has a reason of its own.
    for model, reason in (
        (cut, "other numbers than its shape says"),
        (without, "no operator computes the tensor 'weights'"),
        (outside, "other numbers than its shape says"),
        (huge, "262144 at most"),
        (bare, "lacks an input"),
        (late, "is no constant"),
    ):
        assert reason in refusal(model.SerializeToString())
    assert f"of {WIDTH} columns with (9, 1)" in refusal(linear(np.ones((9, 1), np.float32)))
    assert "262144 at most" in refusal(linear(np.ones((WIDTH, 2**17), np.float32)))
    assert "65536 at most" in refusal(linear(np.ones((WIDTH, 2**15), np.float32)))
    assert "the operator Loop" in refusal(linear(good, op_type="Loop"))
    assert "of type 10 with" in refusal(linear(good.astype(np.float16)))
    deep = [helper.make_node("Neg", [f"n{at}"], [f"n{at + 1}"]) for at in range(9_000)]
    deep[0].input[0], deep[-1].output[0] = "inputs", "scores"
    assert "more than 8192 steps" in refusal(graph_of(deep, {}, WIDTH))


def test_attributes_that_no_step_knows_are_refused() -> None:
    """A table has a key twice; an earlier version of an operator has its sizes as an attribute."""
    scores = helper.make_node("Identity", ["first"], ["scores"])
    keys, values = (numpy_helper.from_array(np.ones(2, np.float32), name) for name in "kv")
    table = helper.make_node(
        "LabelEncoder",
        ["inputs"],
        ["first"],
        domain="ai.onnx.ml",
        keys_tensor=keys,
        values_tensor=values,
    )
    assert "look_up: it is not known" in refusal(graph_of([table, scores], {}, WIDTH))
    sizes = [WIDTH - 1, 1]
    split = helper.make_node("Split", ["inputs"], ["first", "rest"], axis=1, split=sizes)
    assert "sizes as an attribute" in refusal(graph_of([split, scores], {}, WIDTH - 1))


def test_onnxruntime_computes_rounded_numbers_that_trees_read() -> None:
    """A last bit of a sum of products may lead to another leaf."""
    from tests.gateway.models.test_tree_kinds import operator, stump

    trees = onnx.load_model_from_string(operator([stump("BRANCH_LEQ", 0.5)], targets=1))
    node = trees.graph.node[0]
    node.input[0] = "products"
    product = helper.make_node("MatMul", ["inputs", "weights"], ["products"])
    weights = np.eye(WIDTH, dtype=np.float32)
    file, read = graph_of([product, node], {"weights": weights}, 1), load_tree_reader()
    assert read is not None
    partly = prove_native(file, GOLDEN, Session(runtime_of(file), WIDTH, 1), read)
    assert isinstance(partly, NativeScorer)
    assert partly.native_model is None


@examples(60)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_without_a_panic(data: st.DataObject) -> None:
    """Whatever is read has scores for a row."""
    file = bytearray(layers([5, 3], "Relu", "Softmax"))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    read = load_tree_reader()
    assert read is not None
    session = Session(runtime_of(layers([5, 3], "Relu", "Softmax")), WIDTH, 3)
    try:
        scorer = prove_native(bytes(file), GOLDEN, session, read)
    except (NotNativeError, ValueError):
        return
    assert isinstance(scorer, str) or scorer.run(GOLDEN).shape == (len(GOLDEN), 3)


def step(kind: str, sources: Sequence[int], integers: Sequence[int] = (), *numbers: float) -> Any:  # noqa: ANN401
    """Return a step as the native library takes it."""
    return kind, list(sources), list(integers), list(numbers), None


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [step("neg", [1])],
        [step("neg", [])],
        [step("unheard", [0])],
        [step("dense", [0], [1, 256, 0], *[1.0] * WIDTH)],
        [step("dense", [0], [2**63, 256, 0], 1.0)],
        [step("dense", [0], [0, 256, 0])],
        [step("dense", [0], [1, 0, 0], *[1.0] * (WIDTH + 1))],
        [step("columns", [0], [WIDTH])],
        [step("columns", [0], [])],
        [step("cast", [0], [9])],
        [step("cast", [0], [1])],
        [step("constant", [], [0], 1.0)],
        [step("constant", [], [0], *[1.0] * (WIDTH - 1)), step("add", [0, 1])],
        [step("constant", [], [1], 1.0), step("add", [0, 1])],
        [step("where", [0, 0, 0])],
        [step("impute", [0], [], 1.0)],
        [step("trees", [0])],
        [step("one_hot", [0], [], 1.0)],
        [step("columns", [0], [0] * 40_000), step("columns", [0], [0] * 40_000)],
        [step("constant", [], [0], *[0.0] * (2**18 + 1)), step("neg", [0])],
    ],
)
def test_steps_that_do_not_fit_are_refused(steps: list[Any]) -> None:
    """With a ValueError that names the step, and never with a panic."""
    library: Any = load_native_library()
    with pytest.raises(ValueError, match=r"step|constants"):
        library.NativeModel(WIDTH, steps)


def test_steps_with_other_weights_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison sees a weight that is off by a thousandth."""
    file = linear(np.full((WIDTH, 1), 0.25, np.float32))
    bundle, session = bundle_of(file), Session(runtime_of(file), WIDTH, 1)
    assert isinstance(choose_scorer(bundle, session), NativeScorer)
    right = native_scorer._native_model

    def wrong(width: int, steps: Sequence[Any]) -> Any:  # noqa: ANN401
        steps[0][3][0] *= 1.001
        return right(width, steps)

    monkeypatch.setattr(native_scorer, "_native_model", wrong)
    assert choose_scorer(bundle, session) is session


def test_a_marked_scorer_has_the_native_model() -> None:
    """Under a supervisor each scorer is wrapped, and a pass over many models needs the model."""
    scorer = prove(linear(np.ones((WIDTH, 1), np.float32)), 1)
    marked = BreadcrumbScorer(scorer, memoryview(bytearray(64)), (object(), 0, 34))
    assert marked.native_model is scorer.native_model
