"""Keeps a connection to the online store for the I/O thread, which reads by itself (decision 0100).

The I/O thread knows nothing of addresses, passwords and Sentinel. It gives a connection up when a
read is late or fails. The event loop has a reader with a circuit breaker, which decides what a bad
store means. So the thread has a connection only while the reader's own is healthy.
"""

import asyncio
import logging
import os

from features.online.reader import OnlineReader
from gateway.transport.native.server import NativeServer
from host.retry import Backoff

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""Time between two looks at both connections."""
PAUSE_S_MAX = 5.0
"""Longest pause before the next connection. It doubles with each connection that was lost soon."""
STEADY_S = 10.0
"""A connection that lived longer than this was not lost soon."""


class IoThreadStore:
    """Gives the I/O thread of *server* a connection to the store that *reader* reads."""

    def __init__(self, server: NativeServer, reader: OnlineReader) -> None:
        self._server = server
        self._reader = reader
        self._backoff = Backoff(LOOK_S, PAUSE_S_MAX)
        self._used_connection = 0
        """The number of the reader's connection when the thread's was made."""
        self._used_s = 0.0
        self.connections = 0
        """How many connections the thread was given."""

    async def keep(self) -> None:
        """Connect the I/O thread whenever the reader is healthy and the thread is not connected."""
        loop = asyncio.get_running_loop()
        given = False
        while True:
            connected, reason = self._server.store_state()
            if connected and not self._is_healthy():
                self._server.leave_store()
                given, connected = False, True
            # A connection that was lost soon is made again later.
            pause_s = LOOK_S
            if given and not connected:
                given = False
                log.info("io_thread_store lost reason=%s", reason)
                if loop.time() - self._used_s > STEADY_S:
                    self._backoff.reset()
                pause_s = self._backoff.next_s()
            elif not connected and self._reader.connected and self._reader.state == "closed":
                given = await self._connect()
                pause_s = LOOK_S if given else self._backoff.next_s()
            await asyncio.sleep(pause_s)

    def _is_healthy(self) -> bool:
        """Whether the reader still has the connection beside which the thread's was made.

        With a new connection, the store may be another one: Sentinel may have named a new master.
        """
        reader = self._reader
        same = reader.counts.connected == self._used_connection
        return reader.connected and reader.state == "closed" and same

    async def _connect(self) -> bool:
        """Make a connection for the thread. Returns whether that succeeded."""
        self._used_connection = self._reader.counts.connected
        self._used_s = asyncio.get_running_loop().time()
        try:
            fd = await self._reader.open_socket()
            try:
                self._server.use_store(fd)
            finally:
                os.close(fd)
        except Exception as error:  # noqa: BLE001  the event loop reads, too
            log.info("io_thread_store not_connected reason=%r", error)
            return False
        self.connections += 1
        return True
