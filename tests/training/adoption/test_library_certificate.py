"""Tests that a library and its graph are compared, and that differences are explained."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from registry.golden import ScoreTolerance
from tests.training.adoption.graphs import FLOAT, adoption, exported, onnx_file, opened, tree_node
from training.adoption.edge_feed import edge_feed
from training.adoption.foreign import Adaptation, ForeignModel
from training.adoption.foreign_session import ForeignSession
from training.adoption.library_certificate import certify_library
from training.errors import AdoptionError


def with_truth(
    content: bytes,
    change: Any = None,  # noqa: ANN401  a function of truth and rows
) -> tuple[ForeignModel, Adaptation]:
    """Return a model whose library scores as its graph does, with *change* made to the scores."""
    model = opened(content)
    adaptation, _ = adoption(model)
    width = len(model.inputs[0].columns)
    name = model.inputs[0].name
    sample = {name: np.random.default_rng(8).normal(size=(300, width)).astype(np.float32)}
    edges = edge_feed(model.onnx, sample, missing=True)
    rows = {name: np.concatenate([sample[name], edges[name]])}
    truth = ForeignSession(model.onnx).run(rows, adaptation.output).astype(np.float64)
    if change is not None:
        change(truth, rows[name])
    return (
        replace(
            model,
            rows=rows,
            sample_rows=300,
            truth={adaptation.output: truth},
            truth_by="boosts 1.0",
        ),
        adaptation,
    )


def test_edge_rows_stand_on_each_threshold_and_beside_it() -> None:
    """Three rows for a split, one with NaN for each column, then two for each leaf."""
    content = onnx_file(
        [tree_node(["x"], ["y"], classifier=False)],
        [("x", FLOAT, [None, 2])],
        [("y", FLOAT, [None, 1])],
    )
    sample = {"x": np.full((3, 2), 9, np.float32)}
    edges = edge_feed(content, sample, missing=True)["x"]
    half = np.float32(0.5)
    beside = [np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(1))]
    assert edges[:3, 0].tolist() == [half, *beside]
    assert np.isnan(edges[[3, 4], [0, 1]]).all()
    assert edges[5:, 0].tolist() == [half, half, 9, beside[1]]
    assert len(edge_feed(content, sample, missing=False)["x"]) == 7


@pytest.mark.parametrize("name", ["lightgbm_binary", "catboost_three", "xgboost_amount"])
def test_a_library_that_scores_as_its_graph_is_certified(name: str) -> None:
    """On sample rows and on edge rows."""
    model, adaptation = with_truth(exported(name))
    found = certify_library(model, adaptation)
    assert (found.library, found.sample_rows) == ("boosts 1.0", 300)
    assert found.edge_rows > 10
    assert found.difference_max < 1e-5
    assert found.tolerance.relative == 1e-5


def test_amounts_may_differ_by_a_hundred_thousandth_of_their_size() -> None:
    """1e-5 would refuse every regressor in the thousands; a tenth of an amount does not pass."""

    def rounded(truth: NDArray[np.float64], _: NDArray[np.float32]) -> None:
        truth += 0.03

    model, adaptation = with_truth(exported("lightgbm_amount"), rounded)
    assert 0.02 < certify_library(model, adaptation).difference_max < 0.04
    with pytest.raises(AdoptionError, match=r"score differently by boosts .* and by the graph"):
        certify_library(model, adaptation, tolerance=ScoreTolerance(1e-5, 0))


def differ_at(where: Any) -> Any:  # noqa: ANN401
    """Return a change of truth in the rows that *where* says."""

    def change(truth: NDArray[np.float64], rows: NDArray[np.float32]) -> None:
        truth[where(rows)] += 0.01

    return change


def large(truth: NDArray[np.float64], rows: NDArray[np.float32]) -> None:
    """One row has a number of nine digits, and another score."""
    rows[7, 2] = 123456789
    truth[7] += 0.01


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (differ_at(lambda rows: np.isnan(rows).any(axis=1)), "The row has NaN.*default"),
        (large, r"The row has X\[2\] = 123456792, and float32 has no fractions above 2\^23"),
        (differ_at(lambda rows: np.arange(len(rows)) == 300), "on a threshold of a tree"),
        (differ_at(lambda rows: np.arange(len(rows)) == 8), "something else than the library"),
    ],
)
def test_a_difference_names_row_scores_and_probable_cause(change: Any, cause: str) -> None:  # noqa: ANN401
    """NaN in a forest, numbers above 2^23, thresholds, and anything else."""
    model, adaptation = with_truth(exported("lightgbm_binary"), change)
    if change is large:
        model = replace(
            model,
            truth={adaptation.output: ForeignSession(model.onnx).run(model.rows, "probabilities")},
        )
        model.truth[adaptation.output][7] += np.float32(0.01)
    with pytest.raises(AdoptionError, match=rf"rows score differently.*by boosts 1.0.*{cause}"):
        certify_library(model, adaptation)


def test_nan_on_one_side_is_a_difference() -> None:
    """NaN on both sides is none."""

    def some_nan(truth: NDArray[np.float64], _: NDArray[np.float32]) -> None:
        truth[3] = np.nan

    model, adaptation = with_truth(exported("xgboost_binary"), some_nan)
    with pytest.raises(AdoptionError, match=r"Row 3 .* scores nan by boosts"):
        certify_library(model, adaptation)


def double_trees() -> bytes:
    """A tree that reads float64."""
    return onnx_file(
        [tree_node(["x"], ["y"], classifier=False)],
        [("x", TensorProto.DOUBLE, [None, 2])],
        [("y", FLOAT, [None, 1])],
    )


def test_decisions_that_float32_changes_are_counted() -> None:
    """0.5 + 1e-12 is 0.5 in float32, on the other side of the threshold 0.5."""
    model = opened(double_trees())
    adaptation, _ = adoption(model)
    exact = np.array([[0.5 + 1e-12, 0.0], [0.25, 0.0], [0.1, 0.0]])
    model = replace(model, rows={"x": exact.astype(np.float32).astype(np.float64)}, sample_rows=3)
    by_graph = certify_library(model, adaptation, exact={"x": exact}, threshold=0.0)
    assert (by_graph.library, by_graph.rounded_rows, by_graph.rounding_flips) == ("", 2, 1)
    assert by_graph.rounding_max == pytest.approx(1.0)
    # A library says it by itself.
    truth = np.array([[-0.3], [-0.3], [-0.3]])
    scored = replace(
        model,
        truth={"y": truth},
        truth_exact={"y": np.array([[0.7], [-0.3], [-0.3]])},
        truth_by="boosts 1.0",
    )
    by_library = certify_library(scored, adaptation, exact={"x": exact}, threshold=0.0)
    assert by_library.definition() == {
        "library": "boosts 1.0",
        "sample_rows": 3,
        "edge_rows": 0,
        "difference_max": pytest.approx(0, abs=1e-6),
        "tolerance": {"absolute": 1e-5, "relative": 1e-5},
        "rounded_rows": 2,
        "rounding_flips": 1,
        "rounding_max": pytest.approx(1.0),
    }


def test_a_decision_among_several_outputs_is_the_largest() -> None:
    """Rounding may make another of three classes win."""
    model, adaptation = with_truth(exported("xgboost_three"))
    truth = model.truth[adaptation.output]
    exact = truth[:300].copy()
    exact[5] = np.roll(exact[5], 1)
    model = replace(model, truth_exact={adaptation.output: exact})
    assert certify_library(model, adaptation).rounding_flips == 1
