"""The generator's HTTP/2: bytes as the RFCs say, and calls told apart by how they end."""

import pytest

from benchmarks.load.wire import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2Client,
    grpc_message,
    pack_frame,
    request_header_blocks,
    split_frames,
)

BODY = grpc_message(b"question")


def http2_client(bodies: list[bytes] | None = None) -> Http2Client:
    """One connection's asker."""
    return Http2Client("/a.B/C", "host:1", bodies or [BODY])


def answer(stream: int) -> bytes:
    """What a server sends for a call that went well."""
    return (
        pack_frame(HEADERS, END_HEADERS, stream, b"\x88")
        + pack_frame(DATA, 0, stream, grpc_message(b"answer"))
        + pack_frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\xbf")
    )


def failure(stream: int) -> bytes:
    """Trailers alone: what a server sends for a call that failed."""
    return pack_frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x88\xbf")


def test_frames_are_cut_whole_and_the_rest_waits() -> None:
    """A frame that has not come whole is not yielded."""
    whole = pack_frame(PING, 0, 0, b"12345678") + pack_frame(DATA, END_STREAM, 5, b"abc")
    assert [(kind, stream) for kind, _, stream, _, _ in split_frames(whole)] == [
        (PING, 0),
        (DATA, 5),
    ]
    assert [kind for kind, *_ in split_frames(whole[:-1])] == [PING]
    assert not list(split_frames(whole[:8]))


def test_a_connections_first_call_fills_the_table_and_later_ones_name_it() -> None:
    """Six bytes in place of some eighty, as a gRPC client sends."""
    first, later = request_header_blocks("/a.B/C", "host:1", "1S")
    assert b"/a.B/C" in first
    assert later == b"\x83\x86" + bytes([0xC2, 0xC1, 0xC0, 0xBF, 0xBE])
    sent, streams = http2_client().send_calls(2)
    kinds = [(kind, flags, stream) for kind, flags, stream, _, _ in split_frames(sent)]
    assert kinds == [
        (HEADERS, END_HEADERS, 1),
        (DATA, END_STREAM, 1),
        (HEADERS, END_HEADERS, 3),
        (DATA, END_STREAM, 3),
    ]
    assert list(streams) == [1, 3]


def test_bodies_are_asked_in_turn() -> None:
    """No call repeats another's key until all were asked."""
    bodies = [grpc_message(bytes([number])) for number in range(3)]
    sent, _ = http2_client(bodies).send_calls(4)
    asked = [sent[start:end] for kind, _, _, start, end in split_frames(sent) if kind == DATA]
    assert asked == [*bodies, bodies[0]]


def test_a_call_went_well_only_with_a_message_and_an_end() -> None:
    """Trailers alone and a reset are failures, a refused stream neither; bytes come cut anyhow."""
    one = http2_client()
    one.send_calls(4)
    done: list[int] = []
    failed: list[int] = []
    again: list[int] = []
    received = answer(1) + failure(3) + pack_frame(RST_STREAM, 0, 5, b"\0\0\0\x08")
    received += pack_frame(RST_STREAM, 0, 7, REFUSED_STREAM)
    for place in range(len(received)):
        ok, bad, unseen, _ = one.receive(received[place : place + 1])
        done += ok
        failed += bad
        again += unseen
    assert (done, failed, again) == ([1], [3, 5], [7])


def test_questions_wait_for_the_servers_window() -> None:
    """What does not fit is owed, and asked once the server makes room."""
    one = http2_client([grpc_message(bytes(30_000))])
    sent, streams = one.send_calls(4)
    assert len(streams) == 2
    assert len(sent) < 65_535
    one.receive(pack_frame(WINDOW_UPDATE, 0, 0, (60_020).to_bytes(4, "big")))
    assert len(one.send_calls(0)[1]) == 2


def test_the_servers_settings_and_pings_are_acknowledged() -> None:
    """Else the server would take the connection for dead."""
    ping = pack_frame(PING, 0, 0, b"12345678")
    *_, back = http2_client().receive(
        pack_frame(SETTINGS, 0, 0, b"") + ping + pack_frame(PING, ACK, 0, b"87654321")
    )
    assert back == pack_frame(SETTINGS, ACK, 0, b"") + pack_frame(PING, ACK, 0, b"12345678")


def test_a_server_that_says_goodbye_ends_the_round() -> None:
    """Counting on would count a reconnect as latency."""
    with pytest.raises(ConnectionError, match="shorter round"):
        http2_client().receive(pack_frame(GOAWAY, 0, 0, bytes(8)))
