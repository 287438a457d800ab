"""scikit-learn and ONNX say the same on real data, to the bit each time, or somebody is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from features.contract import ModelContract, ViewUse
from features.offline import OfflineStore
from tests.training.conftest import NOW_MS
from tests.training.population import (
    ALL_COLUMNS,
    VIEW,
    PopulationStore,
    profile_labels,
    profile_matrix,
    profile_recipe,
)
from training.errors import ConversionError, GateFailedError
from training.export.edge_rows import edge_rows, threshold_neighbours
from training.export.onnx_model import OnnxModel
from training.export.parity import certify_parity
from training.recipe import Learner

pytestmark = pytest.mark.walk

LEARNERS = {
    "logistic": Learner(kind="logistic", parameters={"max_iter": 500}, scaling="standard"),
    "forest": Learner(kind="forest", parameters={"n_estimators": 40, "max_depth": 8}),
    "boosting": Learner(kind="boosting", parameters={"max_iter": 60}),
    "calibrated": Learner(kind="boosting", parameters={"max_iter": 20}, calibration="sigmoid"),
}


def fitted_and_converted(
    learner: Learner,
    contract: ModelContract,
    rows: NDArray[np.float32],
    positive: NDArray[np.bool_],
) -> tuple[Any, bytes]:
    """The same model twice."""
    from training.export.convert import convert_to_onnx
    from training.fit import fit_recipe

    model = fit_recipe(profile_recipe(learner, contract), rows, positive)
    made = convert_to_onnx(
        model, name="churn", width=contract.width, model_contract=contract.model_contract
    )
    return model, made


@pytest.mark.parametrize("kind", LEARNERS)
def test_every_learner_is_exact_on_real_churn_rows_and_their_edges(
    kind: str, churn_folder: Path
) -> None:
    """All 7,043 customers, and every edge: at most 1e-6 apart where 1e-5 is allowed."""
    from training.fit import probabilities
    from training.recipes import churn

    contract, known = churn.recipe("candidate").contract, churn.labels(now_ms=NOW_MS)
    rows = OfflineStore(churn_folder).training_set(contract, known.spine).values
    model, made = fitted_and_converted(LEARNERS[kind], contract, rows, known.positive)

    tried = np.concatenate([rows, edge_rows(contract, rows, made)])
    found = certify_parity(
        probabilities(model, tried),
        OnnxModel(made).scores(tried)[:, 0],
        held_out_rows=len(rows),
        threshold=0.5,
    )

    assert found.passed
    assert found.difference_max < 1e-6
    assert found.edge_rows > 100


def test_boosting_is_exact_on_nan() -> None:
    """Where a feature's default is None, the model sees NaN and routes it as scikit-learn does."""
    from training.fit import probabilities

    view = replace(VIEW, features=tuple(replace(item, default=None) for item in VIEW.features))
    names = tuple(item.name for item in view.features)
    contract = ModelContract(entities=("subscriber",), views=(ViewUse(view=view, features=names),))
    rows = profile_matrix()
    rows[np.random.default_rng(1).random(rows.shape) < 0.1] = np.nan
    model, made = fitted_and_converted(
        LEARNERS["boosting"], contract, rows, profile_labels().positive
    )

    tried = np.concatenate([rows, edge_rows(contract, rows, made)])

    assert np.isnan(tried[len(rows) :]).any()
    apart = np.abs(probabilities(model, tried) - OnnxModel(made).scores(tried)[:, 0])
    assert apart.max() < 1e-6


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_same_recipe_gives_the_same_bytes(kind: str) -> None:
    """Twice fitted, twice converted."""
    rows, positive = profile_matrix(), profile_labels().positive
    first = fitted_and_converted(LEARNERS[kind], ALL_COLUMNS, rows, positive)[1]
    assert fitted_and_converted(LEARNERS[kind], ALL_COLUMNS, rows, positive)[1] == first


def test_the_graph_is_what_a_version_promises() -> None:
    """One input, one output, the contract within, no label and no zipmap."""
    made = fitted_and_converted(
        LEARNERS["forest"], ALL_COLUMNS, profile_matrix(), profile_labels().positive
    )[1]
    graph = onnx.load_model_from_string(made)
    assert [(item.name, item.type.tensor_type.elem_type) for item in graph.graph.input] == [
        ("inputs", onnx.TensorProto.FLOAT)
    ]
    assert [item.name for item in graph.graph.output] == ["scores"]
    assert {item.key: item.value for item in graph.metadata_props} == {
        "turnout.contract": ALL_COLUMNS.model_contract
    }
    assert sorted((item.domain, item.version) for item in graph.opset_import) == [
        ("", 21),
        ("ai.onnx.ml", 3),
    ]
    scores = OnnxModel(made).scores(profile_matrix()[:7])
    assert scores.shape == (7, 1)
    assert scores.dtype == np.float32


def test_boosting_becomes_a_regressor_and_a_sigmoid() -> None:
    """No label, no second column: a fifth faster, and nothing else changes."""
    made = fitted_and_converted(
        LEARNERS["boosting"], ALL_COLUMNS, profile_matrix(), profile_labels().positive
    )[1]
    nodes = onnx.load_model_from_string(made).graph.node
    assert [node.op_type for node in nodes] == ["TreeEnsembleRegressor", "Sigmoid"]


def test_a_regressor_is_refused() -> None:
    """It has no probabilities to give."""
    from sklearn import linear_model

    from training.export.convert import convert_to_onnx

    regressor: Any = linear_model.LinearRegression
    model = regressor().fit(profile_matrix(), profile_matrix()[:, 0])
    with pytest.raises(ConversionError, match="cannot convert LinearRegression"):
        convert_to_onnx(model, name="churn", width=4, model_contract="00")


def test_a_threshold_rounded_up_is_caught_by_its_neighbours_alone() -> None:
    """One float32 too high sends exactly the rows at the threshold to the other branch: no real
    row may lie there, so the edge rows must.
    """
    from training.fit import probabilities

    rows = profile_matrix()
    model, made = fitted_and_converted(
        LEARNERS["forest"], ALL_COLUMNS, rows, profile_labels().positive
    )
    tampered = onnx.load_model_from_string(made)
    for item in tampered.graph.node[0].attribute:
        if item.name == "nodes_values":
            place = next(index for index, value in enumerate(item.floats) if value > 1)
            item.floats[place] = np.nextafter(np.float32(item.floats[place]), np.float32(np.inf))
    changed = tampered.SerializeToString()

    edges = threshold_neighbours(changed, rows[:4])

    before, after = probabilities(model, edges), OnnxModel(changed).scores(edges)[:, 0]
    assert not certify_parity(before, after, held_out_rows=0, threshold=0.5).passed
    assert certify_parity(
        before, OnnxModel(made).scores(edges)[:, 0], held_out_rows=0, threshold=0.5
    ).passed


def test_a_tampered_weight_fails_the_gate_at_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that gets one leaf wrong by .01 makes no version."""
    from training import train as training
    from training.export import convert as converting

    exact = converting.convert_to_onnx

    def wrong(model: Any, **asked: Any) -> bytes:  # noqa: ANN401
        tampered = onnx.load_model_from_string(exact(model, **asked))
        for item in tampered.graph.node[0].attribute:
            if item.name == "target_weights":
                item.floats[0] += 0.01
        return bytes(tampered.SerializeToString())

    monkeypatch.setattr(converting, "convert", wrong)
    with pytest.raises(GateFailedError, match=r"rows beyond 1e-05"):
        training.train_version(
            profile_recipe(LEARNERS["boosting"]), PopulationStore(), profile_labels()
        )
