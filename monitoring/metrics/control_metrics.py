"""Reads the numbers of the page every 15 seconds, so that a scrape costs no database anything."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from host.clock import DAY_S, HOUR_S
from monitoring.cells.outside_rows import OUTPUT, is_outside_version
from monitoring.errors import MonitoringStoreError
from monitoring.metrics.exposition import ControlReadings, exposition
from monitoring.metrics.headlines import DAILY_KINDS, LATE_KINDS, Headline, headlines
from monitoring.metrics.page import MetricsAddress, MetricsPage
from monitoring.store.look_store import StoredFigure
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.pages import FIVE_MINUTES_FROM, INT_MAX, PageStore
from protos import monitoring_pb2 as pb
from registry.client import RegistryClient
from registry.types import Deployment, NotFoundError, RegistryError

log = logging.getLogger(__name__)

READ_S = 15.0
FIGURES_S = 600.0
"""Figures come with looks at days. Without a new one they are read again after this time only: of
30 models with 200 figures a day that takes 1.5 s."""
DAILY_DAYS = 14
"""Figures of looks at days that are older are no news."""
LATE_DAYS = 400
"""Figures whose outcomes take long are of periods that ended up to so many days ago."""
FIGURES_MAX = 500
"""Newest figures of one version and kind."""
LOOKS_MAX = 5_000
INCIDENTS_MAX = 5_000

Outputs = dict[tuple[str, str], frozenset[str]]
"""(model, version) in service -> the names of its scores."""


@dataclass(frozen=True, slots=True)
class _FiguresRead:
    """The headlines as they were read last, and at which looks and versions."""

    key: object = None
    at_s: float = 0.0
    found: tuple[Headline, ...] = ()


class ControlMetrics:
    """The page, and what it shows. Without an address there is no page, and nothing is read.

    registry  is open when `start` is called.
    """

    def __init__(
        self,
        where: MetricsAddress | None,
        store: MonitoringStore,
        pages: PageStore,
        registry: RegistryClient,
    ) -> None:
        self._where = where
        self._store = store
        self._pages = pages
        self._registry = registry
        self._readings = ControlReadings()
        self._outputs: Outputs = {}
        self._figures = _FiguresRead()
        self._page: MetricsPage | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port of the page; 0: there is none."""
        return 0 if self._page is None else self._page.port

    def note_store_error(self) -> None:
        """Count something that the database refused."""
        self._readings = replace(self._readings, store_errors=self._readings.store_errors + 1)

    def text(self) -> bytes:
        """Return the page, with ages as of now."""
        return exposition(self._readings, time.time())

    async def start(self) -> None:
        """Open the page. A port that is taken is logged; everything else goes on without it."""
        if self._where is None:
            return
        try:
            self._page = MetricsPage(self._where, self.text)
        except OSError as error:
            log.error("no metrics page on %s: %s", self._where.address, error)  # noqa: TRY400
            return
        log.info("metrics on port %d", self._page.port)
        self._task = asyncio.ensure_future(self._read_again_and_again())

    async def stop(self) -> None:
        """Close the page."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._page is not None:
            await asyncio.to_thread(self._page.close)

    async def _read_again_and_again(self) -> None:
        while True:
            try:
                await self.read()
            except MonitoringStoreError:
                self.note_store_error()
            except RegistryError as error:
                log.debug("metrics wait for the registry: %s", error)
            except Exception:
                log.exception("the metrics page keeps its numbers; they are read again")
            await asyncio.sleep(READ_S)

    async def read(self) -> None:
        """Read everything anew. Raises MonitoringStoreError, RegistryError."""
        outputs = await self._outputs_in_service()
        incidents = await self._registry.list_incidents(limit=INCIDENTS_MAX, open_only=True)
        severities = Counter(int(incident.severity) for incident in incidents)
        read = await asyncio.to_thread(self._read_store, outputs)
        self._readings = replace(
            read, incidents=severities, store_errors=self._readings.store_errors
        )

    async def _outputs_in_service(self) -> Outputs:
        """Return the versions that deployments name. Each is read once."""
        named = {
            (summary.model, label)
            for summary in await self._registry.list_models()
            for label in Deployment.from_proto(summary.deployment).versions
        }
        for model, label in named - self._outputs.keys():
            with contextlib.suppress(NotFoundError):
                found = await self._registry.get_version(model, label)
                self._outputs[model, label] = frozenset(item.name for item in found.outputs)
        return {key: names for key, names in self._outputs.items() if key in named}

    def _late_figures(self, since_day: int, outputs: Outputs) -> list[StoredFigure]:
        """Return the newest figures that wait for outcomes, of the versions in service."""
        return [
            figure
            for model, version in outputs
            for kind in LATE_KINDS
            for figure, _ in self._pages.figures(
                since_day,
                INT_MAX,
                model=model,
                version=version,
                kind=kind,
                newest=True,
                limit=FIGURES_MAX,
            )
        ]

    def _read_store(self, outputs: Outputs) -> ControlReadings:
        # How far readers and looks are.
        now = time.time()
        today, hour = int(now) // DAY_S, int(now) // HOUR_S + 1
        looks = [row for row, _ in self._pages.looks(limit=LOOKS_MAX)]
        # Versions that another system serves have no deployment.
        elsewhere = [row for row in looks if is_outside_version(row.version)]
        outputs |= {(row.model, row.version): frozenset({OUTPUT}) for row in elsewhere}
        # Figures are read again when there is news.
        key = (
            frozenset(outputs),
            frozenset(
                (row.model, row.name, row.position)
                for row in looks
                if row.position < FIVE_MINUTES_FROM
            ),
        )
        if key != self._figures.key or now - self._figures.at_s > FIGURES_S:
            newest = self._pages.newest_figures(today - DAILY_DAYS, DAILY_KINDS)
            newest += self._late_figures(today - LATE_DAYS, outputs)
            self._figures = _FiguresRead(key, now, tuple(headlines(newest, outputs)))
        # What is left is small, but for outcomes that wait: counting a million of them takes .3 s.
        return ControlReadings(
            at_s=now,
            figures=self._figures.found,
            alarms=self._pages.alarm_counts(),
            coverage={
                (item.model, item.version): item.rows / item.window_rows
                for item in self._store.coverage(hour - 24, hour)
                if item.window_rows
            },
            readers=readers_by_gateway(self._store.reader_statuses()),
            looks={
                (row.model, row.version, row.name): float(row.until_unix_s)
                for row in looks
                if (row.model, row.version) in outputs
            },
            outcome_backlogs=self._store.outcome_backlogs(),
        )


def readers_by_gateway(readers: Iterable[pb.ReaderStatus]) -> dict[str, tuple[float, int]]:
    """Return gateway -> when its latest journal was pushed, and the bytes that all have to read."""
    found: dict[str, tuple[float, int]] = {}
    for reader in readers:
        at_s, backlog = reader.pushed_unix_ms / 1_000, reader.backlog_bytes
        if reader.journal.gateway in found:
            other_s, other = found[reader.journal.gateway]
            at_s, backlog = min(at_s, other_s), backlog + other
        found[reader.journal.gateway] = at_s, backlog
    return found
