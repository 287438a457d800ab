"""Tests of scoring two versions in a sandboxed child, and of naming how their graphs differ."""

import numpy as np
import pytest

from host.sandbox.run import NoSandboxError
from tests.tiny_models import linear_weights, tiny_files
from training.errors import CertifyError
from training.retrain import sandboxed_scores
from training.retrain.sandboxed_scores import (
    GraphDifference,
    graph_differences,
    score_side_by_side,
)

ROWS = np.random.default_rng(1).random((40, 3), dtype=np.float32)


def onnx_of(scale: float = 1.0) -> bytes:
    """The graph of a tiny version with other weights."""
    return tiny_files(weights=linear_weights(3) * np.float32(scale))["model.onnx"]


def test_graph_differences_name_the_first_value() -> None:
    """Equal graphs have none."""
    assert graph_differences(onnx_of(), onnx_of()) == []
    (found,) = graph_differences(onnx_of(), onnx_of(2.0))
    assert found.kind == "initializer"
    assert "-> " in found.difference
    assert "of 3 values" in found.difference


def test_graph_differences_name_what_only_one_has() -> None:
    """Node by node, by name."""
    others = graph_differences(onnx_of(), tiny_files(nan_when=0.5)["model.onnx"])
    assert any(item.difference == "only in the rebuilt graph" for item in others)
    assert {item.kind for item in others} <= {"node", "initializer", "metadata"}


@pytest.mark.walk
def test_versions_are_scored_in_a_child() -> None:
    """Both see the same rows, and the graphs are compared there."""
    found = score_side_by_side(onnx_of(), onnx_of(2.0), ROWS, 1, graphs=True)
    assert found.first.shape == found.second.shape == (40, 1)
    assert np.abs(found.first - found.second).max() > 0.01
    assert isinstance(found.graph[0], GraphDifference)


@pytest.mark.walk
def test_file_that_does_not_open_is_a_sentence() -> None:
    """No traceback of the child reaches a user."""
    with pytest.raises(CertifyError, match="does not load") as caught:
        score_side_by_side(onnx_of(), b"not a graph", ROWS, 1)
    assert "Traceback" not in str(caught.value)
    with pytest.raises(CertifyError, match="the contract promises"):
        score_side_by_side(onnx_of(), onnx_of(), ROWS, 2)


def test_host_without_a_sandbox_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is not opened in this process instead."""

    def none() -> None:
        raise NoSandboxError("this host runs no sandbox")

    monkeypatch.setattr(sandboxed_scores, "choose_isolation", none)
    with pytest.raises(CertifyError, match="were not scored: this host runs no sandbox"):
        score_side_by_side(onnx_of(), onnx_of(), ROWS, 1)
