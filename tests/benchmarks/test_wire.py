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
    Asker,
    frame,
    frames,
    header_blocks,
    message,
)

BODY = message(b"question")


def asker(bodies: list[bytes] | None = None) -> Asker:
    """One connection's asker."""
    return Asker("/a.B/C", "host:1", bodies or [BODY])


def answer(stream: int) -> bytes:
    """What a server sends for a call that went well."""
    return (
        frame(HEADERS, END_HEADERS, stream, b"\x88")
        + frame(DATA, 0, stream, message(b"answer"))
        + frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\xbf")
    )


def failure(stream: int) -> bytes:
    """Trailers alone: what a server sends for a call that failed."""
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x88\xbf")


def test_frames_are_cut_whole_and_the_rest_waits() -> None:
    """A frame that has not come whole is not yielded."""
    whole = frame(PING, 0, 0, b"12345678") + frame(DATA, END_STREAM, 5, b"abc")
    assert [(kind, stream) for kind, _, stream, _, _ in frames(whole)] == [(PING, 0), (DATA, 5)]
    assert [kind for kind, *_ in frames(whole[:-1])] == [PING]
    assert not list(frames(whole[:8]))


def test_a_connections_first_call_fills_the_table_and_later_ones_name_it() -> None:
    """Six bytes in place of some eighty, as a gRPC client sends."""
    first, later = header_blocks("/a.B/C", "host:1", "1S")
    assert b"/a.B/C" in first
    assert later == b"\x83\x86" + bytes([0xC2, 0xC1, 0xC0, 0xBF, 0xBE])
    sent, streams = asker().ask(2)
    kinds = [(kind, flags, stream) for kind, flags, stream, _, _ in frames(sent)]
    assert kinds == [
        (HEADERS, END_HEADERS, 1),
        (DATA, END_STREAM, 1),
        (HEADERS, END_HEADERS, 3),
        (DATA, END_STREAM, 3),
    ]
    assert list(streams) == [1, 3]


def test_bodies_are_asked_in_turn() -> None:
    """No call repeats another's key until all were asked."""
    bodies = [message(bytes([number])) for number in range(3)]
    sent, _ = asker(bodies).ask(4)
    asked = [sent[start:end] for kind, _, _, start, end in frames(sent) if kind == DATA]
    assert asked == [*bodies, bodies[0]]


def test_a_call_went_well_only_with_a_message_and_an_end() -> None:
    """Trailers alone and a reset are failures, a refused stream neither; bytes come cut anyhow."""
    one = asker()
    one.ask(4)
    done: list[int] = []
    failed: list[int] = []
    again: list[int] = []
    received = answer(1) + failure(3) + frame(RST_STREAM, 0, 5, b"\0\0\0\x08")
    received += frame(RST_STREAM, 0, 7, REFUSED_STREAM)
    for place in range(len(received)):
        ok, bad, unseen, _ = one.hear(received[place : place + 1])
        done += ok
        failed += bad
        again += unseen
    assert (done, failed, again) == ([1], [3, 5], [7])


def test_questions_wait_for_the_servers_window() -> None:
    """What does not fit is owed, and asked once the server makes room."""
    one = asker([message(bytes(30_000))])
    sent, streams = one.ask(4)
    assert len(streams) == 2
    assert len(sent) < 65_535
    one.hear(frame(WINDOW_UPDATE, 0, 0, (60_020).to_bytes(4, "big")))
    assert len(one.ask(0)[1]) == 2


def test_the_servers_settings_and_pings_are_acknowledged() -> None:
    """Else the server would take the connection for dead."""
    ping = frame(PING, 0, 0, b"12345678")
    *_, back = asker().hear(frame(SETTINGS, 0, 0, b"") + ping + frame(PING, ACK, 0, b"87654321"))
    assert back == frame(SETTINGS, ACK, 0, b"") + frame(PING, ACK, 0, b"12345678")


def test_a_server_that_says_goodbye_ends_the_round() -> None:
    """Counting on would count a reconnect as latency."""
    with pytest.raises(ConnectionError, match="shorter round"):
        asker().hear(frame(GOAWAY, 0, 0, bytes(8)))
