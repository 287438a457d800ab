"""A receiver of notices on loopback, which answers, refuses or hangs as the test says."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ReceivedNotice:
    """One POST: its path, headers and body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:  # noqa: ANN401  any JSON
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class NoticeReceiver:
    """What came, and how the next POSTs are answered."""

    url: str
    received: list[ReceivedNotice] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """Answers of the next POSTs: a status such as "503", "hang" or "drip"; then 200."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, count: int, seconds: float = 30.0) -> list[ReceivedNotice]:
        """Return what came once these many POSTs were read."""
        async with asyncio.timeout(seconds):
            while len(self.received) < count:
                self.news.clear()
                await self.news.wait()
        return self.received


@asynccontextmanager
async def notice_receiver(port: int = 0) -> AsyncIterator[NoticeReceiver]:
    """Listen on loopback while the block runs."""
    receiver = NoticeReceiver("")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            raw = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers["content-length"]))
            receiver.received.append(ReceivedNotice(head[0].split()[1], raw, body))
            receiver.news.set()
            # Answer as the test says.
            how = receiver.answers.pop(0) if receiver.answers else "200"
            if how in ("hang", "drip"):
                # One byte at a time, for ever; or nothing.
                while await _still_open(reader):
                    if how == "drip":
                        writer.write(b"H")
            writer.write(f"HTTP/1.1 {how} x\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _still_open(reader: asyncio.StreamReader) -> bool:
        try:
            async with asyncio.timeout(0.05):
                return bool(await reader.read(1))
        except TimeoutError:
            return True

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        server.close()
