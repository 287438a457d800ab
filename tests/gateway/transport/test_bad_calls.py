"""Each kind of bad call gets its status, harms nobody beside it, and is told nothing of ours."""

import asyncio
import math
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
OURS = ("Traceback", "File ", ".py", "Error:", "onnx", "numpy", "redis", "0x7f")
"""Words that would be ours: paths, exceptions, libraries."""

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
    """One production version under *policy*."""
    return Deployment(
        model="churn",
        revision=1,
        production="1",
        split_salt=SALT,
        holdout_salt=SALT,
        policy=ServingPolicy(**policy),
    )  # type: ignore[arg-type]


def message(change: Callable[[PredictRequest], object]) -> bytes:
    """A good call, changed."""
    request = predict_request(1, 2, 3)
    change(request)
    return request.SerializeToString()


BAD: dict[str, tuple[bytes, grpc.StatusCode, str]] = {
    "random bytes": (bytes(range(7, 91)), INVALID, "are not a turnout"),
    "truncated": (predict_request(1, 2, 3).SerializeToString()[:-3], INVALID, "are not a turnout"),
    "empty": (b"", INVALID, "name is 0 bytes"),
    "invalid UTF-8 model": (b"\x0a\x02\xff\xfe", INVALID, "UTF-8"),
    "10 kB model name": (message(lambda r: setattr(r, "model", "m" * 10_000)), INVALID, "10000 b"),
    "a path as model": (message(lambda r: setattr(r, "model", "../etc")), INVALID, "odd char"),
    "NUL in model": (message(lambda r: setattr(r, "model", "ch\0rn")), INVALID, "odd char"),
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
        message(lambda r: setattr(r, "sticky_key", "s" * 10_000)),
        INVALID,
        "sticky_key is 10000 bytes",
    ),
    "10 kB request id": (
        message(lambda r: setattr(r, "request_id", "s" * 10_000)),
        INVALID,
        "request_id is 10000 bytes",
    ),
    "line break in request id": (
        message(lambda r: setattr(r, "request_id", "a\r\nb")),
        INVALID,
        "control character",
    ),
    "10 kB version": (
        message(lambda r: setattr(r, "version", "v" * 10_000)),
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
    "no key": (message(lambda r: r.rows[0].ClearField("keys")), INVALID, "0 keys; .* takes 1"),
    "two keys": (message(lambda r: r.rows[0].keys.append("x")), INVALID, "2 keys; .* takes 1"),
    "both inputs and named": (message(lambda r: r.rows[0].named.update(f0=1.0)), INVALID, "both"),
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
        message(lambda r: setattr(r, "contract", GUARD ^ 1)),
        grpc.StatusCode.FAILED_PRECONDITION,
        "input contract",
    ),
    "unknown model": (
        message(lambda r: setattr(r, "model", "fraud")),
        grpc.StatusCode.NOT_FOUND,
        "'fraud' is not served",
    ),
    "unknown pin": (
        message(lambda r: setattr(r, "version", "99")),
        grpc.StatusCode.NOT_FOUND,
        "'99' is not in the deployment",
    ),
}


@pytest.mark.walk
def test_each_bad_call_gets_its_status_while_its_neighbours_are_answered() -> None:
    """27 kinds of bad calls, each sent together with three good ones."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, deployment()) as gateway:
            for name, (raw, code, words) in BAD.items():
                neighbours = [
                    gateway.predict(predict_request(1, 2, 3, key=f"S{n}")) for n in range(3)
                ]
                error, *replies = await asyncio.gather(gateway.refusal(raw), *neighbours)
                assert error.code() == code, name
                assert_told(error, words, name)
                for reply in replies:
                    assert [round(score, 4) for score in reply.scores] == [1.4], name
            assert gateway.faults == []
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


def assert_told(error: grpc.aio.AioRpcError, words: str, name: str) -> None:
    """The caller read our words, at most 300 bytes of them, and nothing internal."""
    details = error.details() or ""
    assert re.search(words, details), f"{name}: {details}"
    assert len(details) <= 300, name
    assert [word for word in OURS if word in details] == [], name


@pytest.mark.walk
def test_a_message_beyond_4_mb_is_resource_exhausted_and_the_connection_lives() -> None:
    """5 MB refused; the next call on the same channel is answered."""

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, deployment()) as gateway:
            error = await gateway.refusal(bytes(5 * 1024 * 1024))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await gateway.predict(predict_request(1, 2, 3))).version == "1"

    asyncio.run(walk())


@pytest.mark.walk
def test_a_deadline_that_has_passed_reaches_no_model() -> None:
    """No time left: no version counted a call. By hand: clients round up to 1 ms, and by then
    an answer may be there; so does grpcio's server with what is shorter than that.
    """

    def hurry(port: int, timeout: bytes) -> None:
        wire = RawConnection(port)
        block = call_header_block(more=((b"grpc-timeout", timeout),))
        body = raw_frame(DATA, END_STREAM, 1, framed(predict_request(1, 2, 3).SerializeToString()))
        wire.send(raw_frame(HEADERS, END_HEADERS, 1, block) + body)
        while not (wire.ended_streams or wire.reset_streams):
            assert wire.read(5.0)
        wire.close()

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files()}, deployment()) as gateway:
            await asyncio.to_thread(hurry, gateway.port, b"0u")
            await gateway.predict(predict_request(1, 2, 3))
            assert gateway.window("PRODUCTION").calls.answered == 1

    asyncio.run(walk())


@pytest.mark.walk
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_inputs_are_the_models_policy(value: float) -> None:
    """Refused where the policy says so; else passed on, and a NaN score is INTERNAL."""

    async def walk(gateway: GatewayFixture, code: grpc.StatusCode) -> None:
        error, reply = await asyncio.gather(
            gateway.refusal(predict_request(value, 2, 3)), gateway.predict(predict_request(1, 2, 3))
        )
        assert error.code() == code
        assert round(reply.scores[0], 4) == 1.4

    async def both() -> None:
        async with gateway_fixture(
            {"1": tiny_files()}, deployment(nan_inputs_refused=True)
        ) as gateway:
            await walk(gateway, INVALID)
        async with gateway_fixture({"1": tiny_files()}, deployment()) as gateway:
            await walk(gateway, grpc.StatusCode.INTERNAL)

    asyncio.run(both())


@pytest.mark.walk
def test_a_default_score_stands_in_for_nan_where_the_policy_says_so() -> None:
    """.25 instead of NaN, flagged DEFAULTED (4)."""

    async def walk() -> None:
        policy = deployment(nan_scores_defaulted=True, default_score=0.25)
        async with gateway_fixture({"1": tiny_files()}, policy) as gateway:
            reply = await gateway.predict(predict_request(math.nan, 2, 3))
            assert (list(reply.scores), list(reply.row_flags)) == ([0.25], [4])

    asyncio.run(walk())


@pytest.mark.walk
def test_one_poisoned_row_fails_its_caller_alone() -> None:
    """40 calls of which one makes ONNX Runtime raise: 39 answers, one INTERNAL with an id."""

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
def test_a_call_without_a_message_ends_within_body_ms_max() -> None:
    """A half-open call, and one that closes without a message: both ended, nothing held."""

    async def silent(gateway: GatewayFixture) -> grpc.StatusCode:
        call = gateway.channel.stream_unary("/turnout.v1.Predictor/Predict")()
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code()
        raise AssertionError("answered")

    async def walk() -> None:
        limits = Settings(message_ms_max=100)
        async with gateway_fixture({"1": tiny_files()}, deployment(), settings=limits) as gateway:
            assert await silent(gateway) == grpc.StatusCode.DEADLINE_EXCEEDED
            ended = gateway.channel.stream_unary("/turnout.v1.Predictor/Predict")(iter(()))
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await ended
            assert raised.value.code() == INVALID
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


@pytest.mark.walk
def test_more_rows_than_the_house_holds_are_unavailable_with_a_pushback() -> None:
    """20 calls of 64 rows into a worker that holds 512: some refused at once, the rest answered."""

    async def walk() -> None:
        small = Settings(rows_inside_max=512, rows_call_max=64, batch_rows_max=64)
        async with gateway_fixture({"1": tiny_files()}, deployment(), settings=small) as gateway:
            calls = [gateway.predict(predict_request(1, 2, 3, rows=64)) for _ in range(40)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            refused = [e for e in ended if isinstance(e, grpc.aio.AioRpcError)]
            for error in refused:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                pushback = dict(error.trailing_metadata() or ())["grpc-retry-pushback-ms"]
                assert pushback == "100"
            assert len(refused) < 40
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


@examples(300)
@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_but_a_refusal(raw: bytes) -> None:
    """Random bytes through parse and decode: a call, or a RefusedError."""
    refused = Code.INVALID_ARGUMENT
    try:
        decode_predict(parse_predict(raw), {"churn": SHAPE}, LIMITS)
    except RefusedError as error:
        refused = error.refusal.code
    assert refused in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)


@examples(300)
@given(st.integers(0, 400), st.integers(0, 255))
def test_a_good_call_with_one_byte_changed_is_a_call_or_a_refusal(place: int, value: int) -> None:
    """One byte of a call of five rows, set to anything."""
    raw = bytearray(
        predict_request(1, 2, 3, key="S0000042", rows=5, request_id="r-1").SerializeToString()
    )
    raw[place % len(raw)] = value
    try:
        call = decode_predict(parse_predict(bytes(raw)), {"churn": SHAPE}, LIMITS)
        assert len(call.inputs) == 3 * call.rows
        assert len(call.ids) == call.rows
    except RefusedError:
        pass


def test_named_inputs_take_defaults_and_dictionary_codes() -> None:
    """f1 by text: "b" is code 1, an unknown category code 2; what is left out takes its default."""
    rows = [Row(keys=["S"], named={"f0": 7.0}, named_text={"f1": text}) for text in ("b", "zzz")]
    call = decode_predict(PredictRequest(model="churn", rows=rows), {"churn": SHAPE}, LIMITS)
    assert call.inputs == [7.0, 1, 0.0, 7.0, 2, 0.0]
