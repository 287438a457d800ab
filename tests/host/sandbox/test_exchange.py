"""Messages between adoption and its child: what comes back is what was sent, or is refused."""

import json
import struct

import numpy as np
import pytest

from host.sandbox.exchange import (
    MalformedMessageError,
    Message,
    pack_message,
    unpack_message,
)

MESSAGE = Message(
    {"shown": "churn.pkl"},
    {
        "usage": np.array([[0.1, np.nan], [-np.inf, 1e300]]),
        "plan": np.array(["prepaid", "", "ü\n"], dtype=object),
        "rows": np.array([], dtype=np.int64),
        "yes": np.array([True, False]),
        "small": np.array([1.5], dtype=np.float32),
    },
    {"onnx": b"\x00model"},
)


def message_of(head: object, content: bytes = b"") -> bytes:
    """Return the bytes of a message whose JSON is *head*."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + content


def entry(shape: object, size: object, kind: object = "<f8") -> dict[str, object]:
    """Return the JSON of a message with one array."""
    return {"document": {}, "files": [], "arrays": [["x", kind, shape, size]]}


def test_message_comes_back_bit_for_bit() -> None:
    """NaN, infinities, texts and empty arrays included."""
    back = unpack_message(pack_message(MESSAGE))
    assert back.document == MESSAGE.document
    assert back.files == MESSAGE.files
    for name, array in MESSAGE.arrays.items():
        assert back.arrays[name].dtype == array.dtype
        assert back.arrays[name].shape == array.shape
        if array.dtype == object:
            assert back.arrays[name].tolist() == array.tolist()
        else:
            assert back.arrays[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<Q", 2**63),
        message_of(b"{"),
        message_of(b"[" * 100_000),
        message_of(b'{"document": NaN}'),
        message_of([]),
        message_of({"document": {}, "arrays": []}),
        message_of({"document": {}, "arrays": [], "files": [["x", -1]]}),
        message_of({"document": {}, "arrays": [], "files": [["x", 1]]}),
        message_of({"document": {}, "arrays": [], "files": []}, b"x"),
        message_of(entry([10**9, 10**9], 8), bytes(8)),
        message_of(entry([-1], 8), bytes(8)),
        message_of(entry([True], 8), bytes(8)),
        message_of(entry([1, 1, 1], 8), bytes(8)),
        message_of(entry([1], 8, "|O8"), bytes(8)),
        message_of(entry([1], 2**70), bytes(8)),
        message_of(entry([2], 2, "|b1"), b"\x00\x07"),
        message_of(entry([1], 2, "text"), b"[]"),
        message_of(entry([1], 3, "text"), b"[1]"),
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    """A hostile model can write the child's message."""
    with pytest.raises(MalformedMessageError):
        unpack_message(data)
