"""Trees behind on-demand features are scored natively, with the bits of the whole file."""

import numpy as np
import onnx
import pytest
from onnx import helper

from gateway.models.native_trees import NativeTrees, choose_scorer, load_tree_reader
from gateway.models.on_demand import COLUMNS, OPERATORS, split_on_demand
from registry.bundle import Bundle, seal_files, verify_bundle
from registry.scoring import load_session
from tests.training.export.test_on_demand_training import labels, recipe
from tests.training.population import PopulationStore
from training.drills.bad_versions import nan_version
from training.export import on_demand_graph
from training.train import train_version

pytestmark = pytest.mark.walk  # a model is fitted

NATIVE = pytest.mark.skipif(load_tree_reader() is None, reason="turnout_ingress is not built")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A version with five features on demand in front of boosted trees."""
    trained = train_version(recipe(), PopulationStore(), labels())
    return trained.bundle(author="ada", created_unix_ms=1)


@NATIVE
def test_trees_stay_native_behind_on_demand_features(bundle: Bundle) -> None:
    """Single rows and batches have the bits of ONNX Runtime over the whole file."""
    session = load_session(bundle)
    scorer = choose_scorer(bundle, session)
    assert isinstance(scorer, NativeTrees)
    assert scorer.short_runs
    rows = bundle.golden_inputs
    assert scorer.run(rows).tobytes() == session.run(rows).tobytes()
    for row in rows[:20]:
        one = np.ascontiguousarray(row[np.newaxis])
        assert scorer.run(one).tobytes() == session.run(one).tobytes()


@NATIVE
def test_trees_with_other_thresholds_are_not_used(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thresholds lie in columns that no drawn model input reaches, so columns are compared too."""
    session, read = load_session(bundle), load_tree_reader()
    assert read is not None
    other = onnx.load_model_from_string(bundle.onnx)
    trees = next(node for node in other.graph.node if node.op_type == "TreeEnsembleRegressor")
    values = next(item for item in trees.attribute if item.name == "nodes_values")
    used = [at for at, value in enumerate(values.floats) if value]
    values.floats[used[0]] = np.nextafter(np.float32(values.floats[used[0]]), np.float32(np.inf))
    split = split_on_demand(other.SerializeToString())
    assert split is not None
    monkeypatch.setattr(
        "gateway.models.native_trees.load_tree_reader", lambda: lambda _: read(split.model)
    )
    assert choose_scorer(bundle, session) is session


def test_both_sides_together_are_the_whole(bundle: Bundle) -> None:
    """Each side is a valid file, and the nodes are those of the whole file."""
    split = split_on_demand(bundle.onnx)
    assert split is not None
    front, model = map(onnx.load_model_from_string, (split.front, split.model))
    for part in (front, model):
        onnx.checker.check_model(part, full_check=True)
    assert [value.name for value in front.graph.output] == [COLUMNS]
    assert not model.graph.initializer
    whole = onnx.load_model_from_string(bundle.onnx).graph.node
    kinds = [node.op_type for node in (*front.graph.node, *model.graph.node)]
    assert kinds == [node.op_type for node in whole]


def test_names_and_operators_are_those_that_training_writes() -> None:
    """Gateways do not import training, so both state them."""
    assert COLUMNS == on_demand_graph.COLUMNS
    written = {
        *on_demand_graph.NODES.values(),
        *("Cast", "Concat", "Gather", "Log", "Split", "Transpose"),
    }
    assert written == OPERATORS


def test_files_that_training_does_not_write_are_not_cut(bundle: Bundle) -> None:
    """Such as one with a loop in front, which could make a run long, or one without a front."""
    looped = onnx.load_model_from_string(bundle.onnx)
    looped.graph.node[0].op_type = "Loop"
    assert split_on_demand(looped.SerializeToString()) is None
    unnamed = onnx.load_model_from_string(bundle.onnx)
    del unnamed.graph.value_info[:]
    assert split_on_demand(unnamed.SerializeToString()) is None
    no_end = onnx.load_model_from_string(bundle.onnx)
    del no_end.graph.node[:]
    no_end.graph.node.append(helper.make_node("Abs", ["inputs"], ["scores"]))
    assert split_on_demand(no_end.SerializeToString()) is None
    assert split_on_demand(b"\xff" + COLUMNS.encode()) is None
    assert split_on_demand(b"") is None


@NATIVE
def test_nodes_behind_the_trees_are_scored_by_onnxruntime(bundle: Bundle) -> None:
    """A bad version of a drill reads the model's inputs behind its trees."""
    trained = train_version(recipe(), PopulationStore(), labels())
    bad = nan_version(trained.files, trained.rows, column="amount", share=0.05)
    sealed = seal_files(bad.files, model="churn", author="ada", created_unix_ms=1)
    drilled = verify_bundle(sealed, trusted_key=None)
    session = load_session(drilled)
    assert choose_scorer(drilled, session) is session
    scores = session.run(trained.rows)
    assert 0.0 < np.isnan(scores).mean() < 0.2
    assert drilled.contract == bundle.contract
