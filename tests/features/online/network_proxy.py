"""A TCP proxy between a client and a store that delays, cuts and swallows replies."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class NetworkProxy:
    """Settings and state of a running proxy. A test may change the settings at any time."""

    port: int = 0
    delay_s: float = 0.0
    """Delay before each piece of a reply."""
    piece_bytes: int = 65_536
    """Size of the pieces in which replies are passed on."""
    swallow: bool = False
    """True: read all bytes and pass none on."""
    cut_after_bytes: int = 0
    """Reset the connection (RST) after this many bytes of a reply. 0 never resets."""
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The URL at which clients reach the store through the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    def reset_connections(self) -> None:
        """Abort every connection."""
        for writer in self.writers:
            writer.transport.abort()

    async def copy_bytes(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        """Copy one direction until it ends."""
        with suppress(OSError):
            while content := await reader.read(65_536):
                if self.swallow:
                    continue
                if replies and self.cut_after_bytes:
                    writer.write(content[: self.cut_after_bytes])
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return
                size = self.piece_bytes if replies else len(content)
                for start in range(0, len(content), size):
                    if replies and self.delay_s:
                        await asyncio.sleep(self.delay_s)
                    writer.write(content[start : start + size])
                    await writer.drain()
        writer.close()


@asynccontextmanager
async def network_proxy_to(url: str) -> AsyncIterator[NetworkProxy]:
    """Run a proxy in front of the store at *url*."""
    proxy = NetworkProxy()
    store_port = urlsplit(url).port
    accepted: list[asyncio.Task[None] | None] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.connections += 1
        accepted.append(asyncio.current_task())
        try:
            store_reader, store_writer = await asyncio.open_connection("127.0.0.1", store_port)
        except OSError:
            writer.transport.abort()
            return
        proxy.writers += [writer, store_writer]
        await asyncio.gather(
            proxy.copy_bytes(reader, store_writer, replies=False),
            proxy.copy_bytes(store_reader, writer, replies=True),
        )

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.reset_connections()
        await asyncio.gather(*(task for task in accepted if task), return_exceptions=True)
