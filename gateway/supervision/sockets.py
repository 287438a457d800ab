"""The sockets that slots listen at: the supervisor makes them and lends them to the workers.

Who closes a listening socket has the kernel reset every connection that waits there. A slot's
socket therefore outlives its worker: whoever gets the slot next accepts from the same queue, and
nobody is lost between the two, be it a rolling restart, a crash or a worker that hung. A slot
without anybody to take it has no socket either: the kernel then uses the other slots', or refuses.

A door that opens the port by itself (grpcio's) leaves what it is lent alone: bound, not listening.
"""

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress


class SlotSockets:
    """The supervisor's side: one TCP port, a socket of it for each slot."""

    def __init__(self, host: str, port: int) -> None:
        """Reserve the port, 0 being a free one; OSError when it is taken."""
        self._host = host
        self._reserved = _bind_socket(host, port)
        self.port = int(self._reserved.getsockname()[1])
        self._slots: dict[int, socket.socket] = {}

    def send_socket(self, slot: int, channel: socket.socket) -> None:
        """Send the slot's socket to a worker. One that has gone is no matter: its line says so."""
        if slot not in self._slots:
            self._slots[slot] = _bind_socket(self._host, self.port)
        with suppress(OSError):
            socket.send_fds(channel, [b"%d" % slot], [self._slots[slot].fileno()])

    def close_except(self, slots: Collection[int]) -> None:
        """Close the sockets of all other slots: no worker is there to accept from them."""
        for slot in self._slots.keys() - set(slots):
            self._slots.pop(slot).close()

    def close(self) -> None:
        """Give the port back."""
        self.close_except(())
        self._reserved.close()


class LentSocket:
    """The worker's side."""

    def __init__(self, fd: int) -> None:
        """fd: the inherited end over which it comes; -1: nobody lends."""
        self._channel = socket.socket(fileno=fd) if fd >= 0 else None
        if self._channel is not None:
            self._channel.setblocking(False)

    @contextmanager
    def received_socket(self) -> Iterator[int | None]:
        """What was lent last, before the word to serve; a door copies it. None: nothing was."""
        lent = None
        if self._channel is not None:
            with suppress(BlockingIOError):
                _, (lent, *_), _, _ = socket.recv_fds(self._channel, 16, 1)
        try:
            yield lent
        finally:
            if lent is not None:
                os.close(lent)

    def close(self) -> None:
        """Borrow no more."""
        if self._channel is not None:
            self._channel.close()


def create_socket_channel() -> tuple[socket.socket, socket.socket]:
    """Return both ends of what a socket is lent over: the supervisor's, and one to inherit."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    return ours, theirs


def _bind_socket(host: str, port: int) -> socket.socket:
    """Bind without listening: the port is ours, 0 becomes a number, and no call arrives here."""
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
