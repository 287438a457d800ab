"""The sockets of this process on a port are shut down without a reset, and counted."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from host.sockets import count_connections, stop_listening, wait_for_disconnects


@contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    """Yield a listening socket and its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener, listener.getsockname()[1]


def test_stop_listening_refuses_new_connections_and_keeps_open_ones() -> None:
    """An accepted connection goes on, and other ports are not touched."""

    async def walk() -> None:
        with listening() as (listener, port), listening() as (_, other):
            with closing(socket.create_connection(("127.0.0.1", port))) as caller:
                accepted, _ = listener.accept()
                with closing(accepted):
                    await stop_listening(port)
                    with pytest.raises(ConnectionRefusedError):
                        socket.create_connection(("127.0.0.1", port))
                    accepted.sendall(b"still here")
                    assert caller.recv(10) == b"still here"
            socket.create_connection(("127.0.0.1", other)).close()

    asyncio.run(walk())


def test_stop_listening_waits_until_waiting_connections_are_accepted() -> None:
    """The kernel would reset them otherwise."""

    async def walk() -> None:
        with (
            listening() as (listener, port),
            closing(socket.create_connection(("127.0.0.1", port))) as caller,
        ):
            stopping = asyncio.create_task(stop_listening(port))
            await asyncio.sleep(0.02)
            assert not stopping.done()
            accepted, _ = listener.accept()
            with closing(accepted):
                await stopping
                accepted.sendall(b"accepted")
                assert caller.recv(8) == b"accepted"

    asyncio.run(walk())


def test_wait_for_disconnects_returns_when_all_clients_are_gone() -> None:
    """Listening sockets and the clients' ends in this process do not count."""

    async def walk() -> None:
        with listening() as (listener, port):
            assert count_connections(port) == 0
            caller = socket.create_connection(("127.0.0.1", port))
            accepted, _ = listener.accept()
            assert count_connections(port) == 1
            assert not await wait_for_disconnects(port, 0.01)
            stopping = asyncio.create_task(wait_for_disconnects(port, 5.0))
            await asyncio.sleep(0)
            accepted.close()
            assert await stopping
            caller.close()

    asyncio.run(walk())
