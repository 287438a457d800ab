"""Sockets that slots listen at: lent, shared, and closed where no worker is left."""

import os
import socket
from contextlib import closing

import pytest

from gateway.supervision.sockets import LentSocket, SlotSockets, create_socket_channel


def worker(ports: SlotSockets, slot: int) -> socket.socket | None:
    """Lend to somebody who listens at once; its own copy of the socket."""
    ours, theirs = create_socket_channel()
    with closing(ours), closing(LentSocket(theirs.detach())) as lent:
        ports.send_socket(slot, ours)
        with lent.received_socket() as fd:
            if fd is None:
                return None
            listener = socket.socket(fileno=os.dup(fd))
    listener.listen()
    listener.settimeout(5.0)
    return listener


def test_a_successor_accepts_who_waited_at_its_predecessors_socket() -> None:
    """One socket, two copies; the first is closed with somebody waiting, and nobody is reset."""
    with closing(SlotSockets("127.0.0.1", 0)) as ports:
        old = worker(ports, 0)
        assert old is not None
        with closing(socket.create_connection(("127.0.0.1", ports.port), 5.0)) as caller:
            new = worker(ports, 0)
            old.close()
            assert new is not None
            with closing(new), closing(new.accept()[0]) as taken:
                taken.sendall(b"here")
                assert caller.recv(4) == b"here"


def test_a_slot_without_a_worker_has_no_socket() -> None:
    """Its queue would take connections for ever; other slots keep theirs, and it gets a new one."""
    with closing(SlotSockets("127.0.0.1", 0)) as ports:
        first, second = worker(ports, 0), worker(ports, 1)
        assert first is not None
        assert second is not None
        with closing(second):
            first.close()
            ports.close_except([1])
            for _ in range(20):  # the kernel has only slot 1's to choose from
                with closing(socket.create_connection(("127.0.0.1", ports.port), 5.0)):
                    second.accept()[0].close()
        ports.close_except(())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ports.port), 5.0)
        again = worker(ports, 0)
        assert again is not None
        with closing(again):
            socket.create_connection(("127.0.0.1", ports.port), 5.0).close()


def test_nothing_lent_is_nothing_taken() -> None:
    """A worker that was started by hand, and one that asks before anything came."""
    with LentSocket(-1).received_socket() as fd:
        assert fd is None
    ours, theirs = create_socket_channel()
    with closing(ours), closing(LentSocket(theirs.detach())) as lent, lent.received_socket() as fd:
        assert fd is None


def test_a_worker_that_has_gone_is_lent_to_in_vain() -> None:
    """No error: its line tells."""
    with closing(SlotSockets("127.0.0.1", 0)) as ports:
        ours, theirs = create_socket_channel()
        theirs.close()
        with closing(ours):
            ports.send_socket(0, ours)
