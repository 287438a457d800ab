"""Packed fields have the bytes that protobuf itself writes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import packed_fields
from protos.window_pb2 import KeyRecords
from tests.property_examples import examples

NUMBERS = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1)), max_size=150)


@examples(100)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), NUMBERS, NUMBERS)
def test_packed_fields_write_protobufs_bytes(
    keys: list[int], bins: list[int], batch_calls: list[int]
) -> None:
    """Values need one or more bytes, and columns are empty or long."""
    expected = KeyRecords(key_hash=keys, bin=bins, batch_calls=batch_calls).SerializeToString()
    written = [
        packed_fields.fixed64s(2, np.array(keys, dtype=np.uint64)),
        packed_fields.varints(3, np.array(bins, dtype=np.int64)),
        packed_fields.varints(5, np.array(batch_calls, dtype=np.int64)),
    ]
    assert b"".join(written) == expected
