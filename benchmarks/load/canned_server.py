"""A gRPC server that answers every call with the same bytes: what the generator can ask at most.

    python -m benchmarks.load.canned_server

Prints its port. It does no more for a call than any server must, in Python as the generator, and
runs on the other core; so a generator that gets N answers a second from it is not what holds a
server back that gives a third of that.
"""

import argparse
import asyncio
import sys
from typing import cast

import uvloop

from benchmarks.load.wire import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_FIRST,
    WINDOW_UPDATE,
    grpc_message,
    pack_frame,
    split_frames,
)

# :status 200 from the static table; grpc-status: 0 as a literal that nobody need remember.
ANSWER = pack_frame(HEADERS, END_HEADERS, 1, b"\x88")
BODY = pack_frame(DATA, 0, 1, grpc_message(bytes(100)))
TRAILERS = pack_frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\x0bgrpc-status\x010")
WINDOW_REFILL = WINDOW_FIRST // 2


def with_stream_id(frame_bytes: bytes, stream: bytes) -> bytes:
    """Return *whole* with another stream's number (4 bytes)."""
    return frame_bytes[:5] + stream + frame_bytes[9:]


class CannedProtocol(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._unparsed = b""
        self._greeted = False
        self._consumed_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say our settings: none."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(pack_frame(SETTINGS, 0, 0, b""))

    def data_received(self, data: bytes) -> None:
        """Answer each call whose last frame has come."""
        buffer = self._unparsed + data
        if not self._greeted:
            if len(buffer) < len(PREFACE):
                self._unparsed = buffer
                return
            buffer, self._greeted = buffer[len(PREFACE) :], True
        back: list[bytes] = []
        end = 0
        for kind, flags, _stream, start, end in split_frames(buffer):
            if kind == DATA:
                self._consumed_bytes += end - start
                if flags & END_STREAM:
                    number = buffer[start - 4 : start]
                    back += (
                        with_stream_id(ANSWER, number),
                        with_stream_id(BODY, number),
                        with_stream_id(TRAILERS, number),
                    )
            elif kind == SETTINGS and not flags & ACK:
                back.append(pack_frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                back.append(pack_frame(PING, ACK, 0, buffer[start:end]))
        self._unparsed = buffer[end:]
        if self._consumed_bytes > WINDOW_REFILL:
            back.append(pack_frame(WINDOW_UPDATE, 0, 0, self._consumed_bytes.to_bytes(4, "big")))
            self._consumed_bytes = 0
        if back:
            self._transport.write(b"".join(back))


async def serve_canned() -> None:
    """Listen on a free port, print it, answer until killed."""
    server = await asyncio.get_running_loop().create_server(CannedProtocol, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Run."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    uvloop.run(serve_canned())


if __name__ == "__main__":
    main()
