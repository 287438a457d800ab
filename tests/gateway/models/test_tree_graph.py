"""Trees between other operators are scored natively, with the bits of the whole file."""

import numpy as np
import onnx
import pytest
from onnx import helper

from gateway.models.native_scorer import NativeScorer, choose_scorer, load_tree_reader
from gateway.models.steps.tree_graph import OPERATORS, NotNativeError, cut_at_trees, file_of
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
    assert isinstance(scorer, NativeScorer)
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
    changed = other.SerializeToString()
    width = other.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value
    misread = read(file_of(changed, cut_at_trees(changed).trees, width), None)
    monkeypatch.setattr("gateway.models.native_scorer.load_tree_reader", lambda: lambda *_: misread)
    assert choose_scorer(bundle, session) is session


def test_parts_together_are_the_whole(bundle: Bundle) -> None:
    """Each part is a valid file, and the nodes are those of the whole file."""
    cut = cut_at_trees(bundle.onnx)
    assert cut.front is not None
    assert (cut.behind, cut.picked) == (None, None)
    parts = [
        onnx.load_model_from_string(file_of(bundle.onnx, part, width))
        for part, width in ((cut.front, None), (cut.trees, 5))
    ]
    for part in parts:
        onnx.checker.check_model(part)
    assert [value.name for value in parts[0].graph.output] == [cut.columns]
    assert cut.columns == on_demand_graph.COLUMNS
    assert not parts[1].graph.initializer
    whole = onnx.load_model_from_string(bundle.onnx).graph.node
    kinds = [node.op_type for part in parts for node in part.graph.node]
    assert kinds == [node.op_type for node in whole]


def test_operators_are_those_that_training_writes() -> None:
    """Gateways do not import training, so both state them."""
    written = {
        *on_demand_graph.NODES.values(),
        *("Cast", "Concat", "Gather", "Log", "Split", "Transpose"),
    }
    assert written <= OPERATORS


def test_files_of_other_kinds_are_not_cut(bundle: Bundle) -> None:
    """Such as one with a loop in front, which could make a run long, or one without trees."""
    looped = onnx.load_model_from_string(bundle.onnx)
    looped.graph.node[0].op_type = "Loop"
    twice = onnx.load_model_from_string(bundle.onnx)
    twice.graph.node.append(next(node for node in twice.graph.node if "Tree" in node.op_type))
    treeless = onnx.load_model_from_string(bundle.onnx)
    del treeless.graph.node[:]
    treeless.graph.node.append(helper.make_node("Abs", ["inputs"], ["scores"]))
    for content, reason in (
        (looped.SerializeToString(), "the operator Loop stands beside the trees"),
        (twice.SerializeToString(), "2 tree operators"),
        (treeless.SerializeToString(), "0 tree operators"),
        (b"", "0 tree operators"),
        (b"\xff", "no ONNX file"),
    ):
        with pytest.raises(NotNativeError, match=reason):
            cut_at_trees(content)


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
