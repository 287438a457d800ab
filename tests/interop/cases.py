"""gRPC's interoperability cases for Python's client, with gRPC's own names and numbers."""

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
        def method(kind: Any, name: str, reply: str, service: str = SERVICE) -> Any:  # noqa: ANN401
            return kind(
                f"/{service}/{name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=message_class(reply).FromString,
            )

        out, unary = "StreamingOutputCallResponse", channel.unary_unary
        self.empty = method(unary, "EmptyCall", "Empty")
        self.unary = method(unary, "UnaryCall", "SimpleResponse")
        self.output = method(channel.unary_stream, "StreamingOutputCall", out)
        self.input = method(
            channel.stream_unary, "StreamingInputCall", "StreamingInputCallResponse"
        )
        self.duplex = method(channel.stream_stream, "FullDuplexCall", out)
        self.no_method = method(unary, "UnimplementedCall", "Empty")
        missing_service = "grpc.testing.UnimplementedService"
        self.no_service = method(unary, "UnimplementedCall", "Empty", missing_service)


def _parts(*sizes: int, messages: int = 0) -> Any:  # noqa: ANN401
    parts = [message_class("ResponseParameters")(size=size) for size in sizes]
    return message_class("StreamingOutputCallRequest")(
        response_parameters=parts, payload=zero_payload(messages)
    )


async def call_error(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """Return the error with which *call* ends. Raises AssertionError when it succeeds."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was answered")


async def empty_unary(stub: Stub) -> None:
    """An empty message is answered with an empty message."""
    assert await stub.empty(message_class("Empty")()) == message_class("Empty")()


async def large_unary(stub: Stub) -> None:
    """Messages larger than an HTTP/2 frame and the initial window arrive whole."""
    request = message_class("SimpleRequest")(
        response_size=LARGE_OUT, payload=zero_payload(LARGE_IN)
    )
    assert (await stub.unary(request)).payload.body == bytes(LARGE_OUT)


async def client_streaming(stub: Stub) -> None:
    """The sizes of four streamed messages are added up."""

    async def requests() -> AsyncIterator[Any]:
        for size in SIZES_IN:
            yield message_class("StreamingInputCallRequest")(payload=zero_payload(size))

    assert (await stub.input(requests())).aggregated_payload_size == sum(SIZES_IN)


async def server_streaming(stub: Stub) -> None:
    """One request is answered with four messages, in order."""
    sizes = [len(reply.payload.body) async for reply in stub.output(_parts(*SIZES_OUT))]
    assert sizes == list(SIZES_OUT)


async def ping_pong(stub: Stub) -> None:
    """Each message is answered before the next is sent."""
    call = stub.duplex()
    for response_size, sent_size in zip(SIZES_OUT, SIZES_IN, strict=True):
        await call.write(_parts(response_size, messages=sent_size))
        assert len((await call.read()).payload.body) == response_size
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def empty_stream(stub: Stub) -> None:
    """A stream without messages ends with OK."""
    call = stub.duplex()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def custom_metadata(stub: Stub) -> None:
    """Metadata comes back: text as initial, bytes as trailing; for unary and streamed calls."""
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
    """A status arrives with its code and message, for unary and streamed calls."""
    await _status(stub, grpc.StatusCode.UNKNOWN, "test status message")


async def special_status_message(stub: Stub) -> None:
    """A status message arrives whole that needs percent-encoding."""
    status = message_class("EchoStatus")(code=2, message=SPECIAL)
    error = await call_error(stub.unary(message_class("SimpleRequest")(response_status=status)))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, SPECIAL)


async def unimplemented_method(stub: Stub) -> None:
    """A method that the service lacks is UNIMPLEMENTED."""
    assert (await call_error(stub.no_method(message_class("Empty")()))).code() is UNIMPLEMENTED


async def unimplemented_service(stub: Stub) -> None:
    """A service that is not there is UNIMPLEMENTED."""
    assert (await call_error(stub.no_service(message_class("Empty")()))).code() is UNIMPLEMENTED


async def cancel_after_begin(stub: Stub) -> None:
    """A call cancelled before its first message is CANCELLED."""
    call = stub.input()
    await call.wait_for_connection()
    assert call.cancel()
    assert await call.code() == grpc.StatusCode.CANCELLED


async def cancel_after_first_response(stub: Stub) -> None:
    """A call cancelled after the first reply is CANCELLED."""
    call = stub.duplex()
    await call.write(_parts(SIZES_OUT[0], messages=SIZES_IN[0]))
    assert len((await call.read()).payload.body) == SIZES_OUT[0]
    assert call.cancel()
    assert await call.code() == grpc.StatusCode.CANCELLED


ACCEPTED_TIMEOUT_ENDS, OVERTAKEN_MAX = (grpc.StatusCode.INTERNAL, "Internal error from Core"), 10
"""The status that grpc.aio sets itself when a call ends during a write, before it reads the status:
27 of 1,000 calls of a millisecond over the native ingress, 1 of 500 over grpcio's."""


async def timeout_on_sleeping_server(stub: Stub) -> None:
    """A call with a deadline of 1 ms to a server that never answers is DEADLINE_EXCEEDED."""
    for _ in range(OVERTAKEN_MAX):
        call = stub.duplex(timeout=0.001)
        try:
            await call.write(
                message_class("StreamingOutputCallRequest")(payload=zero_payload(27_182))
            )
            await call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the call ended before its message was sent
        status = (await call.code(), await call.details())
        if status != ACCEPTED_TIMEOUT_ENDS:
            break
    assert status[0] == grpc.StatusCode.DEADLINE_EXCEEDED, status


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
