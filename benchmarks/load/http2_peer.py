"""A small HTTP/2 client for tests and load runs, built on the h2 package.

`Http2Peer` is one connection that sends unary gRPC calls whose bytes are prepared. It follows what
the server announces (MAX_CONCURRENT_STREAMS, GOAWAY, flow control), and it never retries by itself.
A call costs this process some 100 us of CPU, where grpcio's client takes 250 us.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame

CONNECTION_BROKEN = -1
"""Not a gRPC status: the stream or the connection ended without one."""
UNPROCESSED = -2
"""Not a gRPC status: the server has not looked at the call (REFUSED_STREAM, or GOAWAY with a lower
last stream). Every gRPC client sends such a call again."""

RECEIVE_WINDOW = 2**30
"""Bytes that the server may send before this client acknowledges them."""
MESSAGE_BYTES_MAX = 16_384
"""Prepared messages are at most one DATA frame."""


def grpc_message(body: bytes) -> bytes:
    """Return *body* as an uncompressed gRPC message: a flag byte, four bytes of length, *body*."""
    return struct.pack(">BL", 0, len(body)) + body


class PreparedCall:
    """The headers and the message of one kind of call. Raises ValueError above 16 kB."""

    def __init__(self, path: str, body: bytes, timeout_ms: int) -> None:
        self.message = grpc_message(body)
        if len(self.message) > MESSAGE_BYTES_MAX:
            raise ValueError(
                f"the message has {len(self.message)} bytes; a call of this client has at most "
                f"{MESSAGE_BYTES_MAX}: use benchmarks/loadgen for larger ones"
            )
        self.headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"127.0.0.1"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-timeout", f"{timeout_ms}m".encode()),
        ]


class _ConnectionThatDrains(H2Connection):
    """An h2 connection that stays open for the calls in flight after the server's GOAWAY.

    h2 refuses every frame after a GOAWAY. RFC 9113, 6.8, lets the streams up to the last one end.
    """

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        event.error_code = frame.error_code
        return [], [event]


OnEnded = Callable[[int, int], None]
"""on_ended(token, status): a call is over. The status is a gRPC status or one of the two above."""


class Http2Peer(asyncio.Protocol):
    """One client connection. `on_room` is called when it may take further calls, or none ever."""

    def __init__(self, on_ended: OnEnded, on_room: Callable[["Http2Peer"], None]) -> None:
        self._on_ended = on_ended
        self._on_room = on_room
        self._transport: asyncio.Transport | None = None
        # The gateway is what is tested here: h2 need not check the headers of either side.
        self._h2 = _ConnectionThatDrains(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            },
        )
        self._unacknowledged_bytes = 0
        self._open_calls: dict[int, int] = {}
        """Stream -> token."""
        self.streams_max = 0
        """0 until the server's SETTINGS came."""
        self.goaway_received = False
        """The server takes no new calls here."""
        self.connection_is_lost = False

    @property
    def free_streams(self) -> int:
        """Calls that may be sent now: by the server's stream limit and by its flow control."""
        if self.goaway_received or self.connection_is_lost:
            return 0
        calls_by_window = self._h2.outbound_flow_control_window // MESSAGE_BYTES_MAX
        return min(self.streams_max - len(self._open_calls), calls_by_window)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the connection preface; answers are never held back by our flow control."""
        self._transport = cast("asyncio.Transport", transport)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(RECEIVE_WINDOW)
        self._flush()

    def send(self, call: PreparedCall, token: int) -> int:
        """Send *call* and return its stream, which `cancel` takes. Needs `free_streams` > 0."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, call.headers)
        self._h2.send_data(stream, call.message, end_stream=True)
        self._open_calls[stream] = token
        self._flush()
        return stream

    def cancel(self, stream: int) -> bool:
        """Cancel a call, as a client does at its deadline; False when the call is over already."""
        if self._open_calls.pop(stream, None) is None:
            return False
        self._h2.reset_stream(stream, ErrorCodes.CANCEL)
        self._flush()
        return True

    def close(self) -> None:
        """Abort the connection; calls that are open end as CONNECTION_BROKEN."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End every open call as CONNECTION_BROKEN."""
        del exc
        self.connection_is_lost = True
        self._transport = None
        for stream in list(self._open_calls):
            self._end(stream, CONNECTION_BROKEN)
        self._on_room(self)

    def data_received(self, data: bytes) -> None:
        """Read frames, end the calls that they end, and acknowledge."""
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self.close()
            return
        for event in events:
            self._on_event(event)
        if self._unacknowledged_bytes > RECEIVE_WINDOW // 4:
            self._h2.increment_flow_control_window(self._unacknowledged_bytes)
            self._unacknowledged_bytes = 0
        self._flush()
        if self.free_streams > 0 or self.goaway_received:
            self._on_room(self)

    def _on_event(self, event: Event) -> None:
        match event:
            case DataReceived():
                self._unacknowledged_bytes += event.flow_controlled_length or 0
            case ResponseReceived() | TrailersReceived():
                if event.stream_ended is not None:
                    status = dict(event.headers or ()).get(b"grpc-status", CONNECTION_BROKEN)
                    self._end(event.stream_id, int(status))
            case StreamReset():
                refused = event.error_code == ErrorCodes.REFUSED_STREAM
                self._end(event.stream_id, UNPROCESSED if refused else CONNECTION_BROKEN)
            case RemoteSettingsChanged():
                self.streams_max = self._h2.remote_settings.max_concurrent_streams
            case ConnectionTerminated():
                self.goaway_received = True
                last_stream = event.last_stream_id or 0
                for stream in [stream for stream in self._open_calls if stream > last_stream]:
                    self._end(stream, UNPROCESSED)

    def _end(self, stream: int | None, status: int) -> None:
        token = self._open_calls.pop(stream or 0, None)
        if token is not None:
            self._on_ended(token, status)

    def _flush(self) -> None:
        content = self._h2.data_to_send()
        if content and self._transport is not None:
            self._transport.write(content)
