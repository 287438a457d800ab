"""Bounds the long-lived streams of one caller, so that no caller has all of a server's time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STREAMS_MAX = 256
"""Streams of one caller at one service: a gateway has one for each worker."""

Context = Any  # grpc.aio.ServicerContext, which is generic in the messages of each RPC


class TooManyStreamsError(Exception):
    """A caller has STREAMS_MAX streams open."""


class OpenStreams:
    """Counts the open streams of one service by caller: its address and its credentials."""

    def __init__(self) -> None:
        self._open: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def opened(self, context: Context) -> Iterator[None]:
        """Count one stream while the body runs; raise TooManyStreamsError beyond STREAMS_MAX."""
        caller = _caller(context)
        if self._open[caller] >= STREAMS_MAX:
            raise TooManyStreamsError(
                f"{STREAMS_MAX} streams of this caller are open, which is the most; end one first"
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


def _caller(context: Context) -> tuple[str, str]:
    # The peer is "ipv4:10.0.0.7:51234"; the port differs with each connection.
    address = str(context.peer()).rpartition(":")[0]
    metadata = dict(context.invocation_metadata() or ())
    return address, str(metadata.get("authorization", ""))


SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # Concurrent calls of one connection. Further calls wait in their client.
    ("grpc.max_concurrent_streams", 128),
    # Connections of all callers, below the number of files that a process may have open.
    ("grpc.max_allowed_incoming_connections", 2_048),
    # A connection without calls is closed, and clients open another when they need it.
    ("grpc.max_connection_idle_ms", 60_000),
    # A connection that does not become HTTP/2 in this time is closed.
    ("grpc.server_handshake_timeout_ms", 5_000),
    # A peer may send this much of a stream before its call has been admitted. gRPC would let this
    # grow to megabytes on a fast network, so that bodies of refused calls fill the memory.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
)
"""What the servers of registry and rollout have in common against one caller who takes all."""
