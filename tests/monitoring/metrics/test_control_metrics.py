"""The page of a process whose registry is not there, and one whose port is taken."""

import asyncio
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.metrics.control_metrics import ControlMetrics
from monitoring.metrics.page import MetricsAddress
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.pages import PageStore
from registry.client import RegistryClient


@pytest.fixture
def database(tmp_path: Path) -> Iterator[MonitoringDatabase]:
    """Return an empty database."""
    database = MonitoringDatabase(f"sqlite:///{tmp_path}/monitoring.sqlite")
    yield database
    database.close()


def metrics_of(
    database: MonitoringDatabase, registry: RegistryClient, address: str
) -> ControlMetrics:
    """Return the metrics of a database on *address*."""
    store = MonitoringStore(database, lambda: time.time_ns() // 1_000_000)
    return ControlMetrics(MetricsAddress(address), store, PageStore(database), registry)


def read_page(port: int) -> str:
    """Return the page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_page_is_there_while_the_registry_is_not(database: MonitoringDatabase) -> None:
    """It has no number that was not read, and counts what the database refused."""

    async def course() -> None:
        async with RegistryClient("127.0.0.1:1", "monitoring") as registry:
            metrics = metrics_of(database, registry, "127.0.0.1:0")
            await metrics.start()
            metrics.note_store_error()
            page = await asyncio.to_thread(read_page, metrics.port)
            await metrics.stop()
            assert "turnout_monitoring_store_errors_total 1.0" in page
            assert "\nturnout_monitoring_read_seconds" not in page
            assert "\nturnout_figure{" not in page

    asyncio.run(course())


def test_port_that_is_taken_ends_nothing(database: MonitoringDatabase) -> None:
    """The second process goes on without a page."""

    async def course() -> None:
        async with RegistryClient("127.0.0.1:1", "monitoring") as registry:
            first = metrics_of(database, registry, "127.0.0.1:0")
            await first.start()
            second = metrics_of(database, registry, f"127.0.0.1:{first.port}")
            await second.start()
            assert (first.port > 0, second.port) == (True, 0)
            await second.stop()
            await first.stop()

    asyncio.run(course())
