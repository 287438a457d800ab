"""`python -m tests.walks.wire.hostile_clients KIND PORT` runs one broken or hostile client.

It prints its result as one JSON object. Each kind is one of the C cases of docs/reliability.md.
"""

import gzip
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.internal.encoder import _VarintBytes

from protos.predict_pb2 import PredictRequest, Row
from tests.walks.wire.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREDICT,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawConnection,
    call_header_block,
    raw_frame,
    raw_grpc_message,
    raw_header,
)

CALL_ROW = Row(keys=["S1"], inputs=[1.0, 2.0, 3.0])
SMALL_CALL = PredictRequest(model="churn", rows=[CALL_ROW]).SerializeToString()
LARGEST_CALL = PredictRequest(model="churn", rows=[CALL_ROW] * 1_024).SerializeToString()

AbuseResult = dict[str, Any]


def _listen(
    wire: RawConnection, seconds: float, until: Callable[[], bool] = lambda: False
) -> float:
    """Read until the connection is closed or *until* holds; return the seconds that passed."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds:
        if not wire.read(0.05) or until():
            return round(time.monotonic() - began, 3)
    return round(waited, 3)


def half_open_calls(port: int) -> AbuseResult:
    """C16: open 1,000 calls on one connection, whose messages never come."""
    wire = RawConnection(port)
    for stream in range(1, 2_001, 2):
        wire.send(raw_frame(HEADERS, END_HEADERS, stream, call_header_block()))
    waited = _listen(wire, 4.0, lambda: len(wire.reset_streams | wire.ended_streams) >= 1_000)
    return {
        "ended": len(wire.reset_streams | wire.ended_streams),
        "refused": len(wire.reset_streams),
        "s": waited,
    }


def silent_connections(port: int) -> AbuseResult:
    """C17: open 500 connections that send nothing, or nothing after their preface."""
    wires = [RawConnection(port, greet=number % 2 == 0) for number in range(500)]
    mute = [wire for number, wire in enumerate(wires) if number % 2]
    began = time.monotonic()
    while mute and time.monotonic() - began < 8.0:
        mute = [wire for wire in mute if wire.read(0.001)]
        time.sleep(0.05)
    greeted = sum(wire.read(0.001) for wire in wires[::2])
    return {"mute_left": len(mute), "s": time.monotonic() - began, "greeted_left": greeted}


def slow_body(port: int) -> AbuseResult:
    """C18: send the messages of 50 calls at a byte every 100 ms."""
    wire = RawConnection(port)
    streams = range(1, 101, 2)
    for stream in streams:
        wire.send(raw_frame(HEADERS, END_HEADERS, stream, call_header_block()))
    began = time.monotonic()
    for octet in raw_grpc_message(SMALL_CALL):
        for stream in streams:
            if stream not in wire.ended_streams and stream not in wire.reset_streams:
                wire.send(raw_frame(DATA, 0, stream, bytes([octet])))
        _listen(wire, 0.1)
        if len(wire.ended_streams | wire.reset_streams) == len(streams):
            break
    return {"ended": len(wire.ended_streams | wire.reset_streams), "s": time.monotonic() - began}


def zero_window(port: int) -> AbuseResult:
    """C19: send 1,000 of the largest calls with a receive window of 0."""
    wire = RawConnection(port, settings=struct.pack(">HI", 4, 0))
    wire.socket.settimeout(5.0)
    sent = 0
    for stream in range(1, 2_001, 2):
        header = raw_frame(HEADERS, END_HEADERS, stream, call_header_block())
        parts = [
            raw_grpc_message(LARGEST_CALL)[at : at + 16_384]
            for at in range(0, len(LARGEST_CALL) + 5, 16_384)
        ]
        bodies = [raw_frame(DATA, 0, stream, part) for part in parts]
        if not wire.send(header + b"".join(bodies) + raw_frame(DATA, END_STREAM, stream)):
            break
        sent += 1
        if stream % 50 == 1:
            wire.read(0.001)
    _listen(wire, 1.0)
    return {"sent": sent, "reset": len(wire.reset_streams), "goaway": wire.goaway.hex()}


def _status(port: int, body: bytes, path: str = PREDICT, **more: Any) -> str:  # noqa: ANN401
    options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        try:
            channel.unary_unary(path)(body, timeout=10.0, **more)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def many_elements(port: int) -> AbuseResult:
    """C9: send messages of just under 4 MB that consist of small elements."""
    row = Row(named={f"{number:x}": 1.0 for number in range(280_000)}).SerializeToString()
    bombs = {
        "named": b"\x0a\x05churn\x12" + _VarintBytes(len(row)) + row,
        "rows": b"\x0a\x05churn" + b"\x12\x00" * 2_000_000,
        "unknown": b"\x78\x01" * 2_000_000,
        "random": os.urandom(4_000_000),
    }
    return {kind: _status(port, bomb) for kind, bomb in bombs.items()}


def gzip_bomb(port: int) -> AbuseResult:
    """C5: send 400 MB of zeros in 400 kB, a gzip flag without encoding, an unknown encoding."""
    bomb = gzip.compress(bytes(400_000_000), 9)
    outcomes = {}
    for kind, more, flag in (
        ("bomb", ((b"grpc-encoding", b"gzip"),), 1),
        ("no encoding", (), 1),
        ("unknown encoding", ((b"grpc-encoding", b"snappy"),), 1),
    ):
        wire = RawConnection(port)
        body = raw_grpc_message(bomb if kind == "bomb" else b"x" * 100, compressed=flag)
        wire.send(raw_frame(HEADERS, END_HEADERS, 1, call_header_block(more=more)))
        for at in range(0, len(body), 16_384):
            wire.send(raw_frame(DATA, 0, 1, body[at : at + 16_384]))
            wire.read(0.001)
        wire.send(raw_frame(DATA, END_STREAM, 1))
        _listen(wire, 3.0, lambda wire=wire: bool(wire.ended_streams or wire.reset_streams))  # type: ignore[misc]
        outcomes[kind] = "ended" if wire.ended_streams or wire.reset_streams else "open"
    return outcomes


def announced_lengths(port: int) -> AbuseResult:
    """C6: announce a message of 4 GB, and a frame of 16 MB."""
    outcomes: AbuseResult = {}
    wire = RawConnection(port)
    wire.send(raw_frame(HEADERS, END_HEADERS, 1, call_header_block()))
    wire.send(raw_frame(DATA, 0, 1, raw_grpc_message(b"x" * 100, length=2**32 - 1)))
    outcomes["message_s"] = _listen(
        wire, 3.0, lambda: bool(wire.ended_streams or wire.reset_streams)
    )
    outcomes["message"] = "ended" if wire.ended_streams or wire.reset_streams else "open"
    wire = RawConnection(port)
    wire.send(raw_frame(HEADERS, END_HEADERS, 1, call_header_block()))
    wire.send(raw_frame(DATA, 0, 1, b"x" * 1_000, length=2**24 - 1))
    outcomes["frame_s"] = _listen(wire, 3.0, lambda: bool(wire.goaway))
    outcomes["frame"] = "ended" if outcomes["frame_s"] < 3.0 else "open"
    return outcomes


def large_metadata(port: int) -> AbuseResult:
    """C13: send 20 kB and 300 kB in one header, 1,000 headers, bytes in a -bin header."""
    binary = (("x-bin", bytes(range(256))),)
    return {
        "20 kB": _status(port, SMALL_CALL, metadata=(("x", "y" * 20_000),)),
        "1,000 headers": _status(
            port, SMALL_CALL, metadata=tuple((f"x{n}", "y") for n in range(1_000))
        ),
        "binary": _status(port, SMALL_CALL, metadata=binary),
        "300 kB": _status(port, SMALL_CALL, metadata=(("x", "y" * 300_000),)),
    }


def rapid_reset(port: int) -> AbuseResult:
    """C20: send 20,000 calls and reset each at once (CVE-2023-44487)."""
    wire = RawConnection(port)
    block, body = call_header_block(), raw_grpc_message(SMALL_CALL)
    sent = 0
    for first in range(1, 40_001, 200):
        content = b"".join(
            raw_frame(HEADERS, END_HEADERS, stream, block)
            + raw_frame(DATA, END_STREAM, stream, body)
            + raw_frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
            for stream in range(first, first + 200, 2)
        )
        if not _wait_for_window(wire, 100 * len(body)) or not wire.send(content):
            break
        wire.window -= 100 * len(body)
        sent += 100
        wire.read(0.0005)
    _listen(wire, 0.5, lambda: bool(wire.goaway))
    return {"sent": sent, "goaway": wire.goaway.hex()}


def _wait_for_window(wire: RawConnection, count: int) -> bool:
    """Wait until the connection takes *count* bytes of DATA; False when it is closed."""
    give_up = time.monotonic() + 10.0
    while wire.window < count and time.monotonic() < give_up:
        if not wire.read(0.05):
            return False
    return wire.window >= count


def _flood(port: int, frame: bytes, hundreds: int) -> AbuseResult:
    wire = RawConnection(port)
    began = time.monotonic()
    for _ in range(hundreds):
        if not wire.send(frame * 100):
            break
        wire.read(0.0002)
    waited = _listen(wire, 1.0, lambda: bool(wire.goaway))
    return {"goaway": wire.goaway[4:].hex(), "s": time.monotonic() - began, "waited": waited}


def ping_flood(port: int) -> AbuseResult:
    """C21: send 5,000 PINGs."""
    return _flood(port, raw_frame(PING, 0, 0, bytes(8)), 50)


def settings_flood(port: int) -> AbuseResult:
    """C21: send 20,000 SETTINGS."""
    return _flood(port, raw_frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)), 200)


def settings_ack_flood(port: int) -> AbuseResult:
    """C21: send 20,000 SETTINGS acknowledgements for no SETTINGS."""
    return _flood(port, raw_frame(SETTINGS, ACK, 0), 200)


def continuation_flood(port: int) -> AbuseResult:
    """C21: send a header block of 2 MB that does not end."""
    wire = RawConnection(port)
    wire.send(raw_frame(HEADERS, 0, 1, call_header_block()))
    piece = raw_header(b"x-long", b"y" * 16_000)
    for _ in range(128):
        if not wire.send(raw_frame(CONTINUATION, 0, 1, piece)):
            break
    waited = _listen(
        wire, 3.0, lambda: bool(wire.goaway or wire.reset_streams or wire.ended_streams)
    )
    return {"over": bool(wire.goaway or wire.reset_streams or wire.ended_streams), "waited": waited}


def hpack_bomb(port: int) -> AbuseResult:
    """C21: send a header of 3.9 kB once, then 12,000 times by its index: 47 MB decoded."""
    wire = RawConnection(port)
    field = raw_header(b"x-long", b"y" * 3_900)
    block = call_header_block() + b"\x40" + field[1:] + b"\xbe" * 12_000
    wire.send(raw_frame(HEADERS, END_HEADERS, 1, block))
    wire.send(raw_frame(DATA, END_STREAM, 1, raw_grpc_message(SMALL_CALL)))
    waited = _listen(
        wire, 3.0, lambda: bool(wire.goaway or wire.reset_streams or wire.ended_streams)
    )
    return {"over": waited < 3.0, "waited": waited}


def vanishing_clients(port: int) -> AbuseResult:
    """C15: reset 20 TCP connections, each with 100 calls in flight."""
    for _ in range(20):
        wire = RawConnection(port)
        for stream in range(1, 201, 2):
            wire.call(stream, SMALL_CALL)
        linger = struct.pack("ii", 1, 0)
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wire.close()
    return {}


def bad_window_updates(port: int) -> AbuseResult:
    """C21: send a WINDOW_UPDATE of 0, and some that exceed 2^31."""
    outcomes: AbuseResult = {}
    for kind, by in (("zero", 0), ("overflow", 2**31 - 1)):
        wire = RawConnection(port)
        wire.call(1, SMALL_CALL)
        for _ in range(3):
            wire.send(raw_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", by)))
        waited = _listen(wire, 1.0, lambda wire=wire: bool(wire.goaway))  # type: ignore[misc]
        outcomes[kind] = "ended" if waited < 1.0 else "open"
    return outcomes


def foreign_protocols(port: int) -> AbuseResult:
    """C22: send HTTP/1.1, a TLS hello, random bytes, half a preface; return when each is closed."""
    outcomes: AbuseResult = {}
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600)
    first = {
        "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "TLS": hello,
        "random": b"\x00" + os.urandom(2_000),
        "half a preface": PREFACE[:10],
    }
    for kind, content in first.items():
        connection = socket.create_connection(("127.0.0.1", port), 5.0)
        connection.sendall(content)
        connection.settimeout(6.0)
        began = time.monotonic()
        try:
            while connection.recv(65_536):
                pass
            outcomes[kind] = round(time.monotonic() - began, 2)
        except ConnectionError:
            outcomes[kind] = round(time.monotonic() - began, 2)
        except TimeoutError:
            outcomes[kind] = "open"
        connection.close()
    return outcomes


def unknown_methods(port: int) -> AbuseResult:
    """C26: call methods and services that do not exist."""
    paths = ("/turnout.v1.Predictor/Nothing", "/no.Service/Predict", "/x", "//", "/a/b/c")
    return {path: _status(port, SMALL_CALL, path) for path in paths}


def connection_storm(port: int) -> AbuseResult:
    """C23: open 5,000 connections and close each at once."""
    connected = 0
    for _ in range(5_000):
        try:
            socket.create_connection(("127.0.0.1", port), 5.0).close()
        except OSError:
            continue
        connected += 1
    return {"connected": connected}


KINDS: dict[str, Callable[[int], AbuseResult]] = {
    client.__name__: client
    for client in (
        half_open_calls,
        silent_connections,
        slow_body,
        zero_window,
        many_elements,
        gzip_bomb,
        announced_lengths,
        large_metadata,
        rapid_reset,
        ping_flood,
        settings_flood,
        settings_ack_flood,
        continuation_flood,
        hpack_bomb,
        bad_window_updates,
        foreign_protocols,
        unknown_methods,
        vanishing_clients,
        connection_storm,
    )
}


if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](int(sys.argv[2]))), flush=True)  # noqa: T201
