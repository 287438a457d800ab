"""Frames of a child's report: complete ones are read, and anything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.sandbox.report import (
    ANSWER,
    PROBLEM,
    STEP,
    STEPS_MAX,
    TEXT_BYTES_MAX,
    MalformedReportError,
    ReportReader,
    frame,
)
from tests.property_examples import examples

REPORT = frame(STEP, b"opening") + frame(STEP, "für".encode()) + frame(ANSWER, b"answer")


def read(data: bytes, size: int = 2**20, answer_bytes_max: int = 100) -> ReportReader:
    """Feed *data* in pieces of *size* bytes to a reader, and return it after the end."""
    reader = ReportReader(answer_bytes_max, lambda _: None)
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
    reader.end()
    return reader


@examples(50)
@given(size=st.integers(1, 60))
def test_report_is_read_in_pieces_of_any_size(size: int) -> None:
    """A pipe gives as many bytes as it likes."""
    reader = read(REPORT, size)
    assert (reader.answer, reader.step, reader.problem) == (b"answer", "für", None)


def test_steps_are_reported_as_they_come() -> None:
    """Progress is shown while the child works."""
    steps: list[str] = []
    reader = ReportReader(100, steps.append)
    reader.feed(REPORT[:-1])
    assert steps == ["opening", "für"]
    assert reader.answer is None


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 20,
        REPORT + b"x",
        REPORT + frame(STEP, b"more"),
        frame(ANSWER, bytes(101)),
        frame(ANSWER, b"")[:-1] + b"\xff",
        frame(STEP, bytes(TEXT_BYTES_MAX + 1)),
        frame(STEP, b"x") * (STEPS_MAX + 1),
        frame(PROBLEM, b"a problem") + frame(ANSWER, b"answer"),
        REPORT[:-1],
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    """The code in the child can write anything."""
    with pytest.raises(MalformedReportError):
        read(data)
