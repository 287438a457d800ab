"""ModelInfer: the committed requests become the committed calls, codes and replies."""

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


def decoded(message: bytes) -> open_inference.ParsedInfer:
    """Parse and decode as the grpcio server does."""
    request = open_inference.parse_infer(message, TYPED_BYTES_MAX)
    return open_inference.decode_infer(request, {"nba": SHAPE}, LIMITS)


@pytest.mark.parametrize("call", VECTORS["calls"], ids=lambda call: call["why"])
def test_decode_infer_returns_the_committed_call(call: dict[str, Any]) -> None:
    """The values are the same, typed or raw, and in any order of the tensors."""
    decoded_call = decoded(bytes.fromhex(call["message"])).call
    expected = dict(call["decoded"])
    assert [entity_id.hex() for entity_id in decoded_call.ids] == expected.pop("ids")
    assert decoded_call.sticky.hex() == expected.pop("sticky")
    assert decoded_call.request_id.hex() == expected.pop("request_id")
    for name, value in expected.items():
        assert getattr(decoded_call, name) == value, name


@pytest.mark.parametrize("call", VECTORS["calls"], ids=lambda call: call["why"])
def test_infer_reply_is_raw_when_the_request_was_and_echoes_its_id(call: dict[str, Any]) -> None:
    """The encoder that decode_infer returns knows both."""
    reply = PredictReply(model="nba", version="7", role=1, scores=[0.5, 0.25], outputs=1)
    response = ModelInferResponse.FromString(decoded(bytes.fromhex(call["message"])).encode(reply))
    assert response.id == call["answered"]["request_id"]
    assert bool(response.raw_output_contents) == call["answered"]["raw"]
    assert bool(response.outputs[0].contents.fp32_contents) != call["answered"]["raw"]
    assert list(response.outputs[0].shape) == [2, 1]


@pytest.mark.parametrize("bad", VECTORS["refused"], ids=lambda bad: bad["why"])
def test_decode_infer_refuses_a_bad_request_and_names_the_tensor(bad: dict[str, Any]) -> None:
    """56 kinds of bad requests get a short message on one line."""
    with pytest.raises(RefusedError) as refused:
        decoded(bytes.fromhex(bad["message"]))
    message = refused.value.refusal.message
    assert int(refused.value.refusal.code) == bad["code"]
    assert bad["names"] in message
    assert len(message) <= 300
    assert "\n" not in message


@pytest.mark.parametrize("vector", VECTORS["replies"], ids=lambda vector: vector["why"])
def test_encode_infer_reply_writes_the_committed_bytes(vector: dict[str, Any]) -> None:
    """Scores are equal bit for bit; the role is text, prediction_id base64."""
    reply = PredictReply.FromString(bytes.fromhex(vector["reply"]))
    written = open_inference.encode_infer_reply(reply, request_id=vector["id"], raw=vector["raw"])
    again = ModelInferResponse.FromString(written).SerializeToString(deterministic=True)
    assert again.hex() == vector["bytes"]


def test_parse_infer_refuses_millions_of_elements_before_parsing() -> None:
    """4 MB of one-byte numbers are refused in less than 1/20 of the time that parsing takes."""
    numbers = b"\x01" * (4 * 1024 * 1024 - 100)
    contents = b"\x12" + _varint(len(numbers)) + numbers  # int_contents
    tensor = b"\x2a" + _varint(len(contents)) + contents
    bomb = b"\x0a\x03nba\x2a" + _varint(len(tensor)) + tensor
    started = time.thread_time()  # CPU time of this thread alone
    assert len(ModelInferRequest.FromString(bomb).inputs[0].contents.int_contents) == len(numbers)
    parsed = time.thread_time()
    with pytest.raises(RefusedError, match="outside raw_input_contents"):
        open_inference.parse_infer(bomb, Settings().typed_contents_bytes_max)
    assert time.thread_time() - parsed < (parsed - started) / 20


def test_decode_infer_compares_large_raw_contents_with_their_shape() -> None:
    """Raw contents of any size are parsed; then their length is compared with the shape."""
    request = ModelInferRequest(model_name="nba")
    request.inputs.add(name="keys", datatype="BYTES", shape=[1, 2])
    request.inputs.add(name="inputs", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.extend([struct.pack("<I", 0) * 1_000_000, bytes(8)])
    with pytest.raises(RefusedError, match=r"'keys' holds more than 2 elements"):
        decoded(request.SerializeToString())


@examples(300)
@given(st.binary(max_size=300))
def test_parse_infer_raises_only_refusals_for_any_bytes(raw: bytes) -> None:
    """The bytes are random, and longer or shorter than typed_contents_bytes_max."""
    for typed_contents_bytes_max in (4, 10_000):
        try:
            request = open_inference.parse_infer(raw, typed_contents_bytes_max)
            open_inference.decode_infer(request, {"nba": SHAPE}, LIMITS)
        except RefusedError:
            pass


@examples(300)
@given(st.sampled_from(VECTORS["calls"]), st.integers(0, 400), st.integers(0, 255))
def test_decode_infer_returns_a_call_or_a_refusal_when_one_byte_is_changed(
    call: dict[str, Any], index: int, value: int
) -> None:
    """A request that is accepted has as many values as its shape says."""
    raw = bytearray(bytes.fromhex(call["message"]))
    raw[index % len(raw)] = value
    try:
        call_or_refusal = decoded(bytes(raw)).call
    except RefusedError:
        return
    rows = call_or_refusal.rows
    assert (len(call_or_refusal.ids), len(call_or_refusal.inputs)) == (2 * rows, 2 * rows)


@examples(300)
@given(st.binary(max_size=64), st.lists(st.binary(max_size=20), max_size=5))
def test_bytes_outside_field_counts_exactly(name: bytes, blobs: list[bytes]) -> None:
    """It is the length of the message less the contents of field 7."""
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
