"""Sockets of ours on a port: left without a reset, counted until nobody is connected."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from gateway.transport.grpcio.sockets import count_connections, stop_listening, wait_for_disconnects


@contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    """A listening socket and its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener, listener.getsockname()[1]


def test_a_port_that_was_left_refuses_and_its_connections_stay() -> None:
    """Shut for newcomers; who was accepted goes on talking; other ports are not touched."""

    async def walk() -> None:
        with listening() as (listener, port), listening() as (_, other):
            with closing(socket.create_connection(("127.0.0.1", port))) as caller:
                taken, _ = listener.accept()
                with closing(taken):
                    await stop_listening(port)
                    with pytest.raises(ConnectionRefusedError):
                        socket.create_connection(("127.0.0.1", port))
                    taken.sendall(b"still here")
                    assert caller.recv(10) == b"still here"
            socket.create_connection(("127.0.0.1", other)).close()

    asyncio.run(walk())


def test_connections_that_wait_to_be_accepted_are_waited_for() -> None:
    """The kernel would reset them; the port is left once they are accepted."""

    async def walk() -> None:
        with (
            listening() as (listener, port),
            closing(socket.create_connection(("127.0.0.1", port))) as caller,
        ):
            leaving = asyncio.create_task(stop_listening(port))
            await asyncio.sleep(0.02)
            assert not leaving.done()
            taken, _ = listener.accept()
            with closing(taken):
                await leaving
                taken.sendall(b"accepted")
                assert caller.recv(8) == b"accepted"

    asyncio.run(walk())


def test_clients_are_counted_until_they_leave() -> None:
    """Listening sockets and the callers' own ends do not count."""

    async def walk() -> None:
        with listening() as (listener, port):
            assert count_connections(port) == 0
            caller = socket.create_connection(("127.0.0.1", port))
            taken, _ = listener.accept()
            assert count_connections(port) == 1
            assert not await wait_for_disconnects(port, 0.01)
            leaving = asyncio.create_task(wait_for_disconnects(port, 5.0))
            await asyncio.sleep(0)
            taken.close()
            assert await leaving
            caller.close()

    asyncio.run(walk())
