"""A TCP proxy that does to a store's replies what networks do."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class NetworkProxy:
    """Change its fields while it runs."""

    port: int = 0
    delay_s: float = 0.0
    """Before each piece of a reply is passed on."""
    piece_bytes: int = 65_536
    """Replies are passed on in pieces of this size."""
    swallow: bool = False
    """Take what comes and pass nothing on."""
    cut_after_bytes: int = 0
    """Reset the connection (RST) after this much of a reply; 0: never."""
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the store seems to be."""
        return f"redis://127.0.0.1:{self.port}/0"

    def reset_connections(self) -> None:
        """Break every connection."""
        for writer in self.writers:
            writer.transport.abort()

    async def pass_on(
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
    """Stand between a client and the store at *url*."""
    proxy = NetworkProxy()
    store_port = urlsplit(url).port
    accepted: list[asyncio.Task[None] | None] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.connections += 1
        accepted.append(asyncio.current_task())
        try:
            there, out = await asyncio.open_connection("127.0.0.1", store_port)
        except OSError:
            writer.transport.abort()
            return
        proxy.writers += [writer, out]
        await asyncio.gather(
            proxy.pass_on(reader, out, replies=False), proxy.pass_on(there, writer, replies=True)
        )

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.reset_connections()
        await asyncio.gather(*(task for task in accepted if task), return_exceptions=True)
