"""gRPC's interoperability cases as Python's own client runs them: names and numbers are theirs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from tests.interop.service import ECHO_INITIAL, ECHO_TRAILING, SERVICE, message_class, zero_payload

SIZES_OUT = (31_415, 9, 2_653, 58_979)
SIZES_IN = (27_182, 8, 1_828, 45_904)
LARGE_IN, LARGE_OUT = 271_828, 314_159
TIMEOUT_S = 10.0
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"

Channel = grpc.aio.Channel


class Stub:
    """The test service's methods on one channel."""

    def __init__(self, channel: Channel) -> None:
        def of(kind: Any, name: str, gives: str, service: str = SERVICE) -> Any:  # noqa: ANN401
            return kind(
                f"/{service}/{name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=message_class(gives).FromString,
            )

        out, unary = "StreamingOutputCallResponse", channel.unary_unary
        self.empty = of(unary, "EmptyCall", "Empty")
        self.unary = of(unary, "UnaryCall", "SimpleResponse")
        self.output = of(channel.unary_stream, "StreamingOutputCall", out)
        self.input = of(channel.stream_unary, "StreamingInputCall", "StreamingInputCallResponse")
        self.duplex = of(channel.stream_stream, "FullDuplexCall", out)
        self.no_method = of(unary, "UnimplementedCall", "Empty")
        nobody = "grpc.testing.UnimplementedService"
        self.no_service = of(unary, "UnimplementedCall", "Empty", nobody)


def _parts(*sizes: int, messages: int = 0) -> Any:  # noqa: ANN401
    parts = [message_class("ResponseParameters")(size=size) for size in sizes]
    return message_class("StreamingOutputCallRequest")(
        response_parameters=parts, payload=zero_payload(messages)
    )


async def call_error(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """Return the error that *call* ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was answered")


async def empty_unary(stub: Stub) -> None:
    """Nothing for nothing."""
    assert await stub.empty(message_class("Empty")()) == message_class("Empty")()


async def large_unary(stub: Stub) -> None:
    """Bodies that cross HTTP/2's frames and first windows."""
    request = message_class("SimpleRequest")(
        response_size=LARGE_OUT, payload=zero_payload(LARGE_IN)
    )
    assert (await stub.unary(request)).payload.body == bytes(LARGE_OUT)


async def client_streaming(stub: Stub) -> None:
    """Four messages in, their sum out."""

    async def requests() -> AsyncIterator[Any]:
        for size in SIZES_IN:
            yield message_class("StreamingInputCallRequest")(payload=zero_payload(size))

    assert (await stub.input(requests())).aggregated_payload_size == sum(SIZES_IN)


async def server_streaming(stub: Stub) -> None:
    """One message in, four out, in order."""
    sizes = [len(reply.payload.body) async for reply in stub.output(_parts(*SIZES_OUT))]
    assert sizes == list(SIZES_OUT)


async def ping_pong(stub: Stub) -> None:
    """Each answer before the next question."""
    call = stub.duplex()
    for asked, sent in zip(SIZES_OUT, SIZES_IN, strict=True):
        await call.write(_parts(asked, messages=sent))
        assert len((await call.read()).payload.body) == asked
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def empty_stream(stub: Stub) -> None:
    """No message either way, and a good end."""
    call = stub.duplex()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def custom_metadata(stub: Stub) -> None:
    """Text comes back before the answer, bytes after it; unary and streamed."""
    text, raw = "test_initial_metadata_value", b"\xab\xab\xab"
    metadata = ((ECHO_INITIAL, text), (ECHO_TRAILING, raw))
    request = message_class("SimpleRequest")(
        response_size=LARGE_OUT, payload=zero_payload(LARGE_IN)
    )
    unary = stub.unary(request, metadata=metadata)
    await unary
    duplex = stub.duplex(metadata=metadata)
    await duplex.write(_parts(LARGE_OUT, messages=LARGE_IN))
    await duplex.read()
    await duplex.done_writing()
    assert await duplex.read() is grpc.aio.EOF
    for call in (unary, duplex):
        assert dict(await call.initial_metadata())[ECHO_INITIAL] == text
        assert dict(await call.trailing_metadata())[ECHO_TRAILING] == raw


async def _status(stub: Stub, code: grpc.StatusCode, details: str) -> None:
    status = message_class("EchoStatus")(code=code.value[0], message=details)
    error = await call_error(stub.unary(message_class("SimpleRequest")(response_status=status)))
    assert (error.code(), error.details()) == (code, details)
    call = stub.duplex()
    await call.write(message_class("StreamingOutputCallRequest")(response_status=status))
    await call.done_writing()
    assert (await call.code(), await call.details()) == (code, details)


async def status_code_and_message(stub: Stub) -> None:
    """A status arrives as it was given; unary and streamed."""
    await _status(stub, grpc.StatusCode.UNKNOWN, "test status message")


async def special_status_message(stub: Stub) -> None:
    """So do words that need percent-encoding."""
    status = message_class("EchoStatus")(code=2, message=SPECIAL)
    error = await call_error(stub.unary(message_class("SimpleRequest")(response_status=status)))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, SPECIAL)


async def unimplemented_method(stub: Stub) -> None:
    """A method that the service lacks."""
    assert (await call_error(stub.no_method(message_class("Empty")()))).code() is UNIMPLEMENTED


async def unimplemented_service(stub: Stub) -> None:
    """A service that nobody has."""
    assert (await call_error(stub.no_service(message_class("Empty")()))).code() is UNIMPLEMENTED


async def cancel_after_begin(stub: Stub) -> None:
    """Cancelled before the first message."""
    call = stub.input()
    await call.wait_for_connection()
    assert call.cancel()
    assert await call.code() == grpc.StatusCode.CANCELLED


async def cancel_after_first_response(stub: Stub) -> None:
    """Cancelled in the middle of a conversation."""
    call = stub.duplex()
    await call.write(_parts(SIZES_OUT[0], messages=SIZES_IN[0]))
    assert len((await call.read()).payload.body) == SIZES_OUT[0]
    assert call.cancel()
    assert await call.code() == grpc.StatusCode.CANCELLED


ACCEPTED_TIMEOUT_ENDS, OVERTAKEN_MAX = (grpc.StatusCode.INTERNAL, "Internal error from Core"), 10
"""What grpc.aio makes up, before it reads the status, when a call ends while it writes to it: 27 of
1,000 calls of a millisecond behind the native door, 1 of 500 behind grpcio's."""


async def timeout_on_sleeping_server(stub: Stub) -> None:
    """A deadline of a millisecond, and a server that never answers."""
    for _ in range(OVERTAKEN_MAX):
        call = stub.duplex(timeout=0.001)
        try:
            await call.write(
                message_class("StreamingOutputCallRequest")(payload=zero_payload(27_182))
            )
            await call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # it ended before the message was on its way
        said = (await call.code(), await call.details())
        if said != ACCEPTED_TIMEOUT_ENDS:
            break
    assert said[0] == grpc.StatusCode.DEADLINE_EXCEEDED, said


UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

CASES: dict[str, Callable[[Stub], Awaitable[None]]] = {
    case.__name__: case
    for case in (
        empty_unary,
        large_unary,
        client_streaming,
        server_streaming,
        ping_pong,
        empty_stream,
        status_code_and_message,
        special_status_message,
        custom_metadata,
        unimplemented_method,
        unimplemented_service,
        cancel_after_begin,
        cancel_after_first_response,
        timeout_on_sleeping_server,
    )
}
