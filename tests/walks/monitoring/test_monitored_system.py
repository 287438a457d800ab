"""A running system is monitored: rows, outcomes and coverage; and nothing waits for monitoring."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.walks.running_system import RunningSystem, poll_system_until
from tests.walks.system.test_parts_gone import INPUTS, MODEL, kill, system_without_restart
from turnout_client import PredictClient

pytestmark = pytest.mark.walk


def monitor_status(system: RunningSystem) -> dict[str, Any]:
    """Return what `turnout monitor status` says."""
    addresses = system.addresses
    where = ("--registry", addresses.registry)
    certificate = ("--registry-certificate", addresses.registry_certificate)
    status: dict[str, Any] = system.turnout("monitor", "status", *where, *certificate)
    return status


def version_status(system: RunningSystem) -> dict[str, Any]:
    """Return the status of version 1; empty while monitoring knows nothing of it."""
    versions = monitor_status(system)["versions"]
    return next((item for item in versions if item["version"] == "1"), {})


async def predict(client: PredictClient, calls: int) -> list[bytes]:
    """Predict *calls* times, and return the prediction ids."""
    predictions = [
        await client.predict(MODEL, keys=f"S{number}", inputs=INPUTS, timeout_s=5)
        for number in range(calls)
    ]
    return [prediction.prediction_id for prediction in predictions]


async def wait_rows(system: RunningSystem, rows: int, outcomes: int = 0) -> dict[str, Any]:
    """Return the status of version 1 once so many rows are counted, and no more."""

    def counted() -> bool:
        found = version_status(system)
        return (found.get("rows", 0), found.get("outcomes", 0)) >= (rows, outcomes)

    await asyncio.to_thread(poll_system_until, counted, 30.0, f"{rows} rows in monitoring")
    return await asyncio.to_thread(version_status, system)


def test_rows_and_outcomes_are_counted_with_their_coverage(tmp_path: Path) -> None:
    """A day without monitoring is a shorter time here: it catches up, and nothing is doubled."""

    async def walk() -> None:
        async with (
            system_without_restart(tmp_path / "state") as (system, parts),
            PredictClient(system.addresses.gateway) as client,
        ):
            # Rows and an outcome arrive, and windows say the same number of rows.
            ids = await predict(client, 30)
            await client.report_outcome(ids[0], "churned", 1.0, timeout_s=20.0)
            found = await wait_rows(system, 30, 1)
            assert (found["rows"], found["outcomes"]) == (30, 1)

            def covered() -> bool:
                return bool(version_status(system)["share"] == 1.0)

            await asyncio.to_thread(poll_system_until, covered, 15.0, "windows of 30 rows")
            # The reader is gone, and the gateway does not notice; then control is gone too.
            await kill(parts["journal-reader"])
            await predict(client, 10)
            await kill(parts["control"])
            await predict(client, 10)
            # Both are back, and every row is counted once.
            await parts["journal-reader"].start()
            await parts["control"].start()
            found = await wait_rows(system, 50, 1)
            assert (found["rows"], found["outcomes"]) == (50, 1)
            status = await asyncio.to_thread(monitor_status, system)
            assert status["readers"][0]["damages"] == 0
            assert status["readers"][0]["gateway"] == "gateway-1"

    asyncio.run(walk())


def test_calls_are_answered_while_the_reader_hangs(tmp_path: Path) -> None:
    """A stopped reader holds no lock that a gateway waits for."""

    async def walk() -> None:
        async with (
            system_without_restart(tmp_path / "state") as (system, parts),
            PredictClient(system.addresses.gateway) as client,
        ):
            await predict(client, 5)
            os.kill(parts["journal-reader"].pid, signal.SIGSTOP)
            try:
                await predict(client, 50)
            finally:
                os.kill(parts["journal-reader"].pid, signal.SIGCONT)
            assert (await wait_rows(system, 55))["rows"] == 55

    asyncio.run(walk())
