"""Rows, predictions and outcomes between Python values and messages, with and without numpy."""

from typing import Any

import numpy as np
import pytest

from turnout_client import messages
from turnout_client._protos.predict_pb2 import PredictReply, Role, Row
from turnout_client.messages import build_rows, read_prediction


@pytest.fixture(params=["numpy", "no numpy"])
def numpy_or_not(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the test twice, the second time as if numpy were not installed."""
    installed = bool(request.param == "numpy")
    if not installed:
        monkeypatch.setattr(messages, "np", None)
    return installed


def listed(values: Any) -> list[Any]:  # noqa: ANN401  an array or a list
    """Return an array as lists, and a list as it is."""
    return values if isinstance(values, list) else values.tolist()  # type: ignore[no-any-return]


@pytest.mark.usefixtures("numpy_or_not")
def test_build_rows_accepts_one_row_or_many_by_position_or_by_name() -> None:
    """One id, ids, composite ids; one vector, a matrix; numbers and strings by name."""
    assert list(build_rows("S1", None, None)) == [Row(keys=["S1"])]
    assert list(build_rows(["S1", "S2"], None, None)) == [Row(keys=["S1"]), Row(keys=["S2"])]
    assert list(build_rows([["S1", "offer-9"]], None, None)) == [Row(keys=["S1", "offer-9"])]
    assert list(build_rows("S1", [1.0, 2.0], None)) == [Row(keys=["S1"], inputs=[1.0, 2.0])]
    assert list(build_rows(None, np.ones((2, 3)), None)) == [Row(inputs=[1.0, 1.0, 1.0])] * 2
    assert list(build_rows(None, [[1, 2], [3, 4]], None)) == [
        Row(inputs=[1.0, 2.0]),
        Row(inputs=[3.0, 4.0]),
    ]
    assert list(build_rows("S1", [], None)) == [Row(keys=["S1"])]
    assert list(build_rows("S1", None, {"amount": 3, "channel": "app"})) == [
        Row(keys=["S1"], named={"amount": 3.0}, named_text={"channel": "app"})
    ]
    assert list(build_rows(None, None, None)) == []


@pytest.mark.usefixtures("numpy_or_not")
def test_build_rows_refuses_arguments_with_different_numbers_of_rows() -> None:
    """Two ids and three vectors; inputs given by position and by name."""
    with pytest.raises(ValueError, match=r"'keys': 2, 'inputs': 3"):
        list(build_rows(["a", "b"], np.zeros((3, 1)), None))
    with pytest.raises(ValueError, match="not both"):
        list(build_rows("a", [1.0], {"x": 1.0}))


def test_read_prediction_fills_flags_that_the_reply_leaves_out(numpy_or_not: bool) -> None:
    """The gateway leaves the flags out when all of them are 0."""
    reply = PredictReply(scores=[0.25, 0.5, 0.75], outputs=1, role=Role.FALLBACK)
    prediction = read_prediction(reply)
    assert listed(prediction.row_flags) == [0, 0, 0]
    assert listed(prediction.scores) == [[0.25], [0.5], [0.75]]
    assert prediction.role == "fallback"
    if numpy_or_not:
        assert (prediction.scores.shape, prediction.scores.dtype) == ((3, 1), np.float32)
        assert prediction.row_flags.dtype == np.uint32


def test_read_prediction_groups_scores_by_row(numpy_or_not: bool) -> None:
    """Two rows of two outputs, with flags. Both kinds are read by [row][output]."""
    prediction = read_prediction(
        PredictReply(scores=[0.0, 1.0, 2.0, 3.0], outputs=2, row_flags=[2, 0])
    )
    assert isinstance(prediction.scores, np.ndarray if numpy_or_not else list)
    assert listed(prediction.scores) == [[0.0, 1.0], [2.0, 3.0]]
    assert prediction.scores[1][0] == 2.0
    assert listed(prediction.row_flags) == [2, 0]
