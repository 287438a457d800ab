"""Tests that every learner scores as its graph, for every task that it learns, and reproducibly."""

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.training.learners.fits import BOOSTED, SMALL, checked_rows, fitted, small_targets
from tests.training.learners.own_functions import fit_without_truth
from tests.training.population import profile_recipe
from training.adoption.native_form import why_not_native
from training.errors import ConversionError, RecipeError
from training.export.onnx_model import OnnxModel
from training.learner import Learner
from training.learners.fitted import Targets, TargetTask

pytestmark = pytest.mark.walk


@pytest.mark.parametrize(("name", "task"), SMALL)
def test_learner_scores_as_its_graph_and_gives_the_same_bytes_again(
    name: str, task: TargetTask
) -> None:
    """On rows it has not seen, at every threshold, and at a row of each leaf."""
    model, graph = fitted(SMALL[name, task], task)
    rows = checked_rows(graph)
    scores = OnnxModel(graph).scores(rows)
    expected = model.outputs(rows)
    assert scores.shape == expected.shape == (len(rows), small_targets(task).outputs)
    sizes = np.maximum(1.0, np.abs(expected))
    assert (np.abs(expected - scores) / sizes).max() < 2e-6
    if task == "multiclass":
        assert np.abs(scores.sum(axis=1) - 1).max() < 1e-5
    assert fitted(SMALL[name, task], task)[1] == graph
    # The graph is one of a version: an input, an output, the contract's hash, a name of ours.
    parsed = onnx.load_model_from_string(graph)
    assert [item.name for item in parsed.graph.input] == ["inputs"]
    assert [item.name for item in parsed.graph.output] == ["scores"]
    assert [(item.key, item.value) for item in parsed.metadata_props] == [
        ("turnout.contract", "c0")
    ]
    assert parsed.graph.name == "own"


@pytest.mark.parametrize("name", BOOSTED)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_boosters_take_missing_values_as_their_graphs(name: str, task: TargetTask) -> None:
    """A tenth of the values is missing, in the fit and after it."""
    model, graph = fitted(BOOSTED[name], task, missing=True)
    rows = checked_rows(graph, missing=True)
    expected = model.outputs(rows)
    sizes = np.maximum(1.0, np.abs(expected))
    assert (np.abs(expected - OnnxModel(graph).scores(rows)) / sizes).max() < 2e-6


@pytest.mark.parametrize("name", BOOSTED)
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_boosters_are_one_sum_of_trees_that_gateways_score_natively(
    name: str, task: TargetTask
) -> None:
    """A sum of trees, and a Sigmoid for a probability, are the shortest graph."""
    graph = fitted(BOOSTED[name], task)[1]
    nodes = [node.op_type for node in onnx.load_model_from_string(graph).graph.node]
    assert nodes == ["TreeEnsembleRegressor", "Sigmoid"][: 2 if task == "binary" else 1]
    assert why_not_native(graph) == ""


def test_deep_trees_several_outputs_and_networks_are_native() -> None:
    """No sentence says why not."""
    deep = Learner(
        kind="lightgbm",
        parameters={"n_estimators": 2, "num_leaves": 90, "min_child_samples": 2},
    )
    assert why_not_native(fitted(deep, "binary")[1]) == ""
    assert why_not_native(fitted(BOOSTED["lightgbm"], "multiclass")[1]) == ""
    assert why_not_native(fitted(SMALL["network", "binary"], "binary")[1]) == ""


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost", "network", "function"])
def test_left_out_negatives_are_corrected_in_graph_and_truth(name: str) -> None:
    """Trees get a shift of their sum, others nodes behind them."""
    learner = SMALL[name, "binary"]
    model, graph = fitted(learner, "binary", negatives_share=0.2)
    rows = checked_rows(graph)
    plain = fitted(learner, "binary")[0].outputs(rows)
    corrected = plain / (plain + (1 - plain) / 0.2)
    assert np.abs(model.outputs(rows) - corrected).max() < 1e-12
    assert np.abs(model.outputs(rows) - OnnxModel(graph).scores(rows)).max() < 2e-6
    if name in BOOSTED:
        assert why_not_native(graph) == ""


def test_every_leaf_has_a_row_that_leads_to_it() -> None:
    """Each tree alone gives the value of each of its leaves on some row."""
    graph = fitted(BOOSTED["lightgbm"], "regression")[1]
    rows = checked_rows(graph)
    trees = onnx.load_model_from_string(graph)
    values = {item.name: helper.get_attribute_value(item) for item in trees.graph.node[0].attribute}
    leaves = 0
    for tree in sorted(set(values["nodes_treeids"])):
        alone = onnx.ModelProto()
        alone.CopyFrom(trees)
        for item in alone.graph.node[0].attribute:
            # Every leaf of this tree has a number of its own, and all others weigh nothing.
            if item.name == "target_weights":
                item.floats[:] = [
                    float(node + 1) if at == tree else 0.0
                    for at, node in zip(
                        values["target_treeids"], values["target_nodeids"], strict=True
                    )
                ]
            if item.name == "base_values":
                item.floats[:] = [0.0]
        seen = set(OnnxModel(alone.SerializeToString()).scores(rows)[:, 0].tolist())
        wanted = {
            float(node + 1)
            for at, node in zip(values["target_treeids"], values["target_nodeids"], strict=True)
            if at == tree
        }
        assert wanted == seen
        leaves += len(wanted)
    assert leaves > 60


@pytest.mark.parametrize(
    ("kind", "parameters", "reason"),
    [
        ("lightgbm", {"num_leafs": 7}, "LightGBM says .*num_leafs"),
        ("xgboost", {"max_deph": 7}, 'XGBoost says .*"max_deph"'),
        ("catboost", {"deph": 7}, "CatBoost does not fit|unexpected keyword argument 'deph'"),
        ("lightgbm", {"objective": "nothing"}, "LightGBM does not fit the learner 'lightgbm'"),
        ("forest", {"n_trees": 7}, "scikit-learn does not fit the learner 'forest'"),
    ],
)
def test_parameters_that_a_library_does_not_know_are_refused(
    kind: str, parameters: dict[str, object], reason: str
) -> None:
    """LightGBM and XGBoost would only warn, and train without them."""
    with pytest.raises(RecipeError, match=reason):
        fitted(Learner(kind=kind, parameters=parameters), "binary")  # type: ignore[arg-type]


def test_estimators_of_another_task_are_refused() -> None:
    """A regressor has no probabilities."""
    with pytest.raises(RecipeError, match="Pipeline does not learn the task 'binary'"):
        fitted(SMALL["ridge", "regression"], "binary")


def test_functions_that_give_no_graph_are_refused() -> None:
    """The message names the function and what it should return."""
    learner = Learner.function(fit_without_truth)
    model, graph = fitted(learner, "binary")
    rows = checked_rows(graph)
    assert model.truth_by == ""
    assert (model.outputs(rows) == OnnxModel(graph).scores(rows)).all()
    with pytest.raises(
        ConversionError, match="one output of 3 is needed for the task 'multiclass'"
    ):
        fitted(learner, "multiclass")
    with pytest.raises(RecipeError, match="is not at hand; train by `turnout train`"):
        fitted(Learner(**learner.definition()), "binary")


def test_lightgbm_s_zero_is_wider_than_zero() -> None:
    """LightGBM scores 1e-35 of either sign as 0, and has its thresholds exactly there."""
    from training.learners.fit import fit_recipe

    random = np.random.default_rng(2)
    rows = random.normal(size=(900, 4)).astype(np.float32)
    rows[::2, 0] = 0.0
    values = np.where(rows[:, 0] < 0, -50.0, np.where(rows[:, 0] > 0, 50.0, 0.0))
    learner = Learner(kind="lightgbm", parameters={"n_estimators": 4})
    model = fit_recipe(profile_recipe(learner), rows, Targets("regression", values))
    graph = model.to_onnx(name="own", width=4, model_contract="c0")
    tiny = np.repeat(rows[:1], 5, axis=0)
    tiny[:, 0] = np.float32([-1e-35, -1.1e-35, 0.0, 1e-35, 1.1e-35])
    truth, found = model.outputs(tiny), OnnxModel(graph).scores(tiny)
    assert np.abs(truth - found).max() < 1e-4
    assert truth[0] == truth[2] == truth[3]
    assert truth[1] < truth[2] < truth[4]
