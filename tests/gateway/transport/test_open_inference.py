"""ModelInfer as bytes: the committed requests become the committed calls, codes and replies."""

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.columns import ModelShape
from gateway.settings import Settings
from gateway.status import RefusedError
from gateway.transport import open_inference
from gateway.transport.decode import DecodeLimits
from gateway.transport.protobuf_scan import ProtobufScanError, bytes_outside_field
from protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from protos.predict_pb2 import PredictReply
from tests.property_examples import examples

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "open_inference.json").read_text(encoding="utf-8")
)
SHAPE = ModelShape(
    **{
        **VECTORS["shape"],
        "input_names": tuple(VECTORS["shape"]["input_names"]),
        "dictionaries": tuple(map(tuple, VECTORS["shape"]["dictionaries"])),
        "input_defaults": tuple(VECTORS["shape"]["input_defaults"]),
    }
)
LIMITS = DecodeLimits(**VECTORS["limits"])
TYPED_BYTES_MAX: int = VECTORS["typed_contents_bytes_max"]


def asked(message: bytes) -> open_inference.ParsedInfer:
    """Parse and decode as the door does."""
    request = open_inference.parse_infer(message, TYPED_BYTES_MAX)
    return open_inference.decode_infer(request, {"nba": SHAPE}, LIMITS)


@pytest.mark.parametrize("call", VECTORS["calls"], ids=lambda call: call["why"])
def test_a_request_becomes_the_committed_call(call: dict[str, Any]) -> None:
    """The same values, typed or raw, in whatever order the tensors came."""
    found = asked(bytes.fromhex(call["message"])).call
    expected = dict(call["decoded"])
    assert [one.hex() for one in found.ids] == expected.pop("ids")
    assert found.sticky.hex() == expected.pop("sticky")
    assert found.request_id.hex() == expected.pop("request_id")
    for name, value in expected.items():
        assert getattr(found, name) == value, name


@pytest.mark.parametrize("call", VECTORS["calls"], ids=lambda call: call["why"])
def test_the_reply_is_raw_when_the_request_was_and_echoes_its_id(call: dict[str, Any]) -> None:
    """What decode hands to encode."""
    reply = PredictReply(model="nba", version="7", role=1, scores=[0.5, 0.25], outputs=1)
    response = ModelInferResponse.FromString(asked(bytes.fromhex(call["message"])).encode(reply))
    assert response.id == call["answered"]["request_id"]
    assert bool(response.raw_output_contents) == call["answered"]["raw"]
    assert bool(response.outputs[0].contents.fp32_contents) != call["answered"]["raw"]
    assert list(response.outputs[0].shape) == [2, 1]


@pytest.mark.parametrize("bad", VECTORS["refused"], ids=lambda bad: bad["why"])
def test_a_bad_request_gets_its_code_and_is_told_which_tensor(bad: dict[str, Any]) -> None:
    """56 kinds; short words on one line."""
    with pytest.raises(RefusedError) as refused:
        asked(bytes.fromhex(bad["message"]))
    words = refused.value.refusal.message
    assert int(refused.value.refusal.code) == bad["code"]
    assert bad["names"] in words
    assert len(words) <= 300
    assert "\n" not in words


@pytest.mark.parametrize("vector", VECTORS["replies"], ids=lambda vector: vector["why"])
def test_a_reply_is_written_as_committed(vector: dict[str, Any]) -> None:
    """Scores bit for bit, role in words, prediction_id in base64."""
    reply = PredictReply.FromString(bytes.fromhex(vector["reply"]))
    written = open_inference.encode_infer_reply(reply, request_id=vector["id"], raw=vector["raw"])
    again = ModelInferResponse.FromString(written).SerializeToString(deterministic=True)
    assert again.hex() == vector["bytes"]


def test_an_element_bomb_is_refused_before_it_is_parsed() -> None:
    """4 MB of one-byte numbers: refused in under a twentieth of the time that parsing takes."""
    numbers = b"\x01" * (4 * 1024 * 1024 - 100)
    contents = b"\x12" + _varint(len(numbers)) + numbers  # int_contents
    tensor = b"\x2a" + _varint(len(contents)) + contents
    bomb = b"\x0a\x03nba\x2a" + _varint(len(tensor)) + tensor
    started = time.thread_time()  # neighbours are not timed
    assert len(ModelInferRequest.FromString(bomb).inputs[0].contents.int_contents) == len(numbers)
    parsed = time.thread_time()
    with pytest.raises(RefusedError, match="outside raw_input_contents"):
        open_inference.parse_infer(bomb, Settings().typed_contents_bytes_max)
    assert time.thread_time() - parsed < (parsed - started) / 20


def test_a_million_rows_of_raw_bytes_are_no_bomb() -> None:
    """Raw contents of any size pass the parser; then their length is held against the shape."""
    request = ModelInferRequest(model_name="nba")
    request.inputs.add(name="keys", datatype="BYTES", shape=[1, 2])
    request.inputs.add(name="inputs", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.extend([struct.pack("<I", 0) * 1_000_000, bytes(8)])
    with pytest.raises(RefusedError, match=r"'keys' holds more than 2 elements"):
        asked(request.SerializeToString())


@examples(300)
@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise_anything_but_a_refusal(raw: bytes) -> None:
    """Random bytes, below and above typed_contents_bytes_max."""
    for typed_contents_bytes_max in (4, 10_000):
        try:
            request = open_inference.parse_infer(raw, typed_contents_bytes_max)
            open_inference.decode_infer(request, {"nba": SHAPE}, LIMITS)
        except RefusedError:
            pass


@examples(300)
@given(st.sampled_from(VECTORS["calls"]), st.integers(0, 400), st.integers(0, 255))
def test_a_good_request_with_one_byte_changed_is_a_call_or_a_refusal(
    call: dict[str, Any], place: int, value: int
) -> None:
    """Whatever is accepted has as many values as its shape says."""
    raw = bytearray(bytes.fromhex(call["message"]))
    raw[place % len(raw)] = value
    try:
        found = asked(bytes(raw)).call
    except RefusedError:
        return
    assert (len(found.ids), len(found.inputs)) == (2 * found.rows, 2 * found.rows)


@examples(300)
@given(st.binary(max_size=64), st.lists(st.binary(max_size=20), max_size=5))
def test_what_lies_beside_the_bulk_is_counted_exactly(name: bytes, blobs: list[bytes]) -> None:
    """Length of the whole, less the contents of field 7."""
    message = b"\x0a" + _varint(len(name)) + name + b"\x18\x96\x01\x25abcd\x29abcdefgh"
    message += b"".join(b"\x3a" + _varint(len(blob)) + blob for blob in blobs)
    assert bytes_outside_field(message, 7, 9) == len(message) - sum(map(len, blobs))
    with pytest.raises(ProtobufScanError):
        bytes_outside_field(message + b"\x0a\x05", 7, 20)
    with pytest.raises(ProtobufScanError):
        bytes_outside_field(message, 7, 3 + len(blobs))


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])
