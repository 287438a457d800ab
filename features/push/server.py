"""Serves turnout.v1.Features, with its health, and does what is due beside the calls."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc
import redis
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from access import streams
from access.bounds import MESSAGE_BYTES_MAX
from access.interceptor import access_interceptor
from access.peer_tls import ServerCertificate, add_port
from features.errors import ForeignStoreError, OnlineStoreError, SourceError
from features.offline import OfflineStore
from features.push.caller_rates import ROWS_S, CallerRates
from features.push.row_queue import RowQueue
from features.push.service import SERVICE, FeaturesService
from features.push.view_editions import ReadViews, ViewEditions
from features.push.writer import EditionWriter
from features.storage.pushed_log import has_log
from features.views import View
from host.clock import Clock, SystemClock

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
"""Time for calls in progress when the server stops."""
STORE_S = 2.0
"""Bound on the online store's replies."""
WORK_S = 1.0
"""Pause between two looks at what is due."""
VIEWS_S = 15.0
"""Pause between two reads of the views."""
COUNTS_S = 60.0
"""Pause between two lines with counts in the log."""

SERVER_OPTIONS = (
    *streams.SERVER_OPTIONS,
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),
)


class FeaturesServer:
    """A server of pushed rows. `serve_features` makes it."""

    def __init__(
        self,
        editions: ViewEditions,
        offline: OfflineStore,
        client: redis.Redis,
        rates: CallerRates,
        server: grpc.aio.Server,
    ) -> None:
        self._editions = editions
        self._offline = offline
        self._client = client
        self._server = server
        self._writers: dict[str, tuple[EditionWriter, RowQueue]] = {}
        self._service = FeaturesService(editions, rates, self._queue_of)
        self._health = health.HealthServicer()
        server.add_generic_rpc_handlers((self._service.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)  # type: ignore[no-untyped-call]
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0

    async def start(self, port: int) -> None:
        """Start the server, which listens on *port* already."""
        self.port = port
        await _once(self._read_views)
        await self._server.start()
        self._tasks = [
            streams.keep_client_connections(port),
            asyncio.create_task(_repeat(VIEWS_S, self._read_views)),
            asyncio.create_task(_repeat(WORK_S, self._work)),
            asyncio.create_task(_repeat(COUNTS_S, self._log_counts)),
        ]

    async def stop(self) -> None:
        """Finish the calls in progress within 5 s, refuse others, and close the stores.

        Health says NOT_SERVING at once. Rows of calls that were cut off are stored or not; their
        callers send them again.
        """
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_GRACE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer, queue in self._writers.values():
            await queue.drain()
            writer.close()
        self._client.close()
        await self._log_counts()

    def _queue_of(self, view: View) -> RowQueue:
        return self._open(view)[1]

    def _open(self, view: View) -> tuple[EditionWriter, RowQueue]:
        opened = self._writers.get(view.view_hash)
        if opened is None:
            assert self._editions.served is not None  # the view came from there
            system = self._editions.served.system
            writer = EditionWriter(view, self._offline, self._client, system)
            opened = self._writers[view.view_hash] = (writer, RowQueue(writer))
        return opened

    async def _read_views(self) -> None:
        """Read the views, and open those of which rows were pushed before."""
        await self._editions.read_again()
        served = self._editions.served
        ready = health_pb2.HealthCheckResponse.SERVING
        if served is None:
            ready = health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, ready)
        for view in () if served is None else served.views:
            if has_log(self._offline.folder(view)):
                self._open(view)

    async def _work(self) -> None:
        """Write online what an outage left behind, and make ingests of pushed rows."""
        for writer, _ in list(self._writers.values()):
            try:
                written = await asyncio.to_thread(writer.catch_up)
                if written:
                    log.info("caught up view=%s rows=%d", writer.view.name, written)
            except OnlineStoreError:
                pass  # each call has logged it
            except ForeignStoreError as error:
                log.warning("FOREIGN STORE: %s", error)
            try:
                settled = await asyncio.to_thread(writer.settle_when_due)
                if settled:
                    log.info("settled view=%s rows=%d", writer.view.name, settled)
            except (SourceError, sqlite3.Error, OSError) as error:
                log.warning("PUSHED ROWS NOT SETTLED view=%s: %s", writer.view.name, error)

    async def _log_counts(self) -> None:
        """Write one line for each view with rows since the last one."""
        counts = self._service.counts
        for view in sorted({name for name, _ in counts}):
            statuses = ("written", "older", "duplicate", "refused")
            shown = " ".join(f"{status}={counts[view, status]}" for status in statuses)
            log.info("pushed view=%s %s", view, shown)
        counts.clear()


async def serve_features(
    listen: str,
    *,
    read_views: ReadViews,
    offline: OfflineStore,
    client: redis.Redis,
    identities: Sequence[Path] = (),
    certificate: ServerCertificate | None = None,
    rows_s: int = ROWS_S,
    clock: Clock | None = None,
) -> FeaturesServer:
    """Serve pushes on *listen*, host:port. Port 0 takes a free port.

    offline      the offline store, on a disk of this host.
    client       a client of the online store with STORE_S as its timeout. The server closes it.
    identities   files of tokens (docs/governance.md). Without one every caller may push.
    certificate  None: plain text, to which no client sends a token.
    rows_s       rows of one caller in a second.

    Raises IdentitiesFileError, PeerError, and RuntimeError when it cannot listen there.
    """
    clock = clock or SystemClock()
    server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=(access_interceptor(identities),))
    serving = FeaturesServer(
        ViewEditions(read_views, clock), offline, client, CallerRates(rows_s, clock), server
    )
    await serving.start(add_port(server, listen, certificate))
    return serving


async def _repeat(pause_s: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do *work* again and again."""
    while True:
        await asyncio.sleep(pause_s)
        await _once(work)


async def _once(work: Callable[[], Awaitable[None]]) -> None:
    """Do *work*. What it raises is logged, so that calls go on and the next turn comes."""
    try:
        await work()
    except Exception:
        log.exception("work beside the calls failed")
