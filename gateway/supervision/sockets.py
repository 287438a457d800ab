"""Slot sockets: the supervisor creates listening sockets for each slot and lends them to workers.

A slot has one socket for each address of the host: `localhost` has one of IPv4 and one of IPv6.

When a listening socket closes, the kernel resets every connection that waits in its queue. A slot
socket therefore outlives its worker: the next worker of the slot accepts from the same queue, and
no connection is lost in a rolling restart, a crash or a hang. A slot without a worker has no socket
either; the kernel then uses the sockets of the other slots, or refuses the connection.

A server that opens the port by itself (grpcio's) does not use its slot sockets, which then stay
bound and do not listen.
"""

import os
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

from host.addresses import hosts_to_listen_at

ADDRESSES_MAX = 2
"""Addresses of one host: one of IPv4 and one of IPv6."""


class SlotSockets:
    """The supervisor's side: one TCP port with sockets for each slot."""

    def __init__(self, host: str, port: int) -> None:
        """Reserve the port; 0 picks a free one. OSError when it is taken."""
        self._hosts = hosts_to_listen_at(host)
        self._reserved = _bind_sockets(self._hosts, port)
        self.port = int(self._reserved[0].getsockname()[1])
        self._slots: dict[int, list[socket.socket]] = {}

    def send_sockets(self, slot: int, channel: socket.socket) -> None:
        """Send the slot's sockets to a worker over *channel*.

        Errors are ignored: when the worker is gone, the end of its control connection says so.
        """
        if slot not in self._slots:
            self._slots[slot] = _bind_sockets(self._hosts, self.port)
        descriptors = [bound.fileno() for bound in self._slots[slot]]
        with suppress(OSError):
            socket.send_fds(channel, [b"%d" % slot], descriptors)

    def close_except(self, slots: Collection[int]) -> None:
        """Close the sockets of all other slots, which have no worker to accept from them."""
        for slot in self._slots.keys() - set(slots):
            _close_all(self._slots.pop(slot))

    def close(self) -> None:
        """Close all sockets and release the port."""
        self.close_except(())
        _close_all(self._reserved)


class LentSockets:
    """The worker's side: receives the sockets of its slot.

    fd  the inherited end of the channel that they come over; -1 when there is no supervisor.
    """

    def __init__(self, fd: int) -> None:
        self._channel = socket.socket(fileno=fd) if fd >= 0 else None
        if self._channel is not None:
            self._channel.setblocking(False)

    @contextmanager
    def received_sockets(self) -> Iterator[list[int]]:
        """Yield the descriptors of the slot's sockets; none when none were sent.

        The supervisor sends them before `serve`. They are closed afterwards, so a server
        duplicates them.
        """
        descriptors: list[int] = []
        if self._channel is not None:
            with suppress(BlockingIOError):
                _, descriptors, _, _ = socket.recv_fds(self._channel, 16, ADDRESSES_MAX)
        try:
            yield descriptors
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def close(self) -> None:
        """Close the channel; no socket can be received after this."""
        if self._channel is not None:
            self._channel.close()


def create_socket_channel() -> tuple[socket.socket, socket.socket]:
    """Return the ends of a channel for slot sockets: the supervisor's, and one to inherit."""
    parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    parent_end.setblocking(False)
    return parent_end, child_end


def _bind_sockets(hosts: Iterable[str], port: int) -> list[socket.socket]:
    """Bind one port at each host; the first one picks it when *port* is 0."""
    bound: list[socket.socket] = []
    try:
        for host in hosts:
            bound.append(_bind_socket(host, port))
            port = int(bound[0].getsockname()[1])
    except OSError:
        _close_all(bound)
        raise
    return bound


def _close_all(sockets: Iterable[socket.socket]) -> None:
    for bound in sockets:
        bound.close()


def _bind_socket(host: str, port: int) -> socket.socket:
    """Bind without listening: the port is reserved, and no connection arrives here yet."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
