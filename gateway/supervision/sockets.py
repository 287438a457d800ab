"""Slot sockets: the supervisor creates a listening socket for each slot and lends it to workers.

When a listening socket closes, the kernel resets every connection that waits in its queue. A slot
socket therefore outlives its worker: the next worker of the slot accepts from the same queue, and
no connection is lost in a rolling restart, a crash or a hang. A slot without a worker has no socket
either; the kernel then uses the sockets of the other slots, or refuses the connection.

A server that opens the port by itself (grpcio's) does not use its slot socket, which then stays
bound and does not listen.
"""

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress


class SlotSockets:
    """The supervisor's side: one TCP port with a socket for each slot."""

    def __init__(self, host: str, port: int) -> None:
        """Reserve the port; 0 picks a free one. OSError when it is taken."""
        self._host = host
        self._reserved = _bind_socket(host, port)
        self.port = int(self._reserved.getsockname()[1])
        self._slots: dict[int, socket.socket] = {}

    def send_socket(self, slot: int, channel: socket.socket) -> None:
        """Send the slot's socket to a worker over *channel*.

        Errors are ignored: when the worker is gone, the end of its control connection says so.
        """
        if slot not in self._slots:
            self._slots[slot] = _bind_socket(self._host, self.port)
        with suppress(OSError):
            socket.send_fds(channel, [b"%d" % slot], [self._slots[slot].fileno()])

    def close_except(self, slots: Collection[int]) -> None:
        """Close the sockets of all other slots, which have no worker to accept from them."""
        for slot in self._slots.keys() - set(slots):
            self._slots.pop(slot).close()

    def close(self) -> None:
        """Close all sockets and release the port."""
        self.close_except(())
        self._reserved.close()


class LentSocket:
    """The worker's side: receives the socket of its slot.

    fd  the inherited end of the channel that the socket comes over; -1 when there is no supervisor.
    """

    def __init__(self, fd: int) -> None:
        self._channel = socket.socket(fileno=fd) if fd >= 0 else None
        if self._channel is not None:
            self._channel.setblocking(False)

    @contextmanager
    def received_socket(self) -> Iterator[int | None]:
        """Yield the descriptor of the slot socket, or None when none was sent.

        The supervisor sends it before `serve`. It is closed afterwards, so a server duplicates it.
        """
        descriptor = None
        if self._channel is not None:
            with suppress(BlockingIOError):
                _, (descriptor, *_), _, _ = socket.recv_fds(self._channel, 16, 1)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
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
