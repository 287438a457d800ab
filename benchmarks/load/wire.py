"""Just enough HTTP/2 to ask a gRPC server unary questions fast, and nothing else.

A general client spends more on a call than some of the servers measured here. What makes this one
cheap: a connection's header block is constant after its first call (HPACK indexes), a request is
two frames whose bytes are ready before the clock starts, and replies are told apart by their
frames' flags alone. A call that brought a message and then ended went well; gRPC ends a failed
unary call without one.
"""

import struct
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
FRAME_BYTES = 9
WINDOW_FIRST = 65_535
WINDOW_MAX = 2**31 - 1
INITIAL_WINDOW_SIZE = 4
REFUSED_STREAM = (7).to_bytes(4, "big")
"""The server never looked at that call: more were open than it allows. Every client asks again."""


def pack_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def split_frames(buffer: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (kind, flags, stream, start, end) of each whole frame's payload in *buffer*."""
    start, size = 0, len(buffer)
    while size - start >= FRAME_BYTES:
        head, flags, stream = struct.unpack_from(">IBI", buffer, start)
        end = start + FRAME_BYTES + (head >> 8)
        if end > size:
            return
        yield head & 0xFF, flags, stream & WINDOW_MAX, start + FRAME_BYTES, end
        start = end


def connection_preface() -> bytes:
    """Return what a client says first: the other side may send as much as it likes."""
    settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW_MAX)
    return (
        PREFACE
        + pack_frame(SETTINGS, 0, 0, settings)
        + pack_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW_MAX - WINDOW_FIRST))
    )


def request_header_blocks(path: str, authority: str, timeout: str) -> tuple[bytes, bytes]:
    """Return a connection's first header block and all its later ones (HPACK, RFC 7541).

    The first puts five fields into the table; the later ones name them by index, as a gRPC client
    does.
    """

    def text(words: str) -> bytes:
        raw = words.encode()
        if len(raw) > 126:
            raise ValueError(f"{words!r} is {len(raw)} bytes long; 126 at most fit one length byte")
        return bytes([len(raw)]) + raw

    post_http = b"\x83\x86"
    first = (
        post_http
        + b"\x44"
        + text(path)
        + b"\x41"
        + text(authority)
        + b"\x5f"
        + text("application/grpc")
        + b"\x40"
        + text("te")
        + text("trailers")
        + b"\x40"
        + text("grpc-timeout")
        + text(timeout)
    )
    return first, post_http + bytes([0x80 | index for index in (66, 65, 64, 63, 62)])


def grpc_message(body: bytes) -> bytes:
    """Return a gRPC message: uncompressed, with its length."""
    return b"\0" + struct.pack(">I", len(body)) + body


class Http2Client:
    """The client's end of one connection, without I/O: what to send, what has come.

    bodies  gRPC messages, asked in this order and round again.
    """

    def __init__(
        self, path: str, authority: str, bodies: list[bytes], *, first_body: int = 0
    ) -> None:
        first, later = request_header_blocks(path, authority, "10S")
        self._first_header_block = pack_frame(HEADERS, END_HEADERS, 1, first)
        self._later_header_block = pack_frame(HEADERS, END_HEADERS, 1, later)
        # Each call's bytes are these with the stream's number in two places.
        self._stream_heads = [struct.pack(">I", len(body))[1:] + b"\0\x01" for body in bodies]
        self._bodies = bodies
        self._next_body = first_body % len(bodies)
        self._next_stream = 1
        self._window = WINDOW_FIRST
        self._unsent_calls = 0
        self._unparsed = b""
        self._answered: set[int] = set()
        self.received_bytes = 0

    def send_calls(self, calls: int) -> tuple[bytes, range]:
        """Return the bytes of as many of *calls* (and those owed) as the window allows.

        And their stream numbers. The rest is owed: asked by the next `ask`.
        """
        self._unsent_calls += calls
        first = self._next_stream
        parts: list[bytes] = []
        while self._unsent_calls and len(self._bodies[self._next_body]) <= self._window:
            body, stream = self._bodies[self._next_body], self._next_stream.to_bytes(4, "big")
            head = self._first_header_block if self._next_stream == 1 else self._later_header_block
            parts += (head[:5], stream, head[9:], self._stream_heads[self._next_body], stream, body)
            self._window -= len(body)
            self._next_stream += 2
            self._next_body = (self._next_body + 1) % len(self._bodies)
            self._unsent_calls -= 1
        return b"".join(parts), range(first, self._next_stream, 2)

    def receive(self, received: bytes) -> tuple[list[int], list[int], list[int], bytes]:
        """Return (streams answered, failed, never looked at, bytes to send back)."""
        buffer = self._unparsed + received
        done: list[int] = []
        failed: list[int] = []
        refused: list[int] = []
        back: list[bytes] = []
        end = 0
        for kind, flags, stream, start, end in split_frames(buffer):
            if kind == DATA:
                self._answered.add(stream)
                self.received_bytes += end - start
            elif kind == HEADERS and flags & END_STREAM:
                if stream in self._answered:
                    self._answered.discard(stream)
                    done.append(stream)
                else:
                    failed.append(stream)
            elif kind == WINDOW_UPDATE and stream == 0:
                self._window += int.from_bytes(buffer[start:end], "big") & WINDOW_MAX
            elif kind == SETTINGS and not flags & ACK:
                back.append(pack_frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                back.append(pack_frame(PING, ACK, 0, buffer[start:end]))
            elif kind == RST_STREAM:
                self._answered.discard(stream)
                (refused if buffer[start:end] == REFUSED_STREAM else failed).append(stream)
            elif kind == GOAWAY:
                raise ConnectionError("the server wants the connection to end: a shorter round")
        self._unparsed = buffer[end:]
        if self.received_bytes > WINDOW_MAX // 2:
            back.append(pack_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self.received_bytes)))
            self.received_bytes = 0
        return done, failed, refused, b"".join(back)
