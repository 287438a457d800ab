"""The native ingress, frame by frame: what gRPC's clients rely on in gzip, pings and GOAWAY."""

import gzip
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.standalone_gateway import (
    StandaloneGateway,
    standalone_gateway,
    tiny_request,
    write_gateway_folder,
)
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.walks.wire.http2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    RawConnection,
    call_header_block,
    grpc_status_and_message,
    raw_frame,
    raw_grpc_message,
)

pytestmark = [pytest.mark.walk, NEEDS_NATIVE_INGRESS]

AGE_S = 1.0
RESETS_S_MAX = 50
"""Twice as many may come at once."""
NO_TABLE = b"\x00\x01" + bytes(4)
"""SETTINGS: the server's header table has 0 bytes."""
STREAM_MAX = 2**31 - 1
NO_ERROR, CANCEL, ENHANCE_YOUR_CALM = 0, 8, 11
GZIP = (b"grpc-encoding", b"gzip")


class RawClient(RawConnection):
    """A connection that notes GOAWAYs, pings and data, and does not answer pings."""

    def __init__(self, port: int) -> None:
        self.goaways: list[tuple[int, int, bytes]] = []
        """(last stream, error code, debug data) of each GOAWAY."""
        self.pings: list[bytes] = []
        self.ping_acks = 0
        self.data: dict[int, bytes] = {}
        super().__init__(port, NO_TABLE)

    def on_frame(self, kind: int | None, flags: int, stream: int, payload: bytes) -> None:
        """Note GOAWAYs, pings and data too."""
        if kind == GOAWAY:
            last, code = (int.from_bytes(payload[at : at + 4], "big") for at in (0, 4))
            self.goaways.append((last & STREAM_MAX, code, payload[8:]))
        elif kind == PING and flags & ACK:
            self.ping_acks += 1
        elif kind == PING:
            self.pings.append(payload)
        elif kind == DATA:
            self.data[stream] = self.data.get(stream, b"") + payload
        super().on_frame(kind, flags, stream, payload)

    def read_until(self, condition: Callable[[], object], awaited: str) -> None:
        """Read until *condition* holds; fail with *awaited* after 10 s or at the end."""
        give_up = time.monotonic() + 10.0
        while not condition():
            assert time.monotonic() < give_up, awaited
            assert self.read(0.1) or condition(), f"closed before: {awaited}"

    def read_to_end(self) -> None:
        """Read until the server closes the connection; fail after 10 s."""
        give_up = time.monotonic() + 10.0
        while self.read(0.5):
            assert time.monotonic() < give_up, "still open"
        self.close()

    def status_of(self, stream: int) -> tuple[int | None, str]:
        """Wait for the stream's end; return its gRPC status and message."""
        self.read_until(lambda: stream in self.ended_streams, f"the end of stream {stream}")
        return grpc_status_and_message(self.ended_streams[stream])

    def send_call(
        self, stream: int, body: bytes, *more: tuple[bytes, bytes], compressed: int
    ) -> None:
        """Send a call with the headers *more* and the message's compressed flag."""
        self.send(raw_frame(HEADERS, END_HEADERS, stream, call_header_block(more=more)))
        self.send(
            raw_frame(DATA, END_STREAM, stream, raw_grpc_message(body, compressed=compressed))
        )


@pytest.fixture(scope="module")
def native_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneGateway]:
    """A gateway of one worker, whose connections last a second and take few resets."""
    folder = tmp_path_factory.mktemp("native")
    write_gateway_folder(folder)
    settings = {"workers": 1, "ingress": "native", "connection_age_s_max": AGE_S}
    settings["connection_resets_s_max"] = RESETS_S_MAX
    with standalone_gateway(folder, settings) as running:
        assert running.wait_settled(1)
        yield running


def test_native_ingress_reads_gzip_and_refuses_other_encodings_with_a_message(
    native_gateway: StandaloneGateway,
) -> None:
    """A gzipped call is answered; another or a broken encoding ends its own call alone."""
    wire, body = RawClient(native_gateway.port), tiny_request()
    wire.send_call(1, gzip.compress(body), GZIP, compressed=1)
    assert wire.status_of(1) == (0, "")
    assert wire.data[1]
    wire.send_call(
        3, body, GZIP, compressed=0
    )  # the header allows gzip, the flag says that this message has none
    assert wire.status_of(3) == (0, "")
    wire.send_call(5, body, (b"grpc-encoding", b"br"), compressed=1)
    assert wire.status_of(5)[0] == 12
    assert b"identity,gzip" in wire.ended_streams[5].values() or "gzip" in wire.status_of(5)[1]
    wire.send_call(7, gzip.compress(body), compressed=1)
    status, message = wire.status_of(7)
    assert (status, "grpc-encoding" in message) == (13, True), message
    wire.send_call(9, gzip.compress(body)[:-9], GZIP, compressed=1)
    assert wire.status_of(9)[0] in (3, 13)
    wire.send_call(11, gzip.compress(body), GZIP, compressed=1)
    assert wire.status_of(11) == (0, "")
    wire.close()


def test_native_ingress_answers_three_idle_pings_and_closes_at_the_fourth(
    native_gateway: StandaloneGateway,
) -> None:
    """Idle: no answer is sent meanwhile. A client that gets answers may ping at any rate."""
    quiet, busy = RawClient(native_gateway.port), RawClient(native_gateway.port)
    for number in range(10):
        busy.send(raw_frame(PING, 0, 0, number.to_bytes(8, "big")))
        busy.call(2 * number + 1, tiny_request())
        busy.read_until(lambda: 2 * number + 1 in busy.ended_streams, "an answer")  # noqa: B023
    assert busy.ping_acks == 10
    for number in range(3):
        quiet.send(raw_frame(PING, 0, 0, number.to_bytes(8, "big")))
        quiet.read_until(lambda: quiet.ping_acks == number + 1, "a ping ACK")  # noqa: B023
    assert not quiet.goaways
    quiet.send(raw_frame(PING, 0, 0, bytes(8)))
    quiet.read_until(lambda: quiet.goaways, "GOAWAY")
    assert quiet.goaways[-1][1:] == (ENHANCE_YOUR_CALM, b"too_many_pings")
    quiet.read_to_end()
    busy.call(31, tiny_request())
    assert busy.status_of(31)[0] == 0
    busy.close()


def test_native_ingress_takes_as_many_resets_as_its_setting_says(
    native_gateway: StandaloneGateway,
) -> None:
    """A proxy carries many people on one connection, so its operator raises the bound."""
    client, streams = RawClient(native_gateway.port), iter(range(1, 1_000, 2))

    def reset(calls: int) -> None:
        for stream in islice(streams, calls):
            client.send(raw_frame(HEADERS, END_HEADERS, stream, call_header_block()))
            client.send(raw_frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))

    # Fewer than the bound: the connection answers.
    reset(RESETS_S_MAX)
    stream = next(streams)
    client.send_call(stream, tiny_request(), compressed=0)
    assert client.status_of(stream)[0] == 0
    # More than the bound.
    reset(2 * RESETS_S_MAX)
    client.read_until(lambda: ENHANCE_YOUR_CALM in [code for _, code, _ in client.goaways], "it")
    assert client.goaways[-1][2] == b"too_many_resets"
    client.close()


def test_native_ingress_sends_two_goaways_at_age_and_serves_what_crosses_the_first(
    native_gateway: StandaloneGateway,
) -> None:
    """First GOAWAY with the highest stream, and a ping; after its ACK the real last stream."""
    began = time.monotonic()
    wire = RawClient(native_gateway.port)
    wire.read_until(lambda: wire.goaways and wire.pings, "the first GOAWAY and a ping")
    assert 0.8 * AGE_S < time.monotonic() - began < 1.1 * AGE_S + 1.0
    assert wire.goaways == [(STREAM_MAX, NO_ERROR, b"")]
    wire.call(1, tiny_request())
    assert wire.status_of(1)[0] == 0
    assert len(wire.goaways) == 1
    wire.send(
        raw_frame(HEADERS, END_HEADERS, 3, call_header_block())
    )  # its message comes after the GOAWAY
    wire.send(raw_frame(PING, ACK, 0, wire.pings[0]))
    wire.read_until(lambda: len(wire.goaways) == 2, "the second GOAWAY")
    assert wire.goaways[1] == (3, NO_ERROR, b"")
    wire.call(
        5, tiny_request()
    )  # after the last stream: the client sends this call again elsewhere
    wire.send(raw_frame(DATA, END_STREAM, 3, raw_grpc_message(tiny_request())))
    assert wire.status_of(3)[0] == 0
    wire.read_to_end()
    assert 5 not in wire.ended_streams


def test_native_ingress_sends_the_second_goaway_without_a_ping_ack_after_5_s(
    native_gateway: StandaloneGateway,
) -> None:
    """A client that does not answer the ping is not waited for without end."""
    wire = RawClient(native_gateway.port)
    wire.read_until(lambda: len(wire.goaways) == 1, "the first GOAWAY")
    began = time.monotonic()
    wire.read_until(lambda: len(wire.goaways) == 2, "the second GOAWAY")
    assert 4.0 < time.monotonic() - began < 8.0
    wire.read_to_end()


def test_native_ingress_delivers_the_last_reply_though_the_client_keeps_sending(
    tmp_path: Path,
) -> None:
    """The server closes first and reads what the client still sends, so nothing is reset."""
    write_gateway_folder(tmp_path)
    settings = {"workers": 1, "ingress": "native", "connection_age_s_max": AGE_S}
    settings["connection_resets_s_max"] = RESETS_S_MAX
    with standalone_gateway(tmp_path, settings) as gateway:
        assert gateway.wait_settled(1)
        wire = RawClient(gateway.port)
        wire.read_until(lambda: wire.pings, "the first GOAWAY")
        wire.call(1, tiny_request(rows=100))
        wire.send(raw_frame(PING, ACK, 0, wire.pings[0]))
        time.sleep(0.5)  # the reply is in this socket's buffer, unread
        for _ in range(50):
            assert wire.send(raw_frame(8, 0, 0, b"\0\0\0\1")), "reset"
            time.sleep(0.02)
        assert wire.status_of(1)[0] == 0
        wire.read_to_end()
