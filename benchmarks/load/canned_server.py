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
    frame,
    frames,
    message,
)

# :status 200 from the static table; grpc-status: 0 as a literal that nobody need remember.
ANSWER = frame(HEADERS, END_HEADERS, 1, b"\x88")
BODY = frame(DATA, 0, 1, message(bytes(100)))
TRAILERS = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\x0bgrpc-status\x010")
WINDOW_REFILL = WINDOW_FIRST // 2


def at(whole: bytes, stream: bytes) -> bytes:
    """Return *whole* with another stream's number (4 bytes)."""
    return whole[:5] + stream + whole[9:]


class Canned(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._rest = b""
        self._greeted = False
        self._taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say our settings: none."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(frame(SETTINGS, 0, 0, b""))

    def data_received(self, data: bytes) -> None:
        """Answer each call whose last frame has come."""
        buffer = self._rest + data
        if not self._greeted:
            if len(buffer) < len(PREFACE):
                self._rest = buffer
                return
            buffer, self._greeted = buffer[len(PREFACE) :], True
        back: list[bytes] = []
        end = 0
        for kind, flags, _stream, start, end in frames(buffer):
            if kind == DATA:
                self._taken += end - start
                if flags & END_STREAM:
                    number = buffer[start - 4 : start]
                    back += (at(ANSWER, number), at(BODY, number), at(TRAILERS, number))
            elif kind == SETTINGS and not flags & ACK:
                back.append(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                back.append(frame(PING, ACK, 0, buffer[start:end]))
        self._rest = buffer[end:]
        if self._taken > WINDOW_REFILL:
            back.append(frame(WINDOW_UPDATE, 0, 0, self._taken.to_bytes(4, "big")))
            self._taken = 0
        if back:
            self._transport.write(b"".join(back))


async def serve() -> None:
    """Listen on a free port, print it, answer until killed."""
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Run."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    uvloop.run(serve())


if __name__ == "__main__":
    main()
