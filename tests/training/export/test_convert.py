"""Tests that scikit-learn and ONNX score alike on real data, and that differences are found."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from features.contract import ModelContract, ViewUse
from features.offline import OfflineStore
from tests.telco import recipe_of
from tests.training.population import (
    ALL_COLUMNS,
    VIEW,
    PopulationStore,
    profile_labels,
    profile_matrix,
    profile_recipe,
)
from training.adoption.graph.tree_rows import threshold_neighbours
from training.errors import ConversionError, GateFailedError
from training.export.edge_rows import base_rows, contract_edges
from training.export.onnx_model import OnnxModel
from training.export.parity import certify_parity
from training.labelled_rows import LabelledRows
from training.learner import Learner
from training.learners.fitted import FittedLearner, Targets

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
) -> tuple[FittedLearner, bytes]:
    """The fitted model and its ONNX bytes."""
    from training.learners.fit import fit_recipe

    model = fit_recipe(profile_recipe(learner, contract), rows, Targets.binary(positive))
    converted = model.to_onnx(
        name="churn", width=contract.width, model_contract=contract.model_contract
    )
    return model, converted


@pytest.mark.parametrize("kind", LEARNERS)
def test_convert_is_exact_on_real_churn_rows_and_edge_rows(
    kind: str, churn_folder: Path, churn_labels: LabelledRows
) -> None:
    """For 7,043 customers and all edge rows the difference is below 1e-6, where 1e-5 is allowed."""
    contract, labels = recipe_of("churn").contract, churn_labels
    rows = OfflineStore(churn_folder).training_set(contract, labels.spine).values
    model, converted = fitted_and_converted(LEARNERS[kind], contract, rows, labels.positive)

    bases = base_rows(rows)
    edges = [contract_edges(contract, bases), threshold_neighbours(converted, bases)]
    rows_and_edges = np.concatenate([rows, *edges])
    certificate = certify_parity(
        model.outputs(rows_and_edges),
        OnnxModel(converted).scores(rows_and_edges),
        held_out_rows=len(rows),
        threshold=0.5,
    )

    assert certificate.passed
    assert certificate.difference_max < 1e-6
    assert certificate.edge_rows > 100


def test_convert_of_boosting_is_exact_on_nan() -> None:
    """A feature whose default is None is NaN for the model, which has a branch for it."""
    view = replace(VIEW, features=tuple(replace(item, default=None) for item in VIEW.features))
    names = tuple(item.name for item in view.features)
    contract = ModelContract(entities=("subscriber",), views=(ViewUse(view=view, features=names),))
    rows = profile_matrix()
    rows[np.random.default_rng(1).random(rows.shape) < 0.1] = np.nan
    model, converted = fitted_and_converted(
        LEARNERS["boosting"], contract, rows, profile_labels().positive
    )

    bases = base_rows(rows)
    edges = [contract_edges(contract, bases), threshold_neighbours(converted, bases)]
    rows_and_edges = np.concatenate([rows, *edges])

    assert np.isnan(rows_and_edges[len(rows) :]).any()
    differences = np.abs(
        model.outputs(rows_and_edges) - OnnxModel(converted).scores(rows_and_edges)
    )
    assert differences.max() < 1e-6


@pytest.mark.parametrize("kind", LEARNERS)
def test_convert_gives_the_same_bytes_again(kind: str) -> None:
    """The model is fitted twice and converted twice."""
    rows, positive = profile_matrix(), profile_labels().positive
    first = fitted_and_converted(LEARNERS[kind], ALL_COLUMNS, rows, positive)[1]
    assert fitted_and_converted(LEARNERS[kind], ALL_COLUMNS, rows, positive)[1] == first


def test_convert_makes_the_graph_of_the_contract() -> None:
    """It has one input, one output, the contract's hash, no label and no zipmap."""
    converted = fitted_and_converted(
        LEARNERS["forest"], ALL_COLUMNS, profile_matrix(), profile_labels().positive
    )[1]
    graph = onnx.load_model_from_string(converted)
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
    scores = OnnxModel(converted).scores(profile_matrix()[:7])
    assert scores.shape == (7, 1)
    assert scores.dtype == np.float32


def test_convert_makes_boosting_a_regressor_and_a_sigmoid() -> None:
    """It computes no label and no second column, which makes it a fifth faster."""
    converted = fitted_and_converted(
        LEARNERS["boosting"], ALL_COLUMNS, profile_matrix(), profile_labels().positive
    )[1]
    nodes = onnx.load_model_from_string(converted).graph.node
    assert [node.op_type for node in nodes] == ["TreeEnsembleRegressor", "Sigmoid"]


def test_convert_refuses_a_regressor() -> None:
    """It has no probabilities."""
    from sklearn import linear_model

    from training.export.convert import convert_to_onnx

    regressor: Any = linear_model.LinearRegression
    model = regressor().fit(profile_matrix(), profile_matrix()[:, 0])
    with pytest.raises(ConversionError, match="cannot convert LinearRegression"):
        convert_to_onnx(model, name="churn", width=4, model_contract="00")


def test_parity_finds_a_rounded_threshold_by_its_neighbours() -> None:
    """A threshold that is one float32 too high changes rows at the threshold only.

    No real row may be there, so the edge rows must be.
    """
    rows = profile_matrix()
    model, converted = fitted_and_converted(
        LEARNERS["forest"], ALL_COLUMNS, rows, profile_labels().positive
    )
    tampered = onnx.load_model_from_string(converted)
    for item in tampered.graph.node[0].attribute:
        if item.name == "nodes_values":
            index_above_1 = next(index for index, value in enumerate(item.floats) if value > 1)
            item.floats[index_above_1] = np.nextafter(
                np.float32(item.floats[index_above_1]), np.float32(np.inf)
            )
    tampered_bytes = tampered.SerializeToString()

    edges = threshold_neighbours(tampered_bytes, rows[:4])

    before, after = model.outputs(edges), OnnxModel(tampered_bytes).scores(edges)
    assert not certify_parity(before, after, held_out_rows=0, threshold=0.5).passed
    assert certify_parity(
        before, OnnxModel(converted).scores(edges), held_out_rows=0, threshold=0.5
    ).passed


def test_train_refuses_a_wrong_conversion_at_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter changes one leaf by .01."""
    from training import train as training
    from training.export import convert as converting

    original = converting.convert_to_onnx

    def convert_wrongly(model: Any, **arguments: Any) -> bytes:  # noqa: ANN401
        tampered = onnx.load_model_from_string(original(model, **arguments))
        for item in tampered.graph.node[0].attribute:
            if item.name == "target_weights":
                item.floats[0] += 0.01
        return bytes(tampered.SerializeToString())

    monkeypatch.setattr(converting, "convert_to_onnx", convert_wrongly)
    with pytest.raises(GateFailedError, match=r"rows differ by more than 1e-05"):
        training.train_version(
            profile_recipe(LEARNERS["boosting"]), PopulationStore(), profile_labels()
        )
