"""What gRPC's clients rely on, frame by frame, behind the native door: gzip, pings, leaving."""

import gzip
import time
from collections.abc import Callable, Iterator
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
    RawConnection,
    call_header_block,
    grpc_status_and_message,
    raw_frame,
    raw_grpc_message,
)

pytestmark = [pytest.mark.walk, NEEDS_NATIVE_INGRESS]

AGE_S = 1.0
NO_TABLE = b"\x00\x01" + bytes(4)
"""SETTINGS: header blocks mean the same whatever came before."""
NOTICE = 2**31 - 1
NO_ERROR, ENHANCE_YOUR_CALM = 0, 11
GZIP = (b"grpc-encoding", b"gzip")


class RawClient(RawConnection):
    """A connection that remembers what came, and does not answer pings."""

    def __init__(self, port: int) -> None:
        self.goaways: list[tuple[int, int, bytes]] = []
        """(last stream, code, why) of each."""
        self.pings: list[bytes] = []
        self.ponged = 0
        self.data: dict[int, bytes] = {}
        super().__init__(port, NO_TABLE)

    def on_frame(self, kind: int | None, flags: int, stream: int, payload: bytes) -> None:
        """Note GOAWAYs, pings and data too."""
        if kind == GOAWAY:
            last, code = (int.from_bytes(payload[at : at + 4], "big") for at in (0, 4))
            self.goaways.append((last & NOTICE, code, payload[8:]))
        elif kind == PING and flags & ACK:
            self.ponged += 1
        elif kind == PING:
            self.pings.append(payload)
        elif kind == DATA:
            self.data[stream] = self.data.get(stream, b"") + payload
        super().on_frame(kind, flags, stream, payload)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Read until it is so."""
        give_up = time.monotonic() + 10.0
        while not condition():
            assert time.monotonic() < give_up, what
            assert self.read(0.1) or condition(), f"closed before: {what}"

    def closed(self) -> None:
        """Read to the end of the connection."""
        give_up = time.monotonic() + 10.0
        while self.read(0.5):
            assert time.monotonic() < give_up, "still open"
        self.close()

    def said(self, stream: int) -> tuple[int | None, str]:
        """Wait for the stream's end; its status and words."""
        self.until(lambda: stream in self.ended_streams, f"the end of stream {stream}")
        return grpc_status_and_message(self.ended_streams[stream])

    def asks(self, stream: int, body: bytes, *more: tuple[bytes, bytes], compressed: int) -> None:
        """Send a call with these headers too."""
        self.send(raw_frame(HEADERS, END_HEADERS, stream, call_header_block(more=more)))
        self.send(
            raw_frame(DATA, END_STREAM, stream, raw_grpc_message(body, compressed=compressed))
        )


@pytest.fixture(scope="module")
def native_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneGateway]:
    """One worker, whose connections last a second."""
    folder = tmp_path_factory.mktemp("native")
    write_gateway_folder(folder)
    settings = {"workers": 1, "ingress": "native", "connection_age_s_max": AGE_S}
    with standalone_gateway(folder, settings) as running:
        assert running.wait_settled(1)
        yield running


def test_gzip_is_read_and_what_is_not_gzip_is_refused_in_words(
    native_gateway: StandaloneGateway,
) -> None:
    """A gzipped call is answered; other encodings, and broken ones, end their own call alone."""
    wire, body = RawClient(native_gateway.port), tiny_request()
    wire.asks(1, gzip.compress(body), GZIP, compressed=1)
    assert wire.said(1) == (0, "")
    assert wire.data[1]
    wire.asks(3, body, GZIP, compressed=0)  # the header allows it, the flag decides
    assert wire.said(3) == (0, "")
    wire.asks(5, body, (b"grpc-encoding", b"br"), compressed=1)
    assert wire.said(5)[0] == 12
    assert b"identity,gzip" in wire.ended_streams[5].values() or "gzip" in wire.said(5)[1]
    wire.asks(7, gzip.compress(body), compressed=1)
    status, words = wire.said(7)
    assert (status, "grpc-encoding" in words) == (13, True), words
    wire.asks(9, gzip.compress(body)[:-9], GZIP, compressed=1)
    assert wire.said(9)[0] in (3, 13)
    wire.asks(11, gzip.compress(body), GZIP, compressed=1)
    assert wire.said(11) == (0, "")
    wire.close()


def test_three_pings_are_answered_and_one_more_is_too_many(
    native_gateway: StandaloneGateway,
) -> None:
    """While nothing is sent to it; a client that is answered meanwhile may ping as it likes."""
    quiet, busy = RawClient(native_gateway.port), RawClient(native_gateway.port)
    for number in range(10):
        busy.send(raw_frame(PING, 0, 0, number.to_bytes(8, "big")))
        busy.call(2 * number + 1, tiny_request())
        busy.until(lambda: 2 * number + 1 in busy.ended_streams, "an answer")  # noqa: B023
    assert busy.ponged == 10
    for number in range(3):
        quiet.send(raw_frame(PING, 0, 0, number.to_bytes(8, "big")))
        quiet.until(lambda: quiet.ponged == number + 1, "a pong")  # noqa: B023
    assert not quiet.goaways
    quiet.send(raw_frame(PING, 0, 0, bytes(8)))
    quiet.until(lambda: quiet.goaways, "GOAWAY")
    assert quiet.goaways[-1][1:] == (ENHANCE_YOUR_CALM, b"too_many_pings")
    quiet.closed()
    busy.call(31, tiny_request())
    assert busy.said(31)[0] == 0
    busy.close()


def test_a_connection_of_age_is_asked_to_leave_twice_and_what_crosses_is_served(
    native_gateway: StandaloneGateway,
) -> None:
    """A notice and a ping; a call that crossed them; the pong; then the last stream's number."""
    began = time.monotonic()
    wire = RawClient(native_gateway.port)
    wire.until(lambda: wire.goaways and wire.pings, "a notice and a ping")
    assert 0.8 * AGE_S < time.monotonic() - began < 1.1 * AGE_S + 1.0
    assert wire.goaways == [(NOTICE, NO_ERROR, b"")]
    wire.call(1, tiny_request())
    assert wire.said(1)[0] == 0
    assert len(wire.goaways) == 1
    wire.send(
        raw_frame(HEADERS, END_HEADERS, 3, call_header_block())
    )  # its message comes after the GOAWAY
    wire.send(raw_frame(PING, ACK, 0, wire.pings[0]))
    wire.until(lambda: len(wire.goaways) == 2, "the second GOAWAY")
    assert wire.goaways[1] == (3, NO_ERROR, b"")
    wire.call(5, tiny_request())  # nobody looks at it: the client asks again elsewhere
    wire.send(raw_frame(DATA, END_STREAM, 3, raw_grpc_message(tiny_request())))
    assert wire.said(3)[0] == 0
    wire.closed()
    assert 5 not in wire.ended_streams


def test_a_client_that_does_not_answer_the_notice_is_not_waited_for_for_ever(
    native_gateway: StandaloneGateway,
) -> None:
    """Without the pong the second GOAWAY comes after 5 s; then the end."""
    wire = RawClient(native_gateway.port)
    wire.until(lambda: len(wire.goaways) == 1, "a notice")
    began = time.monotonic()
    wire.until(lambda: len(wire.goaways) == 2, "the second GOAWAY")
    assert 4.0 < time.monotonic() - began < 8.0
    wire.closed()


def test_the_last_reply_arrives_though_the_client_goes_on_talking(
    tmp_path: Path,
) -> None:
    """We close first; what the client sends after that is read, so that nothing is reset."""
    write_gateway_folder(tmp_path)
    settings = {"workers": 1, "ingress": "native", "connection_age_s_max": AGE_S}
    with standalone_gateway(tmp_path, settings) as gateway:
        assert gateway.wait_settled(1)
        wire = RawClient(gateway.port)
        wire.until(lambda: wire.pings, "a notice")
        wire.call(1, tiny_request(rows=100))
        wire.send(raw_frame(PING, ACK, 0, wire.pings[0]))
        time.sleep(0.5)  # the reply lies in our socket's buffer: we have read nothing of it
        for _ in range(50):
            assert wire.send(raw_frame(8, 0, 0, b"\0\0\0\1")), "reset"
            time.sleep(0.02)
        assert wire.said(1)[0] == 0
        wire.closed()
