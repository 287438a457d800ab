"""What stands in front of and behind a sum is followed, or refused by its name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from features.contract import ModelContract, RequestInput
from registry.explanation.errors import NotExplainedError
from registry.explanation.model_form import find_form
from registry.explanation.onnx_nodes import read_nodes
from registry.explanation.source_columns import SourceTracer
from registry.explanation.tree_paths import read_trees
from tests.registry.explanation.versions import explainer_of, total, version_files
from training.export.on_demand_graph import OnDemandFront, on_demand_front
from training.on_demand import OnDemand, parse_on_demand

NAMES = ("amount", "limit", "age", "now:day", "now:second")
ML = "ai.onnx.ml"


def contract_of(*names: str, request_time: bool = False) -> ModelContract:
    """A contract of request inputs."""
    return ModelContract(
        entities=(),
        inputs=tuple(RequestInput(name=name, default=0.0) for name in names),
        request_time=request_time,
    )


def graph_of(
    nodes: Sequence[Any], constants: dict[str, Any], contract: ModelContract, outputs: int = 1
) -> bytes:
    """A model of these nodes from `inputs` to `scores`."""
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, contract.width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, outputs])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(ML, 3)],
        ir_version=10,
    )
    helper.set_model_props(model, {"turnout.contract": contract.model_contract})
    return bytes(model.SerializeToString())


def rows_of(width: int, count: int = 200, seed: int = 2) -> Any:  # noqa: ANN401  float32 rows
    """Small whole numbers, (count, width)."""
    return np.random.default_rng(seed).integers(0, 9, (count, width)).astype(np.float32)


def test_on_demand_features_are_folded_to_their_inputs() -> None:
    """A column of one input is the input's; a column of two is a line of both; time is nobody's."""
    # A front of three features, and a linear model behind it.
    names = [*NAMES]
    features = [
        OnDemand(name="share", expression="amount / limit", default=0.0),
        OnDemand(name="log_age", expression="log1p(age)", default=0.0),
        OnDemand(name="age_at_night", expression="where(now > 5, age, 0)", default=0.0),
    ]
    terms = [(feature, parse_on_demand(feature, names[:3])) for feature in features]
    front = on_demand_front(names, ["amount", "age"], terms)
    assert isinstance(front, OnDemandFront)
    contract = contract_of(*names[:3], request_time=True)
    inner = contract_of("a", "b", "c", "d", "e")
    weights = np.array([[0.1], [0.2], [1.5], [-0.7], [0.05]], dtype=np.float32)
    learner = graph_of(
        [
            helper.make_node("MatMul", ["inputs", "w"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["scores"]),
        ],
        {"w": weights},
        inner,
    )
    whole = onnx.load_model_from_string(front.before(learner))
    del whole.metadata_props[:]
    helper.set_model_props(whole, {"turnout.contract": contract.model_contract})
    # The lines are the inputs, alone or together.
    rows = rows_of(5)
    card = {"learner_columns": ["amount", "age", "share", "log_age", "age_at_night"]}
    explainer = explainer_of(version_files(whole.SerializeToString(), rows, contract, card=card))
    explained = explainer.explain(rows[150])
    assert {item.name: item.inputs for item in explained.contributions} == {
        "amount": ("amount",),
        "age": ("age",),
        "share": ("amount", "limit"),
    }
    assert explained.base + total(explained.contributions) == pytest.approx(explained.margin)


def test_scaler_and_encoder_in_front_keep_columns_apart() -> None:
    """A one-hot encoder makes many columns of one input, and they are folded back to it."""
    # A one-hot encoder and a scaler, then a sum.
    contract = contract_of("plan", "charges")
    graph = graph_of(
        [
            helper.make_node("Gather", ["inputs", "first"], ["plan"], axis=1),
            helper.make_node("Cast", ["plan"], ["whole"], to=TensorProto.INT64),
            helper.make_node(
                "OneHotEncoder", ["whole"], ["hot3"], domain=ML, cats_int64s=[0, 1, 2], zeros=1
            ),
            helper.make_node("Reshape", ["hot3", "flat"], ["hot"]),
            helper.make_node("Gather", ["inputs", "second"], ["charges"], axis=1),
            helper.make_node(
                "Scaler", ["charges"], ["scaled"], domain=ML, offset=[4.0], scale=[0.5]
            ),
            helper.make_node("Concat", ["scaled", "hot"], ["columns"], axis=1),
            helper.make_node(
                "LinearRegressor",
                ["columns"],
                ["scores"],
                domain=ML,
                coefficients=[2.0, 1.0, -1.0, 3.0],
                intercepts=[0.5],
            ),
        ],
        {
            "first": np.array([0]),
            "second": np.array([1]),
            "flat": np.array([-1, 3]),
        },
        contract,
    )
    # Each word has its own weight, and the scaled number its slope.
    rows = rows_of(2)
    explainer = explainer_of(version_files(graph, rows, contract, task="regression"))
    row = np.array([2.0, 8.0], dtype=np.float32)
    found = {item.name: item.contribution for item in explainer.explain(row).contributions}
    background = explainer.background.rows
    effect = {0: 1.0, 1: -1.0, 2: 3.0}
    plans = [effect.get(int(plan), 0.0) for plan in background[:, 0]]
    assert found["plan"] == pytest.approx(3.0 - np.mean(plans))
    assert found["charges"] == pytest.approx(2 * 0.5 * (8.0 - background[:, 1].mean()), abs=1e-5)


def test_calibration_behind_one_sum_is_part_of_the_margin() -> None:
    """A sigmoid of a times the sum plus b is one monotone function of the sum."""
    contract = contract_of("x", "y")
    graph = graph_of(
        [
            helper.make_node("MatMul", ["inputs", "w"], ["sum"]),
            helper.make_node("Mul", ["sum", "a"], ["slope"]),
            helper.make_node("Sub", ["b", "slope"], ["margin"]),
            helper.make_node("Sigmoid", ["margin"], ["scores"]),
        ],
        {
            "w": np.array([[1.0], [2.0]], np.float32),
            "a": np.float32(0.25),
            "b": np.float32(1.0),
        },
        contract,
    )
    rows = rows_of(2)
    explainer = explainer_of(version_files(graph, rows, contract))
    explained = explainer.explain(rows[9])
    expected = 1.0 - 0.25 * (rows[9, 0] + 2 * rows[9, 1])
    assert explained.margin == pytest.approx(expected, abs=1e-6)


NORMALISED = [
    helper.make_node("Abs", ["probabilities"], ["sizes"]),
    helper.make_node("ReduceSum", ["sizes", "axis"], ["total"], keepdims=1),
    helper.make_node("Div", ["probabilities", "total"], ["normal"]),
    helper.make_node("Gather", ["normal", "second"], ["scores"], axis=1),
]
"""What skl2onnx writes behind the classifier of a pipeline."""


def classifier_of(post_transform: str, coefficients: list[float], intercepts: list[float]) -> bytes:
    """Return a linear classifier of two inputs whose probabilities are divided by their sum."""
    classes = len(intercepts)
    classifier = helper.make_node(
        "LinearClassifier",
        ["inputs"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        classlabels_ints=list(range(max(classes, 2))),
        coefficients=coefficients,
        intercepts=intercepts,
        post_transform=post_transform,
    )
    constants = {"axis": np.array([1], np.int64), "second": np.array([1], np.int64)}
    return graph_of([classifier, *NORMALISED], constants, contract_of("x", "y"))


def test_probabilities_divided_by_their_sum_are_explained_where_it_is_one() -> None:
    """A logistic model of two classes; the sum of both probabilities is 1."""
    graph = classifier_of("LOGISTIC", [-1.0, -2.0, 1.0, 2.0], [-0.5, 0.5])
    rows = rows_of(2)
    explainer = explainer_of(version_files(graph, rows, contract_of("x", "y")))
    explained = explainer.explain(rows[9])
    assert explainer.space == "log-odds"
    assert explained.margin == pytest.approx(rows[9, 0] + 2 * rows[9, 1] + 0.5, abs=1e-5)


def test_probabilities_divided_by_another_sum_are_refused() -> None:
    """Three models, one for each class: the score is a function of three sums."""
    weights = [-1.0, -2.0, 1.0, 2.0, 3.0, 1.0]
    graph = classifier_of("LOGISTIC", weights, [-0.5, 0.5, 0.1])
    with pytest.raises(NotExplainedError, match="normalise after logistic"):
        explainer_of(version_files(graph, rows_of(2), contract_of("x", "y")))


MIXED = {
    "network": (
        [
            helper.make_node("MatMul", ["inputs", "w"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "v"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["scores"]),
        ],
        "MatMul 'hidden' stands in front of the sum and mixes columns",
    ),
    "mean of two models": (
        [
            helper.make_node("MatMul", ["inputs", "w"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "v"], ["one"]),
            helper.make_node("MatMul", ["hidden", "v"], ["two"]),
            helper.make_node("Sigmoid", ["one"], ["p"]),
            helper.make_node("Sigmoid", ["two"], ["q"]),
            helper.make_node("Add", ["p", "q"], ["scores"]),
        ],
        "Add 'scores' stands behind the sum",
    ),
    "two transforms": (
        [
            helper.make_node("MatMul", ["inputs", "u"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["p"]),
            helper.make_node("Sigmoid", ["p"], ["scores"]),
        ],
        "transformed twice behind the sum",
    ),
}


@pytest.mark.parametrize("what", MIXED)
def test_model_that_is_no_sum_is_refused_by_its_operator(what: str) -> None:
    """The message names the operator in the way, and what can be explained."""
    nodes, message = MIXED[what]
    contract = contract_of("x", "y")
    constants = {
        "w": np.eye(2, dtype=np.float32),
        "v": np.ones((2, 1), np.float32),
        "u": np.ones((2, 1), np.float32),
    }
    files = version_files(graph_of(nodes, constants, contract), rows_of(2), contract)
    with pytest.raises(NotExplainedError, match=message):
        explainer_of(files)


def test_file_that_is_no_graph_is_refused() -> None:
    """Neither random bytes nor an empty graph raise anything but a sentence."""
    with pytest.raises(NotExplainedError, match="no ONNX file"):
        find_form(b"\xff" * 40, 1)
    with pytest.raises(NotExplainedError, match="no node that makes 'scores'"):
        find_form(b"", 1)


def tree_node(**changed: Any) -> bytes:  # noqa: ANN401  attributes of ONNX
    """A regressor of one tree with two leaves."""
    attributes = {
        "n_targets": 1,
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [4.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        **changed,
    }
    node = helper.make_node(
        "TreeEnsembleRegressor", ["inputs"], ["scores"], domain=ML, **attributes
    )
    return graph_of([node], {}, contract_of("x", "y"))


def test_tree_is_read_as_its_paths() -> None:
    """Two leaves, one comparison, and the weight of each."""
    paths = read_trees(read_nodes(tree_node()).makers["scores"]).paths
    assert (paths.threshold.tolist(), paths.side.tolist()) == ([4.0], [True, False])
    assert paths.weight.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "changed",
    [
        {"nodes_values": [4.0, 0.0]},
        {"nodes_truenodeids": [9, 0, 0]},
        {"nodes_falsenodeids": [1, 0, 0]},
        {"target_nodeids": [1, 7]},
        {"target_ids": [0, 5]},
        {"nodes_modes": ["BRANCH_ODD", "LEAF", "LEAF"]},
    ],
)
def test_tree_that_contradicts_itself_is_refused(changed: dict[str, Any]) -> None:
    """A list that is too short, a child that is not there, and a child of two parents."""
    with pytest.raises(NotExplainedError, match="contradict themselves"):
        find_form(tree_node(**changed), 1)


def test_tree_that_goes_round_in_a_circle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaf whose ancestors have no root ends at the bound of comparisons."""
    monkeypatch.setattr("registry.explanation.tree_paths.CONDITIONS_MAX", 1_000)
    circle = tree_node(
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 2, 0],
    )
    with pytest.raises(NotExplainedError):
        find_form(circle, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"aggregate_function": "MAX"}, "joined by MAX"),
        ({"post_transform": "PROBIT"}, "transformed by PROBIT"),
    ],
)
def test_trees_that_are_no_sum_are_refused(changed: dict[str, Any], message: str) -> None:
    """Contributions add up for sums only."""
    with pytest.raises(NotExplainedError, match=message):
        find_form(tree_node(**changed), 1)


def test_columns_are_followed_through_a_split() -> None:
    """Each part of a split keeps its own inputs."""
    contract = contract_of("x", "y", "z")
    graph = graph_of(
        [
            helper.make_node("Split", ["inputs", "sizes"], ["left", "right"], axis=1),
            helper.make_node("Concat", ["right", "left"], ["turned"], axis=1),
            helper.make_node("Neg", ["turned"], ["scores"]),
        ],
        {"sizes": np.array([2, 1])},
        contract,
        outputs=3,
    )
    sources = SourceTracer(read_nodes(graph), 3).sources("scores")
    assert [sorted(item) for item in sources] == [[2], [0], [1]]
