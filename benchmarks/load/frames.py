"""A gRPC client made of frames: some 10 us of CPU a call, where grpcio's takes 250.

Only what load needs: unary calls whose bytes are prepared, on plain HTTP/2 over TCP. It keeps to
what the server announces (MAX_CONCURRENT_STREAMS, GOAWAY) as any gRPC client does, and never
retries by itself. Responses are not decoded beyond grpc-status.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
WINDOW = 2**30
REFUSED_STREAM, CANCEL = 7, 8

GRPC_OK, GRPC_CANCELLED, GRPC_INVALID_ARGUMENT, GRPC_DEADLINE_EXCEEDED, GRPC_UNAVAILABLE = (
    0,
    1,
    3,
    4,
    14,
)
CONNECTION_BROKEN, UNPROCESSED = -1, -2
"""Statuses of ours: the stream or connection ended without one; the server has not looked at the
call (REFUSED_STREAM, or GOAWAY with a lower last stream), so every gRPC client sends it again."""


def http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    length = len(payload)
    return struct.pack(">BHBBL", length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def header_literal(name: bytes, value: bytes) -> bytes:
    """One header, never indexed, no Huffman; both under 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class PreparedCall:
    """The prepared bytes of one kind of call: only the stream's number is filled in."""

    def __init__(self, path: str, message: bytes, timeout_ms: int) -> None:
        headers = b"".join(
            [
                b"\x83\x86",  # :method POST, :scheme http
                header_literal(b":path", path.encode()),
                header_literal(b":authority", b"127.0.0.1"),
                header_literal(b"te", b"trailers"),
                header_literal(b"content-type", b"application/grpc"),
                header_literal(b"grpc-timeout", f"{timeout_ms}m".encode()),
            ]
        )
        body = struct.pack(">BL", 0, len(message)) + message
        self.timeout_s = timeout_ms / 1e3
        self._parts = (
            http2_frame(HEADERS, END_HEADERS, 0, headers)[:5],
            headers + http2_frame(DATA, END_STREAM, 0, body)[:5],
            body,
        )

    def frames_on(self, stream: int) -> bytes:
        """The call's frames on *stream*."""
        number = stream.to_bytes(4, "big")
        first, second, third = self._parts
        return b"".join((first, number, second, number, third))


OnEnded = Callable[[int, int], None]
"""ended(token, status): a call is over."""


class FrameConnection(asyncio.Protocol):
    """One connection. `room` says how many more calls it takes now."""

    def __init__(self, on_ended: OnEnded, on_room: Callable[["FrameConnection"], None]) -> None:
        self._on_ended = on_ended
        self._on_room = on_room
        self._transport: asyncio.Transport | None = None
        self._unsent = bytearray()
        self._unacknowledged = 0
        self._next = 1
        self._open_calls: dict[int, int] = {}
        """Stream -> token."""
        self.streams_max = 0
        """0 until the server has spoken."""
        self.goaway_received = False
        """GOAWAY came: no new calls here."""
        self.connection_is_lost = False

    @property
    def free_streams(self) -> int:
        """Calls it takes now."""
        if self.goaway_received or self.connection_is_lost:
            return 0
        return self.streams_max - len(self._open_calls)

    @property
    def idle(self) -> bool:
        """Whether no call is open."""
        return not self._open_calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves. A header table of 0 keeps responses readable without HPACK."""
        self._transport = cast("asyncio.Transport", transport)
        settings = ((HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, WINDOW))
        hello = b"".join(struct.pack(">HL", *one) for one in settings)
        window = http2_frame(WINDOW_UPDATE, 0, 0, WINDOW.to_bytes(4, "big"))
        self._transport.write(PREFACE + http2_frame(SETTINGS, 0, 0, hello) + window)

    def send(self, call: PreparedCall, token: int) -> int:
        """Send *call*; returns its stream, to cancel it by."""
        assert self._transport is not None
        stream, self._next = self._next, self._next + 2
        self._open_calls[stream] = token
        self._transport.write(call.frames_on(stream))
        return stream

    def cancel(self, stream: int) -> bool:
        """Cancel a call, as a client does at its deadline; False when it is over already."""
        if self._open_calls.pop(stream, None) is None:
            return False
        if self._transport is not None:
            self._transport.write(http2_frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
        return True

    def close(self) -> None:
        """End the connection; calls still open are BROKEN."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Every call on it is over."""
        del exc
        self.connection_is_lost = True
        self._transport = None
        opened, self._open_calls = self._open_calls, {}
        for token in opened.values():
            self._on_ended(token, CONNECTION_BROKEN)
        self._on_room(self)

    def data_received(self, data: bytes) -> None:
        """Read whole frames."""
        waiting = self._unsent
        waiting += data
        start, size = 0, len(waiting)
        while size - start >= 9:
            length = waiting[start] << 16 | waiting[start + 1] << 8 | waiting[start + 2]
            end = start + 9 + length
            if end > size:
                break
            kind, flags = waiting[start + 3], waiting[start + 4]
            stream = int.from_bytes(waiting[start + 5 : start + 9], "big") & 0x7FFFFFFF
            self._frame(kind, flags, stream, waiting[start + 9 : end])
            start = end
        del waiting[:start]
        self._acknowledge()
        if self.free_streams > 0 or self.goaway_received:
            self._on_room(self)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytearray) -> None:
        if kind == DATA:
            self._unacknowledged += len(payload)
        elif kind == HEADERS:
            if flags & END_STREAM:
                self._end(stream, grpc_status_of(payload))
        elif kind == RST_STREAM:
            refused = int.from_bytes(payload, "big") == REFUSED_STREAM
            self._end(stream, UNPROCESSED if refused else CONNECTION_BROKEN)
        elif kind == SETTINGS and not flags & ACK:
            self._on_settings(payload)
        elif kind == PING and not flags & ACK and self._transport is not None:
            self._transport.write(http2_frame(PING, ACK, 0, bytes(payload)))
        elif kind == GOAWAY:
            self._on_goaway(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF)

    def _end(self, stream: int, status: int) -> None:
        token = self._open_calls.pop(stream, None)
        if token is not None:
            self._on_ended(token, status)

    def _on_settings(self, payload: bytearray) -> None:
        self.streams_max = self.streams_max or 2**31 - 1
        for name, value in struct.iter_unpack(">HL", payload):
            if name == MAX_CONCURRENT_STREAMS:
                self.streams_max = value
        if self._transport is not None:
            self._transport.write(http2_frame(SETTINGS, ACK, 0, b""))

    def _on_goaway(self, last_stream: int) -> None:
        self.goaway_received = True
        unseen = [stream for stream in self._open_calls if stream > last_stream]
        for stream in unseen:
            self._end(stream, UNPROCESSED)

    def _acknowledge(self) -> None:
        if self._unacknowledged > WINDOW // 4 and self._transport is not None:
            step = self._unacknowledged.to_bytes(4, "big")
            self._transport.write(http2_frame(WINDOW_UPDATE, 0, 0, step))
            self._unacknowledged = 0


STATUS_NAMES = (b"grpc-status", bytes.fromhex("889acac8b21234da8f"))
"""As grpcio writes the name, and as nghttp2 does: Huffman-coded, after its length."""


def grpc_status_of(headers: bytes | bytearray) -> int:
    """grpc-status of a header block written without the table; BROKEN when it has none.

    Its value is a digit or two, which nobody writes in Huffman's code: it would not be shorter.
    """
    for name in STATUS_NAMES:
        at = headers.find(name)
        if at >= 0:
            first = at + len(name) + 1
            return int(headers[first : first + headers[first - 1]])
    return CONNECTION_BROKEN
