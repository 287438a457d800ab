"""Both decoders return the same for the same bytes: values, or status code and message."""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.columns import ModelShape
from gateway.native_library import load_native_library
from gateway.settings import Settings
from gateway.status import RefusedError
from gateway.transport import open_inference
from gateway.transport.decode import DecodedCall, DecodeLimits, decode_predict, parse_predict
from protos import open_inference_pb2 as oip
from protos.predict_pb2 import PredictRequest, Row
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.gateway.test_vectors import COLUMNS
from tests.gateway.test_vectors import SHAPE as NBA
from tests.property_examples import examples

NATIVE = load_native_library()
pytestmark = NEEDS_NATIVE_INGRESS

SETTINGS = Settings()
LIMITS = DecodeLimits(SETTINGS.name_bytes_max, SETTINGS.request_id_bytes_max)
VECTORS = Path(__file__).parents[2] / "vectors"
CHURN = ModelShape(
    model="churn",
    entities=1,
    input_names=("f0", "it's", "f2"),
    dictionaries=((), ("a", "b"), ()),
    input_defaults=(0.5, 0.0, math.nan),
    outputs=1,
    guard=7,
    rows_max=4,
    deadline_ns_default=10**9,
    nan_inputs_refused=True,
)
KEYLESS = ModelShape(
    model="churn",
    entities=0,
    input_names=("f0",),
    dictionaries=((),),
    input_defaults=(0.0,),
    outputs=1,
    guard=7,
    rows_max=1_000,
    deadline_ns_default=10**9,
    nan_inputs_refused=False,
)
SHAPES = (CHURN, NBA, KEYLESS)

Decoded = tuple[Any, ...]


def decoded_in_python(act: Callable[[], DecodedCall], shape: ModelShape) -> Decoded:
    """Return what Python decodes: (rows, criticality, [columns]), or (code, message)."""
    try:
        call = act()
    except RefusedError as error:
        return int(error.refusal.code), error.refusal.message
    inputs = np.array(call.inputs, "<f4").tobytes()
    texts = [call.sticky, call.request_id, call.pin.encode()]
    ids = [bytes(map(len, call.ids)), b"".join(call.ids)]
    assert len(call.ids) == call.rows * shape.entities
    return call.rows, call.criticality, [inputs, *ids, *texts]


def assert_predict_decoded_alike(message: bytes, shape: ModelShape) -> Decoded:
    """Assert that both decoders agree on a PredictRequest; return the result."""
    assert NATIVE is not None
    shapes = {shape.model: shape}
    python = decoded_in_python(
        lambda: decode_predict(parse_predict(message), shapes, LIMITS), shape
    )
    native = tuple(NATIVE.decode("predict", message, shape, SETTINGS))
    assert _comparable(native) == _comparable(python)
    return python


def assert_infer_decoded_alike(message: bytes, shape: ModelShape) -> Decoded:
    """Assert that both decoders agree on a ModelInferRequest; return the result."""
    assert NATIVE is not None

    def act() -> DecodedCall:
        request = open_inference.parse_infer(message, SETTINGS.typed_contents_bytes_max)
        return open_inference.decode_infer(request, {shape.model: shape}, LIMITS).call

    python = decoded_in_python(act, shape)
    assert _comparable(tuple(NATIVE.decode("infer", message, shape, SETTINGS))) == _comparable(
        python
    )
    return python


def _comparable(decoded: Decoded) -> Decoded:
    """Cut off the part of a message that depends on the order of a protobuf map."""
    if isinstance(decoded[1], str):
        for separator in (" names ", " parameter "):
            if separator in decoded[1]:
                return decoded[0], decoded[1].split(separator)[0]
    return decoded


def test_native_decoder_equals_python_for_the_committed_messages() -> None:
    """The messages are those of both vector files."""
    for vector in COLUMNS["calls"] + COLUMNS["refused"]:
        assert_predict_decoded_alike(bytes.fromhex(vector["message"]), NBA)
    vectors = json.loads((VECTORS / "open_inference.json").read_text(encoding="utf-8"))
    messages = [vector["message"] for kind in ("calls", "refused") for vector in vectors[kind]]
    shape = ModelShape(
        **{
            **vectors["shape"],
            "input_names": tuple(vectors["shape"]["input_names"]),
            "dictionaries": tuple(map(tuple, vectors["shape"]["dictionaries"])),
            "input_defaults": tuple(vectors["shape"]["input_defaults"]),
        }
    )
    for message in messages:
        assert_infer_decoded_alike(bytes.fromhex(message), shape)


TEXT = st.one_of(st.text(max_size=6), st.sampled_from(["S1", "é", "x" * 129, "\x7f", "\x85", ""]))
FLOAT = st.floats(width=32)
ROW = st.builds(
    Row,
    keys=st.lists(TEXT, max_size=3),
    inputs=st.lists(FLOAT, max_size=4),
    named=st.dictionaries(
        st.sampled_from(["f0", "it's", "f2", "no", "balance"]), FLOAT, max_size=2
    ),
    named_text=st.dictionaries(st.sampled_from(["it's", "f0", "segment"]), TEXT, max_size=1),
)
GOOD_ROW = st.builds(
    Row,
    keys=st.just(["S1"]),
    inputs=st.lists(FLOAT, min_size=3, max_size=3),
)
REQUEST = st.builds(
    PredictRequest,
    model=st.sampled_from(["churn", "churn", "churn", "nba", "fraud", "ö", ""]),
    rows=st.one_of(st.lists(GOOD_ROW, max_size=5), st.lists(ROW, max_size=3)),
    version=TEXT,
    sticky_key=TEXT,
    contract=st.sampled_from([0, 0, 7, 8]),
    request_id=TEXT,
    criticality=st.integers(-1, 9),
)


@examples(60)
@given(REQUEST, st.sampled_from(SHAPES))
def test_native_decoder_equals_python_for_any_request(
    request: PredictRequest, shape: ModelShape
) -> None:
    """Names, numbers, counts and keys are random."""
    assert_predict_decoded_alike(request.SerializeToString(), shape)


@examples(60)
@given(REQUEST, st.integers(0, 2**32), st.binary(max_size=12), st.integers(0, 3))
def test_native_decoder_equals_python_for_any_damaged_request(
    request: PredictRequest, index: int, patch: bytes, cut: int
) -> None:
    """Some bytes are overwritten, inserted or cut off."""
    raw = request.SerializeToString()
    start = index % (len(raw) + 1)
    damaged = raw[:start] + patch + raw[start + cut * len(patch) :]
    assert_predict_decoded_alike(damaged, CHURN)


@examples(60)
@given(st.binary(max_size=40), st.sampled_from([b"\x0a\x05churn", b"\x0a\x05churn\x12\x04", b""]))
def test_native_decoder_equals_python_for_any_bytes(raw: bytes, prefix: bytes) -> None:
    """They may be unknown fields, groups or varints that do not end."""
    assert_predict_decoded_alike(prefix + raw, CHURN)
    assert_infer_decoded_alike(prefix + raw, CHURN)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x78" + b"\xff" * 9 + b"\x01",
        b"\x78" + b"\xff" * 9 + b"\x02",
        b"\x78" + b"\xff" * 10 + b"\x01",
        b"\x80\x80\x80\x80\x10",
        b"\x80\x80\x80\x80\x80\x01",
        b"\x7b\x7c",
        b"\x7b\x0b\x0c\x7c",
        b"\x7b\x74",
        b"\x7b" * 40 + b"\x7c" * 40,
        b"\x7b" * 97 + b"\x7c" * 97,
        b"\x7b" * 98 + b"\x7c" * 98,
        b"\x7b" * 99 + b"\x7c" * 99,
        b"\x7b" * 100 + b"\x7c" * 100,
        b"\x7b" * 101 + b"\x7c" * 101,
        b"\x12" + bytes([200, 1]) + b"\x7b" * 100 + b"\x7c" * 100,
        b"\x7c",
        b"\x00",
        b"\x07",
        b"\x0e",
        b"\x12\x05\x12\x03abc",
        b"\x12\xff\xff\xff\xff\x0f",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x08\x01",
        b"\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x38\x81\x80\x80\x80\x10",
        b"\x12\x07\x1a\x05\x0a\x03abc",
        b"\x12\x07\x15\x00\x00\x80\x3f\x0a\x00",
    ],
)
def test_native_decoder_equals_python_for_unusual_wire_formats(raw: bytes) -> None:
    """Long varints, groups and wrong wire types are valid where protobuf's parser accepts them."""
    assert_predict_decoded_alike(raw, CHURN)
    assert_predict_decoded_alike(b"\x0a\x05churn" + raw, CHURN)
    assert_infer_decoded_alike(raw, CHURN)


def test_native_decoder_equals_python_for_large_messages() -> None:
    """Messages over 256 kB have a long row, many rows, unknown fields or random bytes."""
    row = Row(keys=["S1"], inputs=[1, 2, 3]).SerializeToString()
    long_row = Row(named={f"{number:x}": 1.0 for number in range(30_000)}).SerializeToString()
    many_keys = PredictRequest(model="churn", rows=[Row(keys=["S1"] * 40_000)] * 4)
    for raw in (
        b"\x0a\x05churn" + b"\x12" + bytes([len(row)]) + row * 20_000,
        b"\x12" + struct.pack("<I", len(long_row) | 0x80)[:0] + long_row,
        many_keys.SerializeToString(),
        b"\x78\x01" * 200_000,
        b"\x0a\x05churn" + b"\x12\x00" * 200_000,
        bytes(300_000),
        b"\xff" * 300_000,
    ):
        assert_predict_decoded_alike(raw, CHURN)
        assert_infer_decoded_alike(raw, CHURN)


TENSOR = st.builds(
    oip.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["keys", "inputs", "keys", "inputs", "'\"\n\\é\U0001f600", "x" * 41]),
    datatype=st.sampled_from(["BYTES", "FP32", "FP32", "INT64"]),
    shape=st.one_of(
        st.sampled_from([[1, 1], [1, 3], [2, 1], [2, 3]]), st.lists(st.integers(-1, 3), max_size=4)
    ),
    contents=st.builds(
        oip.InferTensorContents,
        fp32_contents=st.lists(FLOAT, max_size=6),
        bytes_contents=st.lists(st.sampled_from([b"S1", b"S2", b"", b"\xff"]), max_size=2),
        int_contents=st.lists(st.integers(0, 1), max_size=1),
    ),
)


def infer_request(keys: int, inputs: list[float], **more: Any) -> oip.ModelInferRequest:  # noqa: ANN401
    """Return a ModelInferRequest with *keys* rows."""
    request = oip.ModelInferRequest(model_name="churn", **more)
    tensor = request.inputs.add(name="keys", datatype="BYTES", shape=[keys, 1])
    tensor.contents.bytes_contents.extend([b"S1"] * keys)
    tensor = request.inputs.add(name="inputs", datatype="FP32", shape=[keys, 3])
    tensor.contents.fp32_contents.extend(inputs)
    return request


INFER = st.one_of(
    st.builds(
        oip.ModelInferRequest,
        model_name=st.sampled_from(["churn", "churn", "fraud"]),
        model_version=TEXT,
        id=TEXT,
        inputs=st.lists(TENSOR, max_size=3),
        raw_input_contents=st.lists(st.binary(max_size=13), max_size=2),
        parameters=st.dictionaries(
            st.sampled_from(["sticky_key", "request_id"]),
            st.builds(oip.InferParameter, string_param=TEXT),
            max_size=2,
        ),
    ),
    st.builds(
        infer_request, st.integers(0, 5), st.lists(FLOAT, max_size=6), id=TEXT, model_version=TEXT
    ),
)


@examples(60)
@given(INFER, st.integers(0, 2**32), st.binary(max_size=4), st.booleans())
def test_native_decoder_equals_python_for_any_model_infer(
    request: oip.ModelInferRequest, index: int, patch: bytes, damage: bool
) -> None:
    """Some of the requests have bytes overwritten."""
    raw = request.SerializeToString()
    if damage:
        start = index % (len(raw) + 1)
        raw = raw[:start] + patch + raw[start + len(patch) :]
    assert_infer_decoded_alike(raw, CHURN)
