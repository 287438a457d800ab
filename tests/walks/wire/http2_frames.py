"""HTTP/2 frames written by hand, so that a test can send what no client would."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREDICT = "/turnout.v1.Predictor/Predict"


def raw_frame(
    kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int = -1
) -> bytes:
    """One frame; *length* says another length than the payload's."""
    said = len(payload) if length < 0 else length
    return struct.pack(">I", said)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def raw_header(name: bytes, value: bytes) -> bytes:
    """One header, not indexed, not compressed (RFC 7541, 6.2.2)."""
    return b"\x00" + _with_length(name) + _with_length(value)


def _with_length(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    number, rest = [127], len(text) - 127
    while rest >= 128:
        number.append(rest % 128 + 128)
        rest //= 128
    return bytes([*number, rest]) + text


def call_header_block(path: str = PREDICT, more: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """The header block of a gRPC call."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"test"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    )
    return b"".join(raw_header(name, value) for name, value in fields)


def raw_grpc_message(body: bytes, *, compressed: int = 0, length: int = -1) -> bytes:
    """A gRPC message: one byte, four of length, the body."""
    return struct.pack(">BI", compressed, len(body) if length < 0 else length) + body


class RawConnection:
    """One connection that was greeted properly."""

    def __init__(self, port: int, settings: bytes = b"", *, greet: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 5.0)
        self.unparsed = b""
        self.goaway = b""
        """The payload of the server's GOAWAY, once it came."""
        self.reset_streams: dict[int, int] = {}
        """Stream -> error code of RST_STREAM frames seen."""
        self.ended_streams: dict[int, bytes] = {}
        """Stream -> header block that ended it."""
        self.settings_received = greet
        if greet:
            self.send(PREFACE + raw_frame(SETTINGS, 0, 0, settings))

    def send(self, content: bytes) -> bool:
        """Send; False when the other end has closed."""
        try:
            self.socket.sendall(content)
        except OSError:
            return False
        return True

    def call(self, stream: int, body: bytes, path: str = PREDICT) -> bool:
        """A whole, proper call."""
        return self.send(
            raw_frame(HEADERS, END_HEADERS, stream, call_header_block(path))
            + raw_frame(DATA, END_STREAM, stream, raw_grpc_message(body))
        )

    def read(self, seconds: float) -> bool:
        """Take in what comes for *seconds* or until something did; False: closed."""
        self.socket.settimeout(seconds)
        try:
            content = self.socket.recv(1 << 20)
        except TimeoutError:
            return True
        except OSError:
            return False
        if not content:
            return False
        self.unparsed += content
        while len(self.unparsed) >= 9:
            length = int.from_bytes(self.unparsed[:3], "big")
            if len(self.unparsed) < 9 + length:
                break
            kind, flags = self.unparsed[3], self.unparsed[4]
            stream = int.from_bytes(self.unparsed[5:9], "big")
            self._on_frame(kind, flags, stream, self.unparsed[9 : 9 + length])
            self.unparsed = self.unparsed[9 + length :]
        return True

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == GOAWAY:
            self.goaway = payload
        elif kind == RST_STREAM:
            self.reset_streams[stream] = int.from_bytes(payload, "big")
        elif kind == HEADERS and flags & END_STREAM:
            self.ended_streams[stream] = payload
        elif kind == SETTINGS and not flags & ACK and self.settings_received:
            self.send(raw_frame(SETTINGS, ACK, 0))

    def close(self) -> None:
        """Go."""
        self.socket.close()
