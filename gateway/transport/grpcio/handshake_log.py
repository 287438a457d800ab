"""Counts refused TLS handshakes at the grpcio server, which names them in gRPC's own log only.

gRPC writes its log to the descriptor of stderr. So a worker puts a pipe there, and a thread reads
it: lines about handshakes are counted, and all other lines go on to the real stderr. What Python
writes goes to the real stderr at once, and not through the pipe.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator

from gateway.ingress_choice import LOG_VARIABLES
from gateway.transport.server import HandshakeRefusal

LINE_OF_GRPC = re.compile(rb"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.]+:\d+\] ")
"""How each message of gRPC begins. A message may have further lines."""
FURTHER_LINE = re.compile(rb"$|=== Source Location Trace|src/core/| shutdown=")
"""How the further lines of such a message begin. Any other line is somebody else's."""
FAILED = re.compile(rb"CallNextHandshakerLocked: error=UNKNOWN: (.*)")
ARGUMENTS, OF_SERVER = b" args={", b"grpc.internal.server_credentials="
"""The end of such a message, and what it has if this process is the server of the connection."""
PEER = re.compile(rb"endpoint_peer_address=([^,}]*)")
REASONS = (
    (b"PEER_DID_NOT_RETURN_A_CERTIFICATE", "no_certificate"),
    (b"CERTIFICATE_VERIFY_FAILED", "certificate_refused"),
    (b"ALERT", "client_refused"),
    # OpenSSL's client sends this alert in plain text, which BoringSSL does not read as one.
    (b"BAD_PACKET_LENGTH", "client_refused"),
    (b"ALPN", "no_common_protocol"),
    (b"UNSUPPORTED_PROTOCOL", "no_common_protocol"),
    (b"NO_SHARED_CIPHER", "no_common_protocol"),
    (b"WRONG_VERSION_NUMBER", "not_tls"),
    (b"HTTP", "not_tls"),
)
"""What gRPC's error has -> the reason, as in ingress/src/http2/tls.rs."""
READ_BYTES = 64 * 1024
LINE_BYTES_MAX = 64 * 1024
"""A longer line is passed on in pieces."""
DETAIL_BYTES_MAX = 200

log = logging.getLogger("gateway")


class HandshakeLog:
    """Reads what libraries write to stderr, and takes the refused handshakes out of it."""

    def __init__(self) -> None:
        self._refusals: dict[str, HandshakeRefusal] = {}
        self._lock = threading.Lock()
        self._failed = b""
        """The error of the message that is being read; empty if it is about no handshake."""
        self._hidden = False
        """Whether the message that is being read is gRPC's and nobody asked for it."""
        self._shows_all = False

    def watch_stderr(self) -> None:
        """Put a pipe in the place of stderr, before anything logs.

        The supervisor has set LOG_VARIABLES. Where the user has set them to something else, all of
        gRPC's lines are passed on.
        """
        stderr = os.dup(2)
        source, sink = os.pipe()
        os.dup2(sink, 2)
        os.close(sink)
        sys.stderr = os.fdopen(stderr, "w", buffering=1, errors="backslashreplace")
        self._shows_all = any(os.environ.get(name) != LOG_VARIABLES[name] for name in LOG_VARIABLES)
        reading = threading.Thread(target=self._read_or_undo, args=(source, stderr), daemon=True)
        reading.start()

    def take(self) -> list[HandshakeRefusal]:
        """Return the refusals since the last call, one for each reason."""
        with self._lock:
            taken, self._refusals = self._refusals, {}
        return list(taken.values())

    def _read_or_undo(self, source: int, stderr: int) -> None:
        """Read until the process ends. If that fails, stderr is again what it was, and is not full.

        Then gRPC's lines are in the log, and the handshakes that they name are not counted.
        """
        try:
            self._read(source, stderr)
        except Exception:
            os.dup2(stderr, 2)
            log.critical("refused TLS handshakes are not counted any more", exc_info=True)

    def _read(self, source: int, stderr: int) -> None:
        rest = b""
        while data := os.read(source, READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LINE_BYTES_MAX:
                lines.append(rest)
                rest = b""
            passed_on = b"".join(line + b"\n" for line in self.pass_on(lines))
            while passed_on:
                passed_on = passed_on[os.write(stderr, passed_on) :]

    def pass_on(self, lines: list[bytes]) -> Iterator[bytes]:
        """Count the handshakes that *lines* report, and yield the lines that are for people."""
        for line in lines:
            if LINE_OF_GRPC.match(line):
                failed = FAILED.search(line)
                self._failed = failed[1] if failed else b""
                self._hidden = line.startswith(b"I") or b"Log level INFO" in line
            elif not FURTHER_LINE.match(line):
                self._failed, self._hidden = b"", False
            if self._failed and ARGUMENTS in line:
                self._count(line)
            if self._shows_all or not self._hidden:
                yield line

    def _count(self, arguments: bytes) -> None:
        """Count the handshake that failed, if the message's arguments are those of the server."""
        error, self._failed = self._failed, b""
        if OF_SERVER not in arguments:
            return
        reason = next((reason for word, reason in REASONS if word in error), "other")
        peer = PEER.search(arguments)
        detail = (error[:DETAIL_BYTES_MAX] + (b" from " + peer[1] if peer else b"")).decode(
            errors="replace"
        )
        with self._lock:
            before = self._refusals.get(reason)
            handshakes = 1 + (before.handshakes if before else 0)
            self._refusals[reason] = HandshakeRefusal(reason, detail, handshakes)


HANDSHAKE_LOG = HandshakeLog()
"""That of this process, which has one stderr. Without `watch_stderr` it counts nothing."""
