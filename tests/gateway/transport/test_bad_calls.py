"""Each kind of bad call gets its status, harms no other call, and reveals nothing internal."""

import asyncio
import re
from collections.abc import Callable

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.columns import ModelShape
from gateway.settings import Settings
from gateway.status import Code, RefusedError
from gateway.transport.decode import DecodeLimits, decode_predict, parse_predict
from protos.predict_pb2 import PredictRequest, Row
from protos.registry_pb2 import ServingPolicy
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture, predict_request
from tests.property_examples import examples
from tests.tiny_models import tiny_contract, tiny_files
from tests.walks.wire.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RawConnection,
    call_header_block,
    raw_frame,
)
from tests.walks.wire.http2_frames import raw_grpc_message as framed

INVALID = grpc.StatusCode.INVALID_ARGUMENT
GUARD = tiny_contract().guard
INTERNAL_TEXTS = ("Traceback", "File ", ".py", "Error:", "onnx", "numpy", "redis", "0x7f")
"""Paths, exceptions and libraries, which a caller must not see."""

LIMITS = DecodeLimits(128, 128)
SHAPE = ModelShape(
    "churn",
    1,
    ("f0", "f1", "f2"),
    ((), ("a", "b"), ()),
    (0.0, 0.0, 0.0),
    1,
    GUARD,
    1_024,
    10**9,
    nan_inputs_refused=False,
)


def deployment(**policy: object) -> Deployment:
    """Return a deployment of one production version with this policy."""
    return Deployment(
        model="churn",
        revision=1,
        production="1",
        split_salt=SALT,
        holdout_salt=SALT,
        policy=ServingPolicy(**policy),
    )  # type: ignore[arg-type]


def changed_request(change: Callable[[PredictRequest], object]) -> bytes:
    """Return a good request after *change*."""
    request = predict_request(1, 2, 3)
    change(request)
    return request.SerializeToString()


BAD: dict[str, tuple[bytes, grpc.StatusCode, str]] = {
    "random bytes": (bytes(range(7, 91)), INVALID, "are not a turnout"),
    "truncated": (predict_request(1, 2, 3).SerializeToString()[:-3], INVALID, "are not a turnout"),
    "empty": (b"", INVALID, "name is 0 bytes"),
    "invalid UTF-8 model": (b"\x0a\x02\xff\xfe", INVALID, "UTF-8"),
    "10 kB model name": (
        changed_request(lambda r: setattr(r, "model", "m" * 10_000)),
        INVALID,
        "10000 b",
    ),
    "a path as model": (
        changed_request(lambda r: setattr(r, "model", "../etc")),
        INVALID,
        "odd char",
    ),
    "NUL in model": (changed_request(lambda r: setattr(r, "model", "ch\0rn")), INVALID, "odd char"),
    "10 kB key": (
        predict_request(1, 2, 3, key="k" * 10_000).SerializeToString(),
        INVALID,
        "1 to 128 bytes",
    ),
    "empty key": (predict_request(1, 2, 3, key="").SerializeToString(), INVALID, "1 to 128 bytes"),
    "control character in key": (
        predict_request(1, 2, 3, key="a\nb").SerializeToString(),
        INVALID,
        r"U\+000A",
    ),
    "10 kB sticky key": (
        changed_request(lambda r: setattr(r, "sticky_key", "s" * 10_000)),
        INVALID,
        "sticky_key is 10000 bytes",
    ),
    "10 kB request id": (
        changed_request(lambda r: setattr(r, "request_id", "s" * 10_000)),
        INVALID,
        "request_id is 10000 bytes",
    ),
    "line break in request id": (
        changed_request(lambda r: setattr(r, "request_id", "a\r\nb")),
        INVALID,
        "control character",
    ),
    "10 kB version": (
        changed_request(lambda r: setattr(r, "version", "v" * 10_000)),
        INVALID,
        "version is 10000 bytes",
    ),
    "too few inputs": (
        predict_request(1, 2).SerializeToString(),
        INVALID,
        "2 inputs; model 'churn' takes 3",
    ),
    "too many inputs": (
        predict_request(*[1.0] * 9).SerializeToString(),
        INVALID,
        "9 inputs; .* takes 3",
    ),
    "no key": (
        changed_request(lambda r: r.rows[0].ClearField("keys")),
        INVALID,
        "0 keys; .* takes 1",
    ),
    "two keys": (
        changed_request(lambda r: r.rows[0].keys.append("x")),
        INVALID,
        "2 keys; .* takes 1",
    ),
    "both inputs and named": (
        changed_request(lambda r: r.rows[0].named.update(f0=1.0)),
        INVALID,
        "both",
    ),
    "unknown named input": (
        PredictRequest(
            model="churn", rows=[Row(keys=["S"], named={"f9": 1.0})]
        ).SerializeToString(),
        INVALID,
        "1 inputs that model 'churn' does not have",
    ),
    "text for a number": (
        PredictRequest(
            model="churn", rows=[Row(keys=["S"], named_text={"f0": "a"})]
        ).SerializeToString(),
        INVALID,
        "no category",
    ),
    "0 rows": (PredictRequest(model="churn").SerializeToString(), INVALID, "0 rows"),
    "too many rows": (
        predict_request(1, 2, 3, rows=1_025).SerializeToString(),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "1025 rows; model 'churn' takes 1024",
    ),
    "wrong contract": (
        changed_request(lambda r: setattr(r, "contract", GUARD ^ 1)),
        grpc.StatusCode.FAILED_PRECONDITION,
        "input contract",
    ),
    "unknown model": (
        changed_request(lambda r: setattr(r, "model", "fraud")),
        grpc.StatusCode.NOT_FOUND,
        "'fraud' is not served",
    ),
    "unknown pin": (
        changed_request(lambda r: setattr(r, "version", "99")),
        grpc.StatusCode.NOT_FOUND,
        "'99' of model 'churn' answers no pinned call",
    ),
}


@pytest.mark.walk
def test_server_refuses_each_bad_call_while_good_calls_are_answered() -> None:
    """Each of the bad calls is sent together with three good ones."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, deployment()) as gateway:
            for name, (raw, code, pattern) in BAD.items():
                good_calls = [
                    gateway.predict(predict_request(1, 2, 3, key=f"S{n}")) for n in range(3)
                ]
                error, *replies = await asyncio.gather(gateway.refusal(raw), *good_calls)
                assert error.code() == code, name
                assert_message(error, pattern, name)
                for reply in replies:
                    assert [round(score, 4) for score in reply.scores] == [1.4], name
            assert gateway.faults == []
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


def assert_message(error: grpc.aio.AioRpcError, pattern: str, name: str) -> None:
    """Assert that the message matches, has at most 300 bytes, and reveals nothing internal."""
    details = error.details() or ""
    assert re.search(pattern, details), f"{name}: {details}"
    assert len(details) <= 300, name
    assert [text for text in INTERNAL_TEXTS if text in details] == [], name


@pytest.mark.walk
def test_server_refuses_a_message_beyond_4_mb_and_keeps_the_connection() -> None:
    """5 MB are RESOURCE_EXHAUSTED; the next call on the same channel is answered."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, deployment()) as gateway:
            error = await gateway.refusal(bytes(5 * 1024 * 1024))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await gateway.predict(predict_request(1, 2, 3))).version == "1"

    asyncio.run(walk())


@pytest.mark.walk
def test_server_scores_no_call_whose_deadline_has_passed() -> None:
    """A call with a timeout of 0 is not counted by any version.

    The frames are sent by hand, because clients round a timeout up to 1 ms, in which an answer may
    come; grpcio's server rounds up shorter timeouts as well.
    """

    def call_with_timeout(port: int, timeout: bytes) -> None:
        connection = RawConnection(port)
        block = call_header_block(more=((b"grpc-timeout", timeout),))
        body = raw_frame(DATA, END_STREAM, 1, framed(predict_request(1, 2, 3).SerializeToString()))
        connection.send(raw_frame(HEADERS, END_HEADERS, 1, block) + body)
        while not (connection.ended_streams or connection.reset_streams):
            assert connection.read(5.0)
        connection.close()

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, deployment()) as gateway:
            await asyncio.to_thread(call_with_timeout, gateway.port, b"0u")
            await gateway.predict(predict_request(1, 2, 3))
            assert gateway.window("PRODUCTION").calls.answered == 1

    asyncio.run(walk())


@pytest.mark.walk
def test_dispatcher_fails_only_the_call_whose_row_raises() -> None:
    """One of 40 calls makes ONNX Runtime raise. It is INTERNAL with an error id."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files(fault_when=5.0)}, deployment()) as gateway:
            calls = [gateway.predict(predict_request(1, 2, 3, key=f"S{n}")) for n in range(39)]
            error, *replies = await asyncio.gather(
                gateway.refusal(predict_request(9, 2, 3)), *calls
            )
            assert error.code() == grpc.StatusCode.INTERNAL
            assert error.details() == "the gateway failed on this call (error 00000001)"
            assert {round(reply.scores[0], 4) for reply in replies} == {1.4}

    asyncio.run(walk())


@pytest.mark.walk
def test_server_ends_a_call_without_a_message_within_message_ms_max() -> None:
    """A half-open call is ended, as is one that closes without a message; no rows stay inside."""

    async def half_open_status(gateway: GatewayFixture) -> grpc.StatusCode:
        call = gateway.channel.stream_unary("/turnout.v1.Predictor/Predict")()
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code()
        raise AssertionError("the call was answered")

    async def walk() -> None:
        limits = Settings(message_ms_max=100)
        async with gateway_fixture({"1": tiny_files()}, deployment(), settings=limits) as gateway:
            assert await half_open_status(gateway) == grpc.StatusCode.UNAVAILABLE
            closed = gateway.channel.stream_unary("/turnout.v1.Predictor/Predict")(iter(()))
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await closed
            assert raised.value.code() == INVALID
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


@pytest.mark.walk
def test_server_refuses_rows_beyond_rows_inside_max_with_a_pushback() -> None:
    """Some of 40 calls of 64 rows are refused at once by a worker with a bound of 512 rows."""

    async def walk() -> None:
        small = Settings(rows_inside_max=512, rows_call_max=64, batch_rows_max=64)
        async with gateway_fixture({"1": tiny_files()}, deployment(), settings=small) as gateway:
            calls = [gateway.predict(predict_request(1, 2, 3, rows=64)) for _ in range(40)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            refused = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
            for error in refused:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                pushback = dict(error.trailing_metadata() or ())["grpc-retry-pushback-ms"]
                assert pushback == "100"
            assert len(refused) < 40
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


@examples(300)
@given(st.binary(max_size=200))
def test_decode_predict_raises_only_refusals_for_any_bytes(raw: bytes) -> None:
    """Random bytes become a call or a RefusedError."""
    refused = Code.INVALID_ARGUMENT
    try:
        decode_predict(parse_predict(raw), {"churn": SHAPE}, LIMITS)
    except RefusedError as error:
        refused = error.refusal.code
    assert refused in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)


@examples(300)
@given(st.integers(0, 400), st.integers(0, 255))
def test_decode_predict_returns_a_call_or_a_refusal_when_one_byte_is_changed(
    index: int, value: int
) -> None:
    """One byte of a call of five rows is set to any value."""
    raw = bytearray(
        predict_request(1, 2, 3, key="S0000042", rows=5, request_id="r-1").SerializeToString()
    )
    raw[index % len(raw)] = value
    try:
        call = decode_predict(parse_predict(bytes(raw)), {"churn": SHAPE}, LIMITS)
        assert len(call.inputs) == 3 * call.rows
        assert len(call.ids) == call.rows
    except RefusedError:
        pass


def test_decode_predict_fills_named_inputs_with_defaults_and_dictionary_codes() -> None:
    """In f1 text "b" is code 1 and an unknown category code 2; f2 is not sent, so it is default."""
    rows = [Row(keys=["S"], named={"f0": 7.0}, named_text={"f1": text}) for text in ("b", "zzz")]
    call = decode_predict(PredictRequest(model="churn", rows=rows), {"churn": SHAPE}, LIMITS)
    assert call.inputs == [7.0, 1, 0.0, 7.0, 2, 0.0]
