"""The HTTP/2 test peer against h2's own server: how calls end, and which rules it keeps."""

import asyncio
from typing import cast

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PingAckReceived, RequestReceived, SettingsAcknowledged
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from benchmarks.load.http2_peer import (
    CONNECTION_BROKEN,
    UNPROCESSED,
    Http2Peer,
    PreparedCall,
    grpc_message,
)
from benchmarks.load.open_loop import CallerGroup, run_open_loop
from protos.predict_pb2 import PredictRequest

CALL = PreparedCall("/a.B/C", b"question", 1_000)
OK = [(b"grpc-status", b"0")]
NOT_FOUND = [(b"grpc-status", b"5")]
RESPONSE = [(b":status", b"200")]


class ConnectedPeer(asyncio.Transport):
    """A peer whose transport is a list of bytes, and an h2 server that reads them."""

    def __init__(self, streams_max: int = 100) -> None:
        super().__init__()
        self.ended: dict[int, int] = {}
        """Token -> status."""
        self.rooms = 0
        self._written: list[bytes] = []
        self.peer = Http2Peer(self.ended.__setitem__, self._count_room)
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.server.local_settings = Settings(
            client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: streams_max}
        )
        self.server.initiate_connection()
        self.peer.connection_made(self)

    def _count_room(self, peer: Http2Peer) -> None:
        del peer
        self.rooms += 1

    def write(self, data: object) -> None:
        """Keep what the peer sends."""
        self._written.append(cast("bytes", data))

    def abort(self) -> None:
        """End the connection."""
        self.peer.connection_lost(None)

    def to_server(self) -> list[Event]:
        """Give the server what the peer wrote; return the server's events."""
        written, self._written = b"".join(self._written), []
        return self.server.receive_data(written)

    def to_peer(self, *, bytes_at_once: int = 1 << 20) -> None:
        """Give the peer what the server sends, so many bytes at a time."""
        content = self.server.data_to_send()
        for start in range(0, len(content), bytes_at_once):
            self.peer.data_received(content[start : start + bytes_at_once])

    def answer(self, stream: int, trailers: list[tuple[bytes, bytes]] = OK) -> None:
        """Let the server answer a call with a message and *trailers*."""
        self.server.send_headers(stream, RESPONSE)
        self.server.send_data(stream, grpc_message(b"answer"))
        self.server.send_headers(stream, trailers, end_stream=True)


@pytest.fixture
def connected() -> ConnectedPeer:
    """A peer and a server that have exchanged their SETTINGS."""
    connection = ConnectedPeer()
    connection.to_server()
    connection.to_peer()
    return connection


def test_http2_peer_sends_prepared_calls_on_odd_streams(connected: ConnectedPeer) -> None:
    """A call is a header block with gRPC's fields and one message that ends the stream."""
    assert [connected.peer.send(CALL, token) for token in range(2)] == [1, 3]
    events = connected.to_server()
    requests = [event for event in events if isinstance(event, RequestReceived)]
    messages = [event.data for event in events if isinstance(event, DataReceived)]
    assert [request.stream_id for request in requests] == [1, 3]
    assert dict(requests[1].headers or ()) == {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/a.B/C",
        b":authority": b"127.0.0.1",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        b"grpc-timeout": b"1000m",
    }
    assert messages == [grpc_message(b"question")] * 2


@pytest.mark.parametrize("bytes_at_once", [1, 1 << 20])
def test_http2_peer_tells_calls_apart_by_how_they_end(
    connected: ConnectedPeer, bytes_at_once: int
) -> None:
    """A status, with or without a message; a reset; a refused stream. Bytes may come cut anyhow."""
    streams = [connected.peer.send(CALL, token) for token in range(5)]
    connected.to_server()
    connected.answer(streams[0])
    connected.answer(streams[1], NOT_FOUND)
    connected.server.send_headers(streams[2], RESPONSE + NOT_FOUND, end_stream=True)
    connected.server.reset_stream(streams[3], ErrorCodes.CANCEL)
    connected.server.reset_stream(streams[4], ErrorCodes.REFUSED_STREAM)
    connected.to_peer(bytes_at_once=bytes_at_once)
    assert connected.ended == {0: 0, 1: 5, 2: 5, 3: CONNECTION_BROKEN, 4: UNPROCESSED}


def test_http2_peer_keeps_to_the_servers_stream_limit() -> None:
    """No stream is free before the SETTINGS came, nor beyond the limit; an end frees a stream."""
    connection = ConnectedPeer(streams_max=2)
    assert connection.peer.free_streams == 0
    connection.to_server()
    connection.to_peer()
    assert connection.peer.free_streams == 2
    first, _ = (connection.peer.send(CALL, token) for token in range(2))
    assert connection.peer.free_streams == 0
    connection.to_server()
    connection.answer(first)
    connection.to_peer()
    assert connection.peer.free_streams == 1
    assert connection.rooms >= 2


def test_http2_peer_waits_for_the_servers_flow_control_window(connected: ConnectedPeer) -> None:
    """After four messages of 16 kB the first 65,535 bytes are used up; an update makes room."""
    large = PreparedCall("/a.B/C", bytes(16_000), 1_000)
    sent = 0
    while connected.peer.free_streams > 0:
        connected.peer.send(large, sent)
        sent += 1
    assert sent == 4
    connected.to_server()
    connected.server.increment_flow_control_window(60_020)
    connected.to_peer()
    assert connected.peer.free_streams > 0
    with pytest.raises(ValueError, match="16384"):
        PreparedCall("/a.B/C", bytes(16_380), 1_000)


def test_http2_peer_acknowledges_settings_and_pings() -> None:
    """A server takes a connection without acknowledgements for dead."""
    connection = ConnectedPeer()
    connection.to_server()
    connection.server.ping(b"12345678")
    connection.to_peer()
    kinds = {type(event) for event in connection.to_server()}
    assert {SettingsAcknowledged, PingAckReceived} <= kinds


def test_http2_peer_lets_calls_end_after_goaway(connected: ConnectedPeer) -> None:
    """Calls up to the last stream are answered; later ones are UNPROCESSED; no new ones start."""
    streams = [connected.peer.send(CALL, token) for token in range(2)]
    connected.to_server()
    connected.peer.data_received(GoAwayFrame(0, last_stream_id=streams[0]).serialize())
    assert connected.ended == {1: UNPROCESSED}
    assert connected.peer.free_streams == 0
    assert connected.peer.goaway_received
    connected.answer(streams[0])
    connected.to_peer()
    assert connected.ended == {0: 0, 1: UNPROCESSED}


def test_http2_peer_forgets_a_cancelled_call(connected: ConnectedPeer) -> None:
    """The answer that crosses the cancellation is ignored; an ended call cannot be cancelled."""
    stream = connected.peer.send(CALL, 0)
    connected.to_server()
    connected.answer(stream)
    assert connected.peer.cancel(stream)
    connected.to_peer()
    assert connected.ended == {}
    assert not connected.peer.cancel(stream)


def test_http2_peer_ends_open_calls_with_the_connection(connected: ConnectedPeer) -> None:
    """Also when the server breaks the protocol."""
    connected.peer.send(CALL, 0)
    connected.peer.data_received(b"\0\0\1\0\0\0\0\0\1x")  # DATA before any header
    connected.peer.data_received(b"\xff" * 100)
    assert connected.ended == {0: CONNECTION_BROKEN}
    assert connected.peer.connection_is_lost


@pytest.mark.walk
def test_open_loop_counts_what_grpc_answered_refused_and_never_saw() -> None:
    """Every call that a real gRPC server saw is counted under the status that it sent."""
    seen = {"good": 0, "corrupt": 0}

    async def predict(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if body.startswith(b"\xff"):
            seen["corrupt"] += 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no PredictRequest")
        assert PredictRequest.FromString(body).rows
        seen["good"] += 1
        return b"x" * 100

    async def run() -> None:
        server = grpc.aio.server()
        handlers = {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
        service = grpc.method_handlers_generic_handler("turnout.v1.Predictor", handlers)
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        group = CallerGroup("all", 2, 300.0, timeout_ms=5_000, queue_ms=5_000, corrupt_every=3)
        (result,) = await run_open_loop(port, 1.0, [group])
        await server.stop(1.0)
        assert result.statuses == {0: seen["good"], 3: seen["corrupt"]}
        assert seen["good"] > seen["corrupt"] > 0
        assert sum(result.statuses.values()) == result.calls_due
        assert result.answered == seen["good"]
        assert result.given_up_unsent == 0

    asyncio.run(run())
