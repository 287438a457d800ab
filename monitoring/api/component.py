"""Monitoring as a part of a process: its services, its database and what it does by the clock."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import grpc

from host.files import make_private_folder
from monitoring.api.bins_cache import BinsCache
from monitoring.api.decision_policy import DecisionPolicy, day_of_id
from monitoring.api.service import CellSinkService, MonitoringService, service_handler
from monitoring.cohorts.sensitive_attributes import OnlineStoreAddress
from monitoring.decisions.decision_store import DecisionStore
from monitoring.errors import MonitoringStoreError
from monitoring.store.cell_rows import Retention
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.window_counts import WindowBatchRows
from protos import window_pb2
from registry.client import RegistryClient

log = logging.getLogger(__name__)

WINDOWS_S = 2.0
"""Time between two writes of what windows say. A kill loses that much of it, which shows as a gap
in the numbers of their batches."""
WINDOW_BATCHES_MAX = 20_000
"""Batches that wait for the database; beyond it the oldest are dropped, which shows as a gap."""
ROLL_UP_S = 600.0
COMPACT_S = 30.0
"""Time between two looks at decisions that are in no file yet."""
DAY_NS = 86_400 * 10**9
HOUR_S = 3_600
NS_PER_S = 10**9


def database_url(folder: Path, url: str) -> str:
    """Return *url*, or that of the SQLite file in *folder*."""
    return url or f"sqlite:///{folder.absolute() / 'monitoring.sqlite'}"


class MonitoringComponent:
    """The services of monitoring in one process.

    Call `start` after the server has started, because the registry may be on the same server.

    folder       for the database and the files of decisions. It is made if need be.
    url          of the database; empty: SQLite in *folder*.
    registry     host:port of the registry, from which versions are read.
    retention    how long cells and outcomes are kept.
    decisions    of which keys rows are kept; None: of none.
    online_store  from which looks at fairness read sensitive attributes; None: from none.
    actor, token, certificate  as for registry.client.RegistryClient.

    Raises MonitoringStoreError when the database cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        registry: str,
        *,
        actor: str = "monitoring",
        token: str | None = None,
        certificate: Path | None = None,
        retention: Retention | None = None,
        decisions: DecisionPolicy | None = None,
        online_store: OnlineStoreAddress | None = None,
    ) -> None:
        make_private_folder(folder)
        self._retention = retention or Retention()
        self._policy = decisions or DecisionPolicy()
        self.online_store = online_store
        if self._policy.keeps_any and find_spec("duckdb") is None:
            raise MonitoringStoreError(
                "decisions are Parquet files, which need DuckDB: install turnout[training] beside "
                "turnout[control], or keep no decisions"
            )
        # The decisions are stored in the transaction of their batch.
        database = MonitoringDatabase(database_url(folder, url))
        self.decisions = DecisionStore(folder / "decisions", database, day_of_id)
        self.store = MonitoringStore(
            database, lambda: time.time_ns() // 1_000_000, self.decisions.add_batch
        )
        self._registry = RegistryClient(registry, actor, token, certificate=certificate)
        self._bins = BinsCache(self._registry, self.store)
        # One thread: the database takes one writer at a time, and rollouts keep the processor.
        self._thread = ThreadPoolExecutor(1, "monitoring")
        self._windows: list[WindowBatchRows] = []
        self._tasks: list[asyncio.Task[None]] = []

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve CellSink and Monitoring on *server*, which must not have started yet.

        The server needs an AccessInterceptor, which gives each call its identity.
        """
        sink = CellSinkService(self.store, self._bins, self._policy, self._thread)
        status = MonitoringService(self.store, self.decisions.rows, self._thread)
        server.add_generic_rpc_handlers(
            (service_handler("CellSink", sink), service_handler("Monitoring", status))
        )

    def note_windows(self, batch: window_pb2.WindowBatch) -> None:
        """Take the rows of a gateway worker's windows, which coverage is measured by.

        It costs a sum and never waits. What the controller of rollouts refuses is counted too.
        """
        source = batch.source
        rows: Counter[tuple[str, str, int]] = Counter()
        calls: Counter[tuple[str, str, int]] = Counter()
        for window in batch.windows:
            key = window.model, window.version, window.second // HOUR_S
            rows[key] += window.rows
            calls[key] += window.calls.answered
        self._windows.append(
            WindowBatchRows(
                f"{source.gateway}/{source.slot}/{source.boot_id:016x}",
                batch.sequence,
                rows,
                calls,
                batch.sent_unix_ns // NS_PER_S // HOUR_S,
            )
        )
        if len(self._windows) > WINDOW_BATCHES_MAX:
            del self._windows[: WINDOW_BATCHES_MAX // 2]

    async def start(self) -> None:
        """Open the connection to the registry, and begin what is done by the clock."""
        await self._registry.__aenter__()
        await self._in_thread(self.decisions.delete_unnamed_files)
        self._tasks = [
            asyncio.ensure_future(self._every(WINDOWS_S, self._write_windows)),
            asyncio.ensure_future(self._every(ROLL_UP_S, self._roll_up)),
            asyncio.ensure_future(self._every(COMPACT_S, self._compact)),
        ]

    async def stop(self) -> None:
        """Write what waits, and close the database. The server has stopped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(MonitoringStoreError):
            await self._in_thread(self._write_windows)
        self._thread.shutdown()
        await self._registry.__aexit__(None, None, None)
        self.store.close()

    async def _every(self, seconds: float, work: Callable[[], None]) -> None:
        """Do *work* in the thread again and again. What the database refuses is tried again."""
        failing = False
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._in_thread(work)
                failing = False
            except MonitoringStoreError as error:
                if not failing:
                    log.warning("%s", error)
                failing = True

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _write_windows(self) -> None:
        waiting = self._windows[:]
        if waiting:
            self.store.add_windows(waiting)
            del self._windows[: len(waiting)]

    def _compact(self) -> None:
        if self.decisions.compact():
            day = time.time_ns() // DAY_NS
            self.decisions.delete_before(day - self._policy.days)

    def _roll_up(self) -> None:
        rolled = self.store.roll_up(int(time.time()) // HOUR_S, self._retention)
        if rolled:
            log.info("rolled %d cells up", rolled)
