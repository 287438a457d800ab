"""A message whose parsing would block the worker is refused before it is parsed."""

import pytest
from google.protobuf.internal.encoder import _VarintBytes

from gateway.status import Code, RefusedError
from gateway.transport.decode import FIELDS_MAX, PARSED_BYTES_MAX, ROW_BYTES_MAX, parse_predict
from protos.predict_pb2 import PredictRequest, Row

NAMED = Row(named={f"{number:x}": 1.0 for number in range(30_000)}).SerializeToString()


def one_row(contents: bytes) -> bytes:
    """Return a message of one row with these bytes."""
    return b"\x0a\x05churn\x12" + _VarintBytes(len(contents)) + contents


BOMBS = {
    "empty rows": b"\x12\x00" * (PARSED_BYTES_MAX // 2 + 1),
    "a map": one_row(NAMED),
    "empty keys": one_row(b"\x0a\x00" * PARSED_BYTES_MAX),
    "unpacked floats": one_row(b"\x15\x00\x00\x00\x00" * PARSED_BYTES_MAX),
    "unknown fields": b"\x78\x01" * PARSED_BYTES_MAX,
    "a length beyond the end": b"\x12\xff\xff\xff\xff\x0f" + bytes(PARSED_BYTES_MAX),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_parse_predict_refuses_many_elements_before_parsing(bomb: str) -> None:
    """Parsing each would take tens of milliseconds to seconds under the GIL."""
    with pytest.raises(RefusedError) as refused:
        parse_predict(BOMBS[bomb])
    assert refused.value.refusal.code is Code.RESOURCE_EXHAUSTED


def test_parse_predict_accepts_the_largest_valid_calls() -> None:
    """One has 1,024 rows of 500 inputs (2 MB), the other rows of 64 kB."""
    rows = [Row(keys=["S1"], inputs=[1.0] * 500)] * 1_024
    assert len(parse_predict(PredictRequest(rows=rows).SerializeToString()).rows) == 1_024
    wide = Row(keys=["S1"], inputs=[1.0] * (ROW_BYTES_MAX // 4 - 10))
    assert len(parse_predict(PredictRequest(rows=[wide] * 8).SerializeToString()).rows) == 8


def test_parse_predict_accepts_fields_max_fields_and_no_more() -> None:
    """A message of FIELDS_MAX + 1 rows is refused."""
    row = b"\x12\x28" + Row(keys=["x" * 38]).SerializeToString()
    assert len(row) * FIELDS_MAX > PARSED_BYTES_MAX
    assert len(parse_predict(row * FIELDS_MAX).rows) == FIELDS_MAX
    with pytest.raises(RefusedError):
        parse_predict(row * (FIELDS_MAX + 1))
