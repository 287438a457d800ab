"""Our process's sockets on one port. grpcio hands none of them out; /proc/self/fd has them.

Where /proc is missing nothing is found: listeners then close with the server, a moment later.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ACCEPT_S_MAX = 0.2
"""Connections that the kernel has taken for us are accepted within this; usually at once."""
POLL_INTERVAL_S = 0.1
"""Between looks at who is still connected."""

_UNACKED = 24
"""Offset in struct tcp_info of a u32; of a listening socket: connections not yet accepted."""
_NO_CONNECTIONS = bytes(4)


async def stop_listening(port: int) -> None:
    """Shut the listening sockets on *port*, so that the kernel uses the other workers'.

    Connections that wait at them would be reset, so each is shut after a look that found none:
    some 3 us later, in which the kernel may still take one (net.ipv4.tcp_migrate_req hands such
    a one to another worker).
    """
    end = asyncio.get_running_loop().time() + ACCEPT_S_MAX
    for number in [listener.fileno() for listener in _sockets(port, listening=True)]:
        while not _shut_if_empty(number) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    for listener in _sockets(port, listening=True):
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


async def wait_for_disconnects(port: int, within_s: float) -> bool:
    """Wait until nobody is connected to *port* any more; False after *within_s*."""
    end = asyncio.get_running_loop().time() + within_s
    while count_connections(port):  # nobody tells: grpcio closes connections without a word
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(POLL_INTERVAL_S)
    return True


def count_connections(port: int) -> int:
    """Count the connections accepted on *port*."""
    return sum(1 for _ in _sockets(port, listening=False))


def _shut_if_empty(number: int) -> bool:
    """Shut the listening socket *number* unless connections wait at it; False when they do."""
    listener = socket.socket(fileno=number)
    try:
        said = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
        if said[_UNACKED:] != _NO_CONNECTIONS:
            return False
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:  # closed meanwhile by its owner
        return True
    finally:
        listener.detach()
    return True


def _sockets(port: int, *, listening: bool) -> Iterator[socket.socket]:
    """Lend each TCP socket on *port*: they belong to grpcio, and stay open."""
    folder = Path("/proc/self/fd")
    numbers = [int(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []
    for number in numbers:
        try:
            one = socket.socket(fileno=number)
        except OSError:
            continue
        try:
            if _is_tcp_socket_on(one, port, listening=listening):
                yield one
        finally:
            one.detach()


def _is_tcp_socket_on(candidate: socket.socket, port: int, *, listening: bool) -> bool:
    try:
        return (
            candidate.family in (socket.AF_INET, socket.AF_INET6)
            and candidate.type == socket.SOCK_STREAM
            and bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) == listening
            and bool(candidate.getsockname()[1] == port)
        )
    except OSError:  # closed meanwhile by its owner
        return False
