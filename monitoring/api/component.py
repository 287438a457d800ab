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

from host.clock import DAY_NS, HOUR_S
from host.files import make_private_folder
from monitoring.api.bins_cache import BinsCache
from monitoring.api.decision_policy import day_of_id
from monitoring.api.entity_outcomes import EntityOutcomes
from monitoring.api.outcome_segments import OutcomeSegments
from monitoring.api.outside_imports import OutsideImports
from monitoring.api.pages import ListPages
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.api.removal import PersonRemoval
from monitoring.api.service import CellSinkService, MonitoringService, service_handler
from monitoring.cohorts.sensitive_attributes import (
    AttributeSource,
    OnlineAttributes,
    OnlineStoreAddress,
)
from monitoring.decisions.answered_rows import AnsweredRows
from monitoring.decisions.day_rows import DayRows
from monitoring.decisions.decision_store import SMALLEST_SIZE_ROWS, DecisionStore
from monitoring.decisions.scored_inputs import ScoredRows
from monitoring.errors import MonitoringError, MonitoringStoreError
from monitoring.incidents.other_changes import OtherChanges
from monitoring.looks.budget_look import BudgetLook
from monitoring.looks.coverage_look import CoverageLook
from monitoring.looks.day_looks import DayLook
from monitoring.looks.drift_look import DriftLook
from monitoring.looks.estimate_look import EstimateLook
from monitoring.looks.fairness_look import FairnessLook, fairness_detectors
from monitoring.looks.few_labels_look import FewLabelsLook
from monitoring.looks.harm_look import harm_detectors
from monitoring.looks.quality_look import QualityLook
from monitoring.looks.uplift_look import HoldoutOf, UpliftLook, uplift_detectors
from monitoring.metrics.control_metrics import ControlMetrics
from monitoring.metrics.page import MetricsAddress
from monitoring.store.cell_rows import Retention
from monitoring.store.cohort_store import CohortStore
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import LookStore
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.pages import PageStore
from monitoring.store.window_counts import WindowBatchRows
from monitoring.watch.holdouts import HoldoutHistory
from monitoring.watch.minute_counts import MinuteCounts
from monitoring.watch.model_watcher import ModelWatcher
from protos import window_pb2
from registry.client import RegistryClient
from registry.types import RegistryError
from registry.watching.applied_policies import AppliedPolicies

log = logging.getLogger(__name__)

WINDOWS_S = 2.0
"""Time between two writes of what windows say. A kill loses that much of it, which shows as a gap
in the numbers of their batches."""
WINDOW_BATCHES_MAX = 20_000
"""Batches that wait for the database; beyond it the oldest are dropped, which shows as a gap."""
MINUTES_S = 15.0
"""Time between two writes of the minutes in which models were called."""
ROLL_UP_S = 600.0
POLICIES_S = 60.0
"""Time between two looks at the policies that say what readers count and keep."""
BLOCK_DAYS = 3
"""Whole days before today for which decisions stay in the database without DuckDB."""
NO_DUCKDB = (
    "DuckDB is not installed, so decisions stay in the database for 3 days and no Parquet is "
    "written; install turnout[training] beside turnout[control]"
)
COMPACT_ALL = 12
"""Every so many turns, which is once an hour, all waiting rows become files, however few."""
COMPACT_S = 300.0
"""Time between two looks at decisions that are in no file yet. A file costs a hundredth of a second
for each model, whatever its size."""
ATTRIBUTE_S = 60.0
"""Time between the beginnings of two searches for predictions of outcomes by entity."""
ATTRIBUTE_MAX_S = 15.0
"""Time of each minute for pages of such outcomes. Other work of the database comes between two
pages."""
DAY_HOURS = 24
NS_PER_S = 10**9


def database_url(folder: Path, url: str) -> str:
    """Return *url*, or that of the SQLite file in *folder*."""
    return url or f"sqlite:///{folder.absolute() / 'monitoring.sqlite'}"


def day_looks(
    database: MonitoringDatabase,
    store: MonitoringStore,
    rows: DayRows,
    holdout_of: HoldoutOf,
    attributes: AttributeSource | None = None,
) -> tuple[DayLook, ...]:
    """Return the looks at a day, in the order in which they are made."""
    looks, cohorts = LookStore(database), CohortStore(database)
    return (
        CoverageLook(store, looks),
        DriftLook(looks),
        QualityLook(cohorts, rows),
        FewLabelsLook(cohorts, rows),
        EstimateLook(cohorts, rows),
        UpliftLook(cohorts, holdout_of, rows),
        FairnessLook(cohorts, attributes, rows),
        BudgetLook(looks, (harm_detectors, fairness_detectors, uplift_detectors)),
    )


class MonitoringComponent:
    """The services of monitoring in one process.

    Call `start` after the server has started, because the registry may be on the same server.

    folder       for the database and the files of decisions. It is made if need be.
    url          of the database; empty: SQLite in *folder*.
    registry     host:port of the registry, from which versions are read.
    retention    how long cells and outcomes are kept.
    decisions    of 65,536 keys, those of which rows are kept; None: as the policies say.
    metrics      where the metrics page is; None: there is none.
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
        decisions: int | None = None,
        metrics: MetricsAddress | None = None,
        online_store: OnlineStoreAddress | None = None,
    ) -> None:
        # What is kept, and for how long.
        make_private_folder(folder)
        self._retention = retention or Retention()
        self._reader_policies = ReaderPolicies(decisions)
        self._policies = AppliedPolicies()
        # Blocks in the database feed the looks of a day, also where no file can be written.
        self._decisions_problem = "" if decisions == 0 or find_spec("duckdb") else NO_DUCKDB
        if self._decisions_problem:
            log.warning("%s", self._decisions_problem)
        # The decisions are stored in the transaction of their batch.
        database = MonitoringDatabase(database_url(folder, url))
        self.decisions = DecisionStore(folder / "decisions", database, day_of_id)
        self.looks = LookStore(database)
        self._counts = MinuteCounts(lambda model, digest8: self.store.find_version(model, digest8))
        self.store = MonitoringStore(
            database,
            lambda: time.time_ns() // 1_000_000,
            self.decisions.add_batch,
            self._counts.note_cells,
        )
        self.pages = PageStore(database)
        self._registry = RegistryClient(registry, actor, token, certificate=certificate)
        self.metrics = ControlMetrics(metrics, self.store, self.pages, self._registry)
        # What looks at it, and opens incidents.
        self._changes = OtherChanges()
        self._day_rows = DayRows(folder / "decisions", database)
        self._watcher = self._watcher_of(database, online_store)
        self._bins = BinsCache(self._registry, self.store)
        rows = ScoredRows(folder / "decisions", database)
        self._segments = OutcomeSegments(rows, self.store.find_version)
        self._answers = AnsweredRows(folder / "decisions", database)
        self._entity_outcomes = EntityOutcomes(
            self.store,
            self._answers,
            self._segments,
            self._reader_policies,
        )
        # One thread: the database takes one writer at a time, and rollouts keep the processor.
        self._thread = ThreadPoolExecutor(1, "monitoring")
        self._windows: list[WindowBatchRows] = []
        self._compactions = 0
        self._tasks: list[asyncio.Task[None]] = []

    def _watcher_of(
        self, database: MonitoringDatabase, online_store: OnlineStoreAddress | None
    ) -> ModelWatcher:
        """Return what makes the looks."""
        attributes, holdouts = None, HoldoutHistory()
        if online_store is not None:
            attributes = OnlineAttributes(online_store.open, self._policies.view)
        return ModelWatcher(
            self._registry,
            self.store,
            self.looks,
            self._day_rows,
            day_looks(database, self.store, self._day_rows, holdouts.holdout_of, attributes),
            self._counts,
            self._changes,
            self._policies,
            holdouts,
        )

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve CellSink and Monitoring on *server*, which must not have started yet.

        The server needs an AccessInterceptor, which gives each call its identity.
        """
        sink = CellSinkService(
            self.store, self._bins, self._reader_policies, self._segments, self._thread
        )
        removal = PersonRemoval(self.store, self.decisions, self._thread, sink.refuse_read_batches)
        imports = OutsideImports(
            self._registry, self.store, self._answers, self._reader_policies, self._thread
        )
        status = MonitoringService(
            self.store,
            ListPages(self.pages),
            self.decisions,
            self._reader_policies,
            removal,
            imports,
            self._thread,
            self._decisions_problem,
        )
        server.add_generic_rpc_handlers(
            (service_handler("CellSink", sink), service_handler("Monitoring", status))
        )

    def note_windows(self, batch: window_pb2.WindowBatch) -> None:
        """Take the rows of a gateway worker's windows, which coverage is measured by.

        It costs a sum and never waits. What the controller of rollouts refuses is counted too.
        """
        self._counts.note_windows(batch)
        self._changes.note_windows(batch)
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
            asyncio.ensure_future(self._every(MINUTES_S, self._write_minutes)),
            asyncio.ensure_future(self._every(ROLL_UP_S, self._roll_up)),
            asyncio.ensure_future(self._every(COMPACT_S, self._compact)),
            asyncio.ensure_future(
                self._every(ATTRIBUTE_S, self._entity_outcomes.attribute, ATTRIBUTE_MAX_S)
            ),
        ]
        self._tasks.append(asyncio.ensure_future(self._apply_policies()))
        await self._watcher.start()
        await self.metrics.start()

    async def stop(self) -> None:
        """Write what waits, and close the database. The server has stopped."""
        await self.metrics.stop()
        await self._watcher.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(MonitoringStoreError):
            await self._in_thread(self._write_windows)
            await self._in_thread(self._write_minutes)
        self._thread.shutdown()
        await self._registry.__aexit__(None, None, None)
        self.store.close()

    async def _every(
        self, seconds: float, work: Callable[[], object], repeated_s: float = 0.0
    ) -> None:
        """Do *work* in the thread again and again, each time as `_repeat` does.

        *seconds* are between the end of the work and its next beginning, or between two beginnings
        if the work is repeated. What database or disk refuse is tried again.
        """
        failing, rest_s = False, seconds
        while True:
            await asyncio.sleep(rest_s)
            begun_s = time.monotonic()
            try:
                await self._repeat(work, repeated_s)
                failing = False
            except (MonitoringError, OSError) as error:
                self.metrics.note_store_error()
                if not failing:
                    log.warning("%s", error)
                failing = True
            except Exception:  # what is done by the clock goes on, and the log says what failed
                log.exception("monitoring: %s failed and is tried again", work.__name__)
            if repeated_s:
                rest_s = max(seconds - (time.monotonic() - begun_s), 0.0)

    async def _repeat(self, work: Callable[[], object], repeated_s: float) -> None:
        """Do *work*, and do it again while it did something and took less than *repeated_s*.

        Other work that waits for the thread comes in between, and its time does not count.
        """
        taken_s = 0.0

        def timed() -> object:
            nonlocal taken_s
            started_s = time.monotonic()
            done = work()
            taken_s += time.monotonic() - started_s
            return done

        while await self._in_thread(timed) and taken_s < repeated_s:
            pass

    async def _in_thread(self, work: Callable[[], object]) -> object:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _write_windows(self) -> None:
        waiting = self._windows[:]
        if waiting:
            self.store.add_windows(waiting)
            del self._windows[: len(waiting)]

    def _write_minutes(self) -> None:
        minutes = self._counts.take_minutes()
        if minutes:
            self.store.add_call_minutes(minutes)

    def _compact(self) -> None:
        day = time.time_ns() // DAY_NS
        if self._decisions_problem:
            self.decisions.delete_blocks_before(day - BLOCK_DAYS)
        else:
            self._compactions += 1
            everything = self._compactions % COMPACT_ALL == 0
            self.decisions.compact(rows_min=1 if everything else SMALLEST_SIZE_ROWS)
        self.decisions.delete_before(day - self._reader_policies.current.days)

    async def _apply_policies(self) -> None:
        """Take the policies again and again, with the rows by which shares of decisions are set."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                policies = await self._policies.refresh(self._registry)
                hour = int(time.time()) // HOUR_S
                midnight = hour // DAY_HOURS * DAY_HOURS
                yesterday, today = [
                    await loop.run_in_executor(
                        self._thread, self.store.rows_by_model, start, start + DAY_HOURS
                    )
                    for start in (midnight - DAY_HOURS, midnight)
                ]
                self._reader_policies.apply(policies, midnight // DAY_HOURS, yesterday, today)
            except (RegistryError, MonitoringStoreError) as error:
                log.info("readers are told what they were told before: %s", error)
            await asyncio.sleep(POLICIES_S)

    def _roll_up(self) -> None:
        rolled = self.store.roll_up(int(time.time()) // HOUR_S, self._retention)
        if rolled:
            log.info("rolled %d cells up", rolled)
