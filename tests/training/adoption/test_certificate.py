"""Tests that the certificate passes honest graphs, and refuses other bits and rows that mix."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from registry.golden import TOLERANCE_MAX, score_size
from tests.neighbour_models import (
    mean_over_the_batch,
    moved_in_company,
    score_of_the_row_before,
    softmax_over_the_batch,
    sum_over_the_rows_before,
)
from tests.tiny_models import DEFAULT_WIDTH
from tests.training.adoption.graphs import (
    FLOAT,
    adoption,
    exported,
    linear_file,
    mixed_file,
    onnx_file,
    opened,
    parsed,
    sample_rows,
)
from training.adoption import certificate
from training.adoption.adapt_graph import adapt_graph
from training.adoption.certificate import GraphCertificate, certify_graph
from training.adoption.edge_feed import adapted_rows
from training.errors import AdoptionError

COUNT = 400
"""Rows of a certificate in these tests; a user's has 10,000."""


def certified(content: bytes, count: int = COUNT, **options: Any) -> GraphCertificate:  # noqa: ANN401
    """Adapt a file and certify it."""
    model = opened(content)
    adaptation, contract = adoption(model, **options)
    file = adapt_graph(model, adaptation, contract)
    return certify_graph(model, adaptation, contract, file, sample_rows(contract), count=count)


@pytest.mark.parametrize("name", ["lightgbm_binary", "xgboost_three", "catboost_amount"])
def test_files_of_exporters_are_certified(name: str) -> None:
    """Every row is compared together, alone and in four sizes of batches."""
    found = certified(exported(name), reverse=True)
    assert (found.rows, found.single_rows, found.refused_rows) == (COUNT, COUNT, 0)
    assert found.batch_rows == (2, 3, 64, 257)
    assert found.optimised
    assert found.company_max == 0


@pytest.mark.walk
def test_a_certificate_has_ten_thousand_rows() -> None:
    """Texts, whole numbers and missing values among them."""
    found = certified(mixed_file(), count=certificate.ROWS)
    assert found.rows == 10_000
    assert found.definition()["tolerance"]["relative"] == 1e-5


def test_logits_are_certified_with_their_transform() -> None:
    """The reference runs the same operator on the foreign graph's output."""
    assert certified(linear_file(3, columns=3), transform="softmax").rows == COUNT


def test_a_graph_of_one_row_a_run_is_compared_in_its_own_runs() -> None:
    """The foreign graph runs row by row, the adapted one takes batches."""
    found = certified(linear_file(3, rows=1))
    assert found.rows == COUNT


def test_amounts_move_with_their_company_within_their_size() -> None:
    """A sum of thousands that cancels moves by more than 1e-5 of what is left."""
    content = parsed(linear_file(40))
    weights = np.linspace(-9e4, 9e4, 40, dtype=np.float32)[:, None]
    content.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "weights"))
    found = certified(bytes(content.SerializeToString()))
    assert found.tolerance.absolute > 1
    assert found.tolerance.absolute < TOLERANCE_MAX * score_size(np.full((1, 1), 1e6, np.float32))


def test_edge_rows_follow_the_sample_and_are_bounded() -> None:
    """Wide rows have fewer; the sample stays as it is, in its order."""
    model = opened(linear_file(3))
    adaptation, contract = adoption(model)
    sample = sample_rows(contract, 70)
    rows = adapted_rows(model.onnx, adaptation, contract, sample, count=0)
    assert rows[:70].tobytes() == sample.tobytes()
    assert np.isnan(rows[70:]).any()
    assert np.isinf(rows[70:]).any()
    wide = opened(linear_file(4_000))
    adaptation, contract = adoption(wide)
    few = adapted_rows(wide.onnx, adaptation, contract, sample_rows(contract, 5), count=0)
    assert 1_000 < len(few) < 3_000


def neighbour(graph: Any) -> bytes:  # noqa: ANN401
    """Return a foreign file of a graph whose rows mix."""
    nodes, constants = graph()
    return onnx_file(
        nodes,
        [("inputs", FLOAT, [None, DEFAULT_WIDTH])],
        [("scores", FLOAT, [None, 1])],
        constants,
        opsets={"": 13},
    )


@pytest.mark.parametrize(
    "graph",
    [
        score_of_the_row_before,
        mean_over_the_batch,
        softmax_over_the_batch,
        sum_over_the_rows_before,
        moved_in_company(0.01),
    ],
)
def test_a_score_that_depends_on_other_rows_is_refused(graph: Any) -> None:  # noqa: ANN401
    """The message has the row, both scores, the batch and what to look for."""
    with pytest.raises(AdoptionError, match=r"alone and .* in a batch of .*operators over axis 0"):
        certified(neighbour(graph))


def altered(change: Any) -> Any:  # noqa: ANN401
    """Certify linear_file with an adapted graph that *change* alters."""
    model = opened(linear_file(3))
    adaptation, contract = adoption(model)
    file = parsed(adapt_graph(model, adaptation, contract))
    change(file)
    content = bytes(file.SerializeToString())
    return certify_graph(model, adaptation, contract, content, sample_rows(contract), count=COUNT)


def one_bit(file: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """Change the last bit of one weight."""
    weights = numpy_helper.to_array(file.graph.initializer[0]).copy()
    weights[0] = np.nextafter(weights[0], np.float32(9))
    file.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "weights"))


def raises_on_large_values(file: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """Look up a constant at the row's value, which raises for most values."""
    nodes = [
        helper.make_node("Cast", ["inputs"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["zeros", "index"], ["looked_up"]),
        helper.make_node("ReduceSum", ["looked_up", "axis"], ["nothing"], keepdims=1),
        helper.make_node("Add", ["linear", "nothing"], ["scores"]),
    ]
    file.graph.node[0].output[0] = "linear"
    file.graph.node.extend(nodes)
    file.graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros(8, np.float32), "zeros"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_bit, "by the foreign graph and .* by the adapted one, together; equal bits"),
        (raises_on_large_values, "is refused by one graph only: the foreign graph says 'a score'"),
    ],
)
def test_an_adapted_graph_that_scores_otherwise_is_refused(change: Any, message: str) -> None:  # noqa: ANN401
    """One bit is enough, and so is one refused row."""
    with pytest.raises(AdoptionError, match=message):
        altered(change)


def looked_up() -> bytes:
    """A Gather, which raises for an index outside its list."""
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["list", "index"], ["y"]),
    ]
    return onnx_file(
        nodes,
        [("x", FLOAT, [None, 1])],
        [("y", FLOAT, [None, 1])],
        {"list": np.arange(8, dtype=np.float32)},
    )


def test_optimised_graphs_may_differ_by_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here one optimised graph has another last bit; as the files have them, bits are equal."""
    model = opened(linear_file(3))
    adaptation, contract = adoption(model)
    file = adapt_graph(model, adaptation, contract)
    run = certificate.ForeignSession.run

    def rounded(session: Any, feed: Any, output: str) -> Any:  # noqa: ANN401
        scores = run(session, feed, output)
        last_bit = output == "scores" and session.optimised
        return np.nextafter(scores, np.float32(9)) if last_bit else scores

    monkeypatch.setattr(certificate.ForeignSession, "run", rounded)
    found = certify_graph(model, adaptation, contract, file, sample_rows(contract), count=COUNT)
    assert not found.optimised
    assert found.company_max == 0


def test_rows_that_the_graph_itself_refuses_are_counted() -> None:
    """Both graphs raise for them."""
    found = certified(looked_up(), count=300)
    assert found.refused_rows > 10
    assert found.rows + found.refused_rows == 300


def test_sample_rows_that_the_graph_refuses_are_an_error() -> None:
    """They say what size scores have."""
    model = opened(looked_up())
    adaptation, contract = adoption(model)
    file = adapt_graph(model, adaptation, contract)
    with pytest.raises(AdoptionError, match="does not score the sample rows"):
        certify_graph(model, adaptation, contract, file, np.full((9, 1), 99, np.float32))
