"""Runs gRPC handlers on the native server: health, reflection, and methods that score nothing.

The handlers are those of the grpcio server. A RawCall has the methods of grpc.aio's
ServicerContext that our handlers and those of grpc's own services use.
"""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from gateway.caller import Caller
from gateway.native_library import IngressThread, MetadataPairs
from gateway.status import Code, Refusal, RefusedError
from host.clock import Clock

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Metadata = Iterable[tuple[str, str | bytes]]
RefuseError = Callable[[str, BaseException], Refusal]


class AbortedError(Exception):
    """A handler ended its call with a status, which is sent already."""


class RawCall:
    """The context of one call, for a handler."""

    def __init__(
        self,
        thread: IngressThread,
        number: int,
        metadata: MetadataPairs,
        left_s: Callable[[], float | None],
        caller: Caller,
    ) -> None:
        self.caller = caller
        self._thread = thread
        self._number = number
        self._metadata = metadata
        self._left_s = left_s
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._write_flushed: asyncio.Future[None] | None = None
        self._trailing: MetadataPairs = []
        self._code = Code.OK.value
        self._details = ""
        self._closed = False
        self._half_closed = False
        self._done_callbacks: list[Callable[[Any], None]] = []
        self.serializer: Callable[[Any], bytes] | None = None
        self.deserializer: Callable[[bytes], Any] | None = None

    # Events of the call

    def on_message(self, message: bytes | None) -> None:
        """Take a message of the caller; None after the last one."""
        self._messages.put_nowait(message)

    def on_flushed(self) -> None:
        """Let `write` return, because the transport has sent the message."""
        if self._write_flushed is not None and not self._write_flushed.done():
            self._write_flushed.set_result(None)

    def on_closed(self) -> None:
        """Mark the call as ended, and run its callbacks."""
        self._closed = True
        for callback in self._done_callbacks:
            callback(self)
        self._done_callbacks.clear()

    # Methods for handlers

    async def read(self) -> Any:  # noqa: ANN401  the method's message type
        """Return the next message of the caller, or grpc.aio.EOF after the last one."""
        if self._half_closed:
            return grpc.aio.EOF
        self._thread.request_message(self._number)
        message = await self._messages.get()
        if message is None:
            self._half_closed = True
            return grpc.aio.EOF
        return self.deserialize(message)

    async def read_all(self) -> AsyncIterator[Any]:
        """Yield the messages of the caller until the last one."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def read_request(self) -> Any:  # noqa: ANN401
        """Return the only message of the caller, for a method without request streaming."""
        message = await self._messages.get()
        assert message is not None
        return self.deserialize(message)

    def deserialize(self, message: bytes) -> Any:  # noqa: ANN401
        """Parse a message with the method's deserializer. Raises RefusedError INVALID_ARGUMENT."""
        if self.deserializer is None:
            return message
        try:
            return self.deserializer(message)
        except DecodeError:
            text = f"{len(message)} bytes are not the message that this method takes"
            raise RefusedError(Refusal(Code.INVALID_ARGUMENT, text)) from None

    async def write(self, reply: Any) -> None:  # noqa: ANN401
        """Send a message, and wait until the transport can take another one."""
        self._write_flushed = asyncio.get_running_loop().create_future()
        self.send(reply)
        await self._write_flushed

    def send(self, reply: Any) -> None:  # noqa: ANN401
        """Send a message without waiting for the transport."""
        message = reply if self.serializer is None else self.serializer(reply)
        self._thread.send_message(self._number, message)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Set the response headers, which are sent with the first message."""
        self._thread.set_headers(self._number, encode_metadata(metadata))

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> None:
        """End the call with a status. Raises AbortedError, which ends the handler."""
        self._trailing += encode_metadata(trailing_metadata)
        self.finish(code.value[0], details)
        raise AbortedError

    def finish(self, code: int | None = None, details: str | None = None) -> None:
        """End the call with a status; the default is the one that the handler has set."""
        if self._closed:
            return
        code = self._code if code is None else code
        details = self._details if details is None else details
        self._thread.end_call(self._number, code, details, self._trailing)
        self.on_closed()

    def finish_with_refusal(self, refusal: Refusal) -> None:
        """End the call with the status and pushback of *refusal*."""
        if refusal.pushback_ms is not None:
            pushback = str(refusal.pushback_ms).encode()
            self._trailing.append((b"grpc-retry-pushback-ms", pushback))
        self.finish(int(refusal.code), refusal.message)

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code with which the call ends when its handler returns."""
        self._code = code.value[0]

    def set_details(self, details: str) -> None:
        """Set the status message with which the call ends when its handler returns."""
        self._details = details

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set the trailing metadata, which is sent with the status."""
        self._trailing = encode_metadata(metadata)

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Return the metadata of the caller."""
        return tuple(decode_metadata(self._metadata))

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None when the caller set none."""
        return self._left_s()

    def cancelled(self) -> bool:
        """Return True if the call has ended before its handler returned."""
        return self._closed

    def done(self) -> bool:
        """Return True if the call has ended."""
        return self._closed

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call *callback* when the call ends."""
        self._done_callbacks.append(callback)


class RawCallServer:
    """All raw calls of one native server."""

    def __init__(
        self,
        thread: IngressThread,
        handlers: Mapping[str, Handler],
        clock: Clock,
        refuse_error: RefuseError,
        caller_of: Callable[[int], Caller],
    ) -> None:
        """Create the server. *caller_of* returns the caller with a number."""
        self._caller_of = caller_of
        self._thread = thread
        self._handlers = handlers
        self._clock = clock
        self._refuse_error = refuse_error
        self._calls: dict[int, tuple[RawCall, asyncio.Task[None]]] = {}

    def handle_events(self, events: Iterable[tuple[Any, ...]]) -> None:
        """Pass events of the I/O thread to their calls."""
        for kind, number, *rest in events:
            if kind == "opened":
                self._start_call(number, *rest)
                continue
            call, task = self._calls.get(number, (None, None))
            if call is None or task is None:
                continue
            if kind == "message":
                call.on_message(rest[0])
            elif kind == "ended":
                call.on_message(None)
            elif kind == "flushed":
                call.on_flushed()
            else:
                call.on_closed()
                task.cancel()

    async def cancel_all(self) -> None:
        """Cancel the handlers that still run. Their connections are closed already."""
        tasks = [task for _, task in self._calls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start_call(
        self, number: int, path: str, metadata: MetadataPairs, deadline_ns: int, caller: int
    ) -> None:
        def left_s() -> float | None:
            return (deadline_ns - self._clock.now_ns()) / 1e9 if deadline_ns else None

        call = RawCall(self._thread, number, metadata, left_s, self._caller_of(caller))
        task = asyncio.get_running_loop().create_task(self._serve(self._handlers[path], call))
        self._calls[number] = (call, task)
        task.add_done_callback(lambda _: self._calls.pop(number, None))

    async def _serve(self, handler: Handler, call: RawCall) -> None:
        call.serializer = handler.response_serializer
        call.deserializer = handler.request_deserializer
        try:
            await run_handler(handler, call)
        except AbortedError:
            return
        except asyncio.CancelledError:
            call.on_closed()
            return
        except Exception as error:  # noqa: BLE001  nothing internal reaches a caller
            call.finish_with_refusal(self._refuse_error("", error))
            return
        call.finish()


async def run_handler(handler: Handler, call: RawCall) -> None:
    """Run a handler of any of gRPC's four kinds for one call."""
    behavior: Any = (
        (handler.stream_stream if handler.response_streaming else handler.stream_unary)
        if handler.request_streaming
        else (handler.unary_stream if handler.response_streaming else handler.unary_unary)
    )
    request = call.read_all() if handler.request_streaming else await call.read_request()
    result: AsyncIterator[Any] | Awaitable[Any] = behavior(request, call)
    if not handler.response_streaming:
        assert isinstance(result, Awaitable)
        call.send(await result)
    elif isinstance(result, AsyncIterator):
        async for reply in result:
            await call.write(reply)
    else:
        await result


def encode_metadata(metadata: Metadata) -> MetadataPairs:
    """Return metadata as it is sent: values of "-bin" names in base64."""
    return [
        (
            name.encode(),
            b64encode(value).rstrip(b"=")
            if name.endswith("-bin") and isinstance(value, bytes)
            else value.encode()
            if isinstance(value, str)
            else value,
        )
        for name, value in metadata
    ]


def decode_metadata(pairs: MetadataPairs) -> Iterable[tuple[str, str | bytes]]:
    """Yield metadata in the form of grpc.aio: values of "-bin" names as bytes."""
    for name, value in pairs:
        if name.endswith(b"-bin"):
            for item in value.split(b","):
                yield name.decode(), b64decode(item + b"=" * (-len(item) % 4))
        else:
            yield name.decode(), value.decode("latin-1")
