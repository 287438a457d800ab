"""Slot sockets are lent to workers, shared by them, and closed when no worker is left."""

import os
import socket
from contextlib import closing

import pytest

from gateway.supervision.sockets import LentSockets, SlotSockets, create_socket_channel


def listening_worker(slot_sockets: SlotSockets, slot: int) -> socket.socket | None:
    """Send the slot's socket to a worker that listens at once; return the worker's copy of it."""
    parent_end, child_end = create_socket_channel()
    with closing(parent_end), closing(LentSockets(child_end.detach())) as lent_sockets:
        slot_sockets.send_sockets(slot, parent_end)
        with lent_sockets.received_sockets() as descriptors:
            if not descriptors:
                return None
            listener = socket.socket(fileno=os.dup(descriptors[0]))
    listener.listen()
    listener.settimeout(5.0)
    return listener


def test_slot_socket_keeps_waiting_connections_for_the_next_worker() -> None:
    """A worker closes its copy while a connection waits; the next worker accepts it."""
    with closing(SlotSockets("127.0.0.1", 0)) as slot_sockets:
        old = listening_worker(slot_sockets, 0)
        assert old is not None
        with closing(socket.create_connection(("127.0.0.1", slot_sockets.port), 5.0)) as caller:
            new = listening_worker(slot_sockets, 0)
            old.close()
            assert new is not None
            with closing(new), closing(new.accept()[0]) as accepted:
                accepted.sendall(b"here")
                assert caller.recv(4) == b"here"


def test_slot_sockets_close_the_socket_of_a_slot_without_a_worker() -> None:
    """Its queue would collect connections. The slot gets a new socket with its next worker."""
    with closing(SlotSockets("127.0.0.1", 0)) as slot_sockets:
        first, second = listening_worker(slot_sockets, 0), listening_worker(slot_sockets, 1)
        assert first is not None
        assert second is not None
        with closing(second):
            first.close()
            slot_sockets.close_except([1])
            for _ in range(20):  # the kernel can only choose slot 1's socket
                with closing(socket.create_connection(("127.0.0.1", slot_sockets.port), 5.0)):
                    second.accept()[0].close()
        slot_sockets.close_except(())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", slot_sockets.port), 5.0)
        again = listening_worker(slot_sockets, 0)
        assert again is not None
        with closing(again):
            socket.create_connection(("127.0.0.1", slot_sockets.port), 5.0).close()


def test_lent_sockets_are_none_when_nothing_was_sent() -> None:
    """A worker started by hand has no channel; another has a channel without a socket."""
    with LentSockets(-1).received_sockets() as descriptors:
        assert descriptors == []
    parent_end, child_end = create_socket_channel()
    with (
        closing(parent_end),
        closing(LentSockets(child_end.detach())) as lent_sockets,
        lent_sockets.received_sockets() as descriptors,
    ):
        assert descriptors == []


def test_slot_sockets_ignore_a_worker_that_is_gone() -> None:
    """There is no error; the end of its control connection informs the supervisor."""
    with closing(SlotSockets("127.0.0.1", 0)) as slot_sockets:
        parent_end, child_end = create_socket_channel()
        child_end.close()
        with closing(parent_end):
            slot_sockets.send_sockets(0, parent_end)


def test_slot_sockets_of_localhost_are_of_both_families() -> None:
    """Both have one port; a client that asks for `localhost` may try either."""
    with closing(SlotSockets("localhost", 0)) as slot_sockets:
        parent_end, child_end = create_socket_channel()
        with closing(parent_end), closing(LentSockets(child_end.detach())) as lent_sockets:
            slot_sockets.send_sockets(0, parent_end)
            with lent_sockets.received_sockets() as descriptors:
                names = []
                for descriptor in descriptors:
                    with socket.socket(fileno=os.dup(descriptor)) as bound:
                        names.append(bound.getsockname()[:2])
    assert names == [("127.0.0.1", slot_sockets.port), ("::1", slot_sockets.port)]
