"""A store whose replies the test writes, for replies that no real store gives."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import hiredis


@asynccontextmanager
async def fake_store(
    answer: Callable[[list[bytes]], bytes], socket: Path | None = None
) -> AsyncIterator[str]:
    """Serve at the URL that is yielded. *answer* gives the reply to each command except PING.

    An empty reply closes the connection.
    """
    connections: list[tuple[asyncio.Task[None] | None, asyncio.StreamWriter]] = []

    # A connection answers its commands in order, until a reply is empty or the caller closes it.
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append((asyncio.current_task(), writer))
        commands = hiredis.Reader()
        with suppress(OSError):
            while content := await reader.read(65_536):
                commands.feed(content)
                while command := commands.gets():
                    reply = b"+PONG\r\n" if command == [b"PING"] else answer(command)
                    if not reply:
                        writer.close()
                        return
                    writer.write(reply)
        writer.close()

    # Listen on the Unix socket, or on a free TCP port.
    if socket is None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    else:
        server = await asyncio.start_unix_server(serve, socket)
        url = f"unix://{socket}"
    try:
        yield url
    finally:
        server.close()
        for _, writer in connections:
            writer.transport.abort()
        await asyncio.gather(*(task for task, _ in connections if task), return_exceptions=True)
