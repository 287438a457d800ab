"""Frames written by hand, so that a test can send what no HTTP/2 library would."""

import socket
import struct
from pathlib import Path
from urllib.parse import unquote

from hpack import Decoder
from hyperframe.frame import Frame

from benchmarks.load.http2_peer import grpc_message

PREDICT = "/turnout.v1.Predictor/Predict"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
CONTINUATION = 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
FRAME_HEAD_BYTES = 9

Headers = dict[bytes, bytes]


def raw_frame(
    kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int = -1
) -> bytes:
    """Return a frame; *length*, when given, is announced in place of the payload's length."""
    announced = len(payload) if length < 0 else length
    return struct.pack(">I", announced)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def raw_header(name: bytes, value: bytes) -> bytes:
    """Return one header field, not indexed and not Huffman-coded (RFC 7541, 6.2.2)."""
    return b"\x00" + _with_length(name) + _with_length(value)


def _with_length(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    octets, rest = [127], len(text) - 127
    while rest >= 128:
        octets.append(rest % 128 + 128)
        rest //= 128
    return bytes([*octets, rest]) + text


def call_header_block(path: str = PREDICT, more: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """Return the header block of a gRPC call, with the fields *more* at its end."""
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
    """Return a gRPC message with any flag byte; *length* may differ from the body's length."""
    return struct.pack(">BI", compressed, len(body) if length < 0 else length) + body


def raw_call(stream: int, body: bytes, header_block: bytes | None = None) -> bytes:
    """Return the two frames of a proper unary call; *header_block* is by default Predict's."""
    block = call_header_block() if header_block is None else header_block
    return raw_frame(HEADERS, END_HEADERS, stream, block) + raw_frame(
        DATA, END_STREAM, stream, grpc_message(body)
    )


def grpc_status_and_message(headers: Headers) -> tuple[int | None, str]:
    """Return grpc-status and grpc-message of a reply's headers; None where there is no status."""
    status = headers.get(b"grpc-status")
    message = unquote(headers.get(b"grpc-message", b"").decode("ascii"))
    return None if status is None else int(status), message


class RawConnection:
    """A connection whose frames the test writes; it reads frames and decodes their headers.

    port      of this machine, or the path of a Unix socket.
    settings  payload of the SETTINGS frame behind the preface.
    greet     False: connect and send nothing.
    source    address to connect from; empty: the system chooses.
    """

    def __init__(
        self, port: int | Path, settings: bytes = b"", *, greet: bool = True, source: str = ""
    ) -> None:
        if isinstance(port, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(port))
        else:
            address = (source, 0) if source else None
            self.socket = socket.create_connection(("127.0.0.1", port), 5.0, address)
        self._unparsed = b""
        self._header_decoder = Decoder()
        self.goaway = b""
        """The payload of the server's GOAWAY, once it came."""
        self.reset_streams: dict[int, int] = {}
        """Stream -> error code of its RST_STREAM frame."""
        self.ended_streams: dict[int, Headers] = {}
        """Stream -> the headers that ended it."""
        self.window = 65_535
        """Bytes of DATA that the server takes. A test that sends many subtracts them."""
        self._acknowledges = greet
        if greet:
            self.send(PREFACE + raw_frame(SETTINGS, 0, 0, settings))

    def send(self, content: bytes) -> bool:
        """Send *content*; False when the other end has closed the connection."""
        try:
            self.socket.sendall(content)
        except OSError:
            return False
        return True

    def call(self, stream: int, body: bytes, path: str = PREDICT) -> bool:
        """Send a proper call; False when the other end has closed the connection."""
        return self.send(raw_call(stream, body, call_header_block(path)))

    def read(self, seconds: float) -> bool:
        """Wait up to *seconds* for bytes and read their frames; False: the connection is closed."""
        self.socket.settimeout(seconds)
        try:
            content = self.socket.recv(1 << 20)
        except TimeoutError:
            return True
        except OSError:
            return False
        if not content:
            return False
        unparsed, start = self._unparsed + content, 0
        while len(unparsed) - start >= FRAME_HEAD_BYTES:
            frame, length = Frame.parse_frame_header(
                memoryview(unparsed)[start : start + FRAME_HEAD_BYTES]
            )
            end = start + FRAME_HEAD_BYTES + length
            if len(unparsed) < end:
                break
            flags, payload = unparsed[start + 4], unparsed[start + FRAME_HEAD_BYTES : end]
            self.on_frame(frame.type, flags, frame.stream_id, payload)
            start = end
        self._unparsed = unparsed[start:]
        return True

    def on_frame(self, kind: int | None, flags: int, stream: int, payload: bytes) -> None:
        """Note one frame, and acknowledge SETTINGS; subclasses note more."""
        if kind == GOAWAY:
            self.goaway = payload
        elif kind == RST_STREAM:
            self.reset_streams[stream] = int.from_bytes(payload, "big")
        elif kind == HEADERS:
            # HPACK's table depends on every block before, so that each one is decoded.
            headers = dict(self._header_decoder.decode(payload, raw=True))
            if flags & END_STREAM:
                self.ended_streams[stream] = headers
        elif kind == WINDOW_UPDATE and stream == 0:
            self.window += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK and self._acknowledges:
            self.send(raw_frame(SETTINGS, ACK, 0))

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
