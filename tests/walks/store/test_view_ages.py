"""A gateway says how old the rows of its views are, from the record that materialise leaves."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from features.materialise import materialise, push_rows
from features.offline import OfflineStore
from features.online.reader import OnlineReader
from features.online.store_client import store_client
from features.pushed import PushedRow
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.view_ages import ViewAges
from host.clock import ManualClock
from tests.gateway.gateway_fixture import gateway_fixture
from tests.servers import redis_server
from tests.walks.gateway_with_store import (
    DAY_MS,
    VIEW,
    customer_model_files,
    production_only,
)
from turnout.cli.online_rows import read_records

pytestmark = pytest.mark.walk

LABELS = [VIEW.name, VIEW.view_hash[:16]]
GAUGES = ("turnout_view_materialised_seconds", "turnout_view_newest_row_seconds")


def gauges(metrics: Metrics) -> tuple[list[object], list[list[float]]]:
    """Return whether each view is old, and the ages in seconds."""
    shown = metrics.snapshot()
    ages = [[value for _, value in shown.get(name, [])] for name in GAUGES]
    return shown.get("turnout_view_old", []), ages


def test_view_that_is_only_pushed_is_not_old(caplog: pytest.LogCaptureFixture) -> None:
    """Its age is that of the newest row that was ever pushed, whatever comes after it."""
    caplog.set_level(logging.INFO, logger="gateway.telemetry.view_ages")
    # Whole seconds, because the clock's float does not hold every millisecond exactly.
    now_s = int(time.time())
    now_ms = now_s * 1_000

    async def walk() -> None:
        with redis_server() as server:
            reader, clock = OnlineReader(server.url), ManualClock(unix_s=now_s)
            await reader.start()
            async with gateway_fixture(
                {"1": customer_model_files()}, production_only(), store=reader
            ) as gateway:
                ages = ViewAges(reader, "", gateway.routes, gateway.metrics, clock)
                # Two pushes, of which the second has an older row.
                with store_client(server.url) as client:
                    for age_ms in (60_000, 3_600_000):
                        row = PushedRow(("S000001",), now_ms - age_ms, {"number": 1.0})
                        push_rows(VIEW, client, [row])
                (edition,) = await read_records(server.url, [(VIEW.name, VIEW.view_hash)])
                assert edition.newest_event_ms == now_ms - 60_000
                await ages.look()
                assert gauges(gateway.metrics) == ([[LABELS, 0.0]], [[], [pytest.approx(60.0)]])
                # Nothing is pushed for four fifths of the TTL.
                clock.advance_s(DAY_MS * 8 // 10_000)
                await ages.look()
                assert gauges(gateway.metrics)[0] == [[LABELS, 1.0]]
                assert "it is only pushed, and its newest row is 19.2 h old" in caplog.text
            await reader.close()

    asyncio.run(walk())


def test_ages_are_metrics_and_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Never materialised, fresh, old, and then the store is gone: each is told without a call."""
    caplog.set_level(logging.INFO, logger="gateway.telemetry.view_ages")
    began_ms = time.time_ns() // 1_000_000
    offline = OfflineStore(tmp_path)
    row = PushedRow(("S000001",), began_ms - 60_000, {"number": 1.0})
    offline.append_pushed(VIEW, [row], created_ms=began_ms)

    async def walk() -> None:
        with redis_server() as server:
            reader, clock = OnlineReader(server.url), ManualClock(unix_s=time.time())
            await reader.start()
            async with gateway_fixture(
                {"1": customer_model_files()}, production_only(), store=reader
            ) as gateway:
                ages = ViewAges(reader, "", gateway.routes, gateway.metrics, clock)

                async def look() -> tuple[list[object], list[list[float]]]:
                    await ages.look()
                    return gauges(gateway.metrics)

                # Nothing was materialised.
                assert await look() == ([[LABELS, 1.0]], [[], []])
                assert "VIEW_OLD" in caplog.text
                assert "ever materialised" in caplog.text
                # The rows are fresh.
                with store_client(server.url) as client:
                    await asyncio.to_thread(materialise, offline, VIEW, client)
                clock.advance_s(10)
                old, ((materialised_s,), (newest_s,)) = await look()
                assert old == [[LABELS, 0.0]]
                assert 0 < materialised_s <= 10
                assert 70 <= newest_s < 100
                assert "view_fresh" in caplog.text
                # Four fifths of the TTL are over.
                caplog.clear()
                clock.advance_s(DAY_MS * 8 // 10_000)
                assert (await look())[0] == [[LABELS, 1.0]]
                assert "its newest row is 19.2 h old" in caplog.text
                # The ages grow while the store is gone, and the warning is not repeated.
                caplog.clear()
                server.stop()
                clock.advance_s(DAY_MS // 5_000)
                old, ((materialised_s,), _) = await look()
                assert old == [[LABELS, 1.0]]
                assert materialised_s >= DAY_MS / 1_000
                assert "VIEW_OLD" not in caplog.text
                # A view that no version reads has no age.
                gateway.routes.drop("churn")
                assert await look() == ([], [[], []])
            await reader.close()

    asyncio.run(walk())
