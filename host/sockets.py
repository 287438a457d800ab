"""Finds this process's sockets on one port, which grpcio does not give out, in /proc/self/fd.

Without /proc none is found; the listening sockets then close a moment later, with the server.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

from host.processes import open_descriptors

ACCEPT_S_MAX = 0.2
"""Time for grpcio to accept the connections that wait in the kernel's queue; usually at once."""
POLL_INTERVAL_S = 0.1
"""Pause between checks for connections that are still open."""

_UNACKED = 24
"""Offset in struct tcp_info of tcpi_unacked (u32). A listening socket has the number of connections
there that are not accepted yet."""
_NO_CONNECTIONS = bytes(4)


async def stop_listening(port: int) -> None:
    """Shut down the listening sockets on *port*; the kernel then uses the other workers' sockets.

    Connections that wait at a socket would be reset, so a socket is shut down right after a check
    that found none. In the 3 us between, the kernel may still queue one; with
    net.ipv4.tcp_migrate_req it gives that connection to another worker.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + ACCEPT_S_MAX
    for number in [listener.fileno() for listener in _sockets(port, listening=True)]:
        while not _shut_if_empty(number) and loop.time() < end:  # noqa: ASYNC110  no event for it
            await asyncio.sleep(0.001)
    # After that time, sockets with waiting connections are shut down as well.
    for listener in _sockets(port, listening=True):
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


async def wait_for_disconnects(port: int, within_s: float) -> bool:
    """Wait until no connection to *port* is open; False when that takes longer than *within_s*."""
    end = asyncio.get_running_loop().time() + within_s
    # grpcio does not report closed connections, so they are counted again and again.
    while count_connections(port):
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(POLL_INTERVAL_S)
    return True


def count_connections(port: int) -> int:
    """Count the accepted connections on *port*; 0 without /proc."""
    return sum(1 for _ in open_connections(port))


def open_connections(port: int) -> Iterator[socket.socket]:
    """Yield each accepted connection on *port*, to be used before the next one is asked for."""
    return _sockets(port, listening=False)


def _shut_if_empty(number: int) -> bool:
    """Shut down the listening socket *number*; False when connections wait at it."""
    listener = socket.socket(fileno=number)
    try:
        tcp_info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
        if tcp_info[_UNACKED:] != _NO_CONNECTIONS:
            return False
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:  # grpcio has closed it meanwhile
        return True
    finally:
        listener.detach()
    return True


def _sockets(port: int, *, listening: bool) -> Iterator[socket.socket]:
    """Yield each TCP socket on *port*. They belong to grpcio and stay open."""
    for number in open_descriptors():
        try:
            candidate = socket.socket(fileno=number)
        except OSError:
            continue
        try:
            if _is_tcp_socket_on(candidate, port, listening=listening):
                yield candidate
        finally:
            candidate.detach()


def _is_tcp_socket_on(candidate: socket.socket, port: int, *, listening: bool) -> bool:
    try:
        return (
            candidate.family in (socket.AF_INET, socket.AF_INET6)
            and candidate.type == socket.SOCK_STREAM
            and bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) == listening
            and bool(candidate.getsockname()[1] == port)
        )
    except OSError:  # grpcio has closed it meanwhile
        return False
