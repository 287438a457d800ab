"""Shares of one control server among its callers: of the long-lived streams, and of connections.

A client is an address; a caller is an address with its credentials. Names and tokens are not proven
yet where a server without an identities file counts, so an address has a share of its own.
"""

import asyncio
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from access.client_connections import client_at, keep_room
from host.processes import fail_fast, raise_descriptor_limit

STREAMS_MAX = 256
"""Streams of one caller at one service: a gateway has one for each worker."""
CLIENT_STREAMS_MAX = 1_024
"""Streams of one address at one service."""
ALL_STREAMS_MAX = 4_096
"""Streams of all callers at one service. Its last eighth is left to addresses with few streams."""
LITTLE_STREAMS = 64
"""An address with fewer streams than this has few."""
CONNECTIONS_MAX = 2_048
"""Connections of all callers, below the number of files that a process may have open."""
CLIENT_CONNECTIONS_MAX = CONNECTIONS_MAX // 2
"""Connections of one address, when nearly all are taken."""
DESCRIPTORS = 2 * CONNECTIONS_MAX
"""Open files of a process that serves these connections, with its database and logs."""

Context = Any  # grpc.aio.ServicerContext, which is generic in the messages of each RPC


class TooManyStreamsError(Exception):
    """A caller, its address, or all callers together have as many streams open as they may."""


class OpenStreams:
    """Counts the open streams of one service: by caller, by address, and in all."""

    def __init__(self) -> None:
        self._by_caller: Counter[tuple[bytes, str]] = Counter()
        self._by_client: Counter[bytes] = Counter()
        self._open = 0

    @contextmanager
    def opened(self, context: Context) -> Iterator[None]:
        """Count one stream while the body runs; raise TooManyStreamsError beyond a bound."""
        client = client_of_peer(str(context.peer()))
        metadata = dict(context.invocation_metadata() or ())
        caller = client, str(metadata.get("authorization", ""))
        self._check(client, caller)
        self._count(client, caller, 1)
        try:
            yield
        finally:
            self._count(client, caller, -1)

    def _check(self, client: bytes, caller: tuple[bytes, str]) -> None:
        """Raise TooManyStreamsError if no further stream of this caller may be opened."""
        few = self._by_client[client] < LITTLE_STREAMS
        for owner, opened, most in (
            ("of this caller", self._by_caller[caller], STREAMS_MAX),
            ("of this address", self._by_client[client], CLIENT_STREAMS_MAX),
            ("of all callers", self._open, ALL_STREAMS_MAX * (8 if few else 7) // 8),
        ):
            if opened >= most:
                raise TooManyStreamsError(
                    f"{opened} streams {owner} are open, which is the most; end one first"
                )

    def _count(self, client: bytes, caller: tuple[bytes, str], change: int) -> None:
        self._open += change
        self._by_client[client] += change
        self._by_caller[caller] += change
        # A caller without streams is forgotten.
        if not self._by_client[client]:
            del self._by_client[client]
        if not self._by_caller[caller]:
            del self._by_caller[caller]


def client_of_peer(peer: str) -> bytes:
    """Return the client of gRPC's name for a peer: "ipv4:10.0.0.7:51234", "ipv6:%5B::1%5D:7001".

    Another name, such as that of a Unix socket, is a client of its own.
    """
    kind, _, address = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer.encode()
    host = urllib.parse.unquote(address).rpartition(":")[0]
    return client_at(host.strip("[]"))


def keep_client_connections(port: int) -> "asyncio.Task[None]":
    """Keep each address's share of the connections to *port* until the task is cancelled.

    The process may open as many files as that takes.
    """
    raise_descriptor_limit(DESCRIPTORS)
    keeping_room = keep_room(port, CONNECTIONS_MAX, CLIENT_CONNECTIONS_MAX)
    return fail_fast(asyncio.get_running_loop().create_task(keeping_room))


SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # Concurrent calls of one connection. Further calls wait in their client.
    ("grpc.max_concurrent_streams", 128),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
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
