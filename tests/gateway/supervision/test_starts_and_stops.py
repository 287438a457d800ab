"""Gateways that can never serve, and gateways that stop behind a load balancer."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.supervision.supervisor import Supervisor
from tests.gateway.supervision.test_supervisor import (
    FAKE_WORKER,
    Gateway,
    running_gateway,
    wait_until,
)

pytestmark = pytest.mark.walk


@pytest.mark.parametrize(
    ("file", "reason"),
    [("fail", "OSError: the key cannot be read"), ("crash", "a worker ended with exit code 3")],
)
def test_gateway_that_can_never_serve_ends_with_the_reason(
    tmp_path: Path, file: str, reason: str
) -> None:
    """Three workers fail alike and none has served, so it is no fault that passes."""
    (tmp_path / file).touch()

    async def walk() -> None:
        settings = Settings.from_json(json.dumps({"folder": str(tmp_path)}))
        supervisor = Supervisor(settings, command=FAKE_WORKER)
        async with asyncio.timeout(30):
            assert await supervisor.run() == 2
        assert supervisor.start_failure == reason

    asyncio.run(walk())


def test_gateway_that_has_served_goes_on_after_any_number_of_failures(tmp_path: Path) -> None:
    """A worker may fail for what passes; the other slots serve meanwhile."""

    async def walk() -> None:
        async with running_gateway(tmp_path, restart_backoff_ms_max=100) as gateway:
            (tmp_path / "crash").touch()
            (spare,) = gateway.pids("spare")
            os.kill(spare, signal.SIGKILL)
            started = lambda: sum(gateway.supervisor.report.restarts.values())  # noqa: E731
            await wait_until(lambda: started() >= 5)
            assert gateway.supervisor.report.serving == 2
            (tmp_path / "crash").unlink()
            await wait_until(gateway.fully_serving)

    asyncio.run(walk())


def test_gateway_is_ready_as_soon_as_a_worker_says_that_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report waits for no tick: a caller who was answered finds /readyz ready."""
    monkeypatch.setattr("gateway.supervision.supervisor.TICK_S", 600.0)

    async def walk() -> None:
        settings = Settings.from_json(json.dumps({"folder": str(tmp_path)}))
        supervisor = Supervisor(settings, command=FAKE_WORKER)
        running = asyncio.create_task(supervisor.run())
        gateway = Gateway(supervisor)
        await wait_until(lambda: supervisor.report.serving > 0)
        assert await gateway.page("/readyz") == (200, "ready\n")
        # No other worker is just being started when the supervisor ends.
        await wait_until(gateway.fully_serving)
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(walk())


def test_stopping_gateway_accepts_while_it_says_that_it_is_not_ready(tmp_path: Path) -> None:
    """A load balancer learns of the stop seconds later and sends connections until then."""

    async def walk() -> None:
        settings = Settings.from_json(json.dumps({"folder": str(tmp_path), "stop_accept_s": 1.5}))
        supervisor = Supervisor(settings, command=FAKE_WORKER)
        running = asyncio.create_task(supervisor.run())
        gateway = Gateway(supervisor)
        await wait_until(gateway.fully_serving)
        assert await gateway.page("/readyz") == (200, "ready\n")
        began = time.monotonic()
        supervisor.stop()
        assert await gateway.page("/readyz") == (503, "not ready: it stops\n")
        assert (await gateway.page("/healthz"))[0] == 200
        # The workers know of it, and answer.
        accepted = 0
        while time.monotonic() < began + 1.0:
            _, writer = connection = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"\n")
            accepted += (await connection[0].readline()).endswith(b" leaving\n")
            writer.close()
        assert accepted > 10
        assert await asyncio.wait_for(running, 20) == 0
        assert time.monotonic() > began + 1.5

    asyncio.run(walk())


def test_second_stop_request_ends_a_gateway_that_still_accepts(tmp_path: Path) -> None:
    """A person who presses Ctrl-C twice waits no longer."""

    async def walk() -> None:
        settings = Settings.from_json(json.dumps({"folder": str(tmp_path), "stop_accept_s": 60}))
        supervisor = Supervisor(settings, command=FAKE_WORKER)
        running = asyncio.create_task(supervisor.run())
        await wait_until(Gateway(supervisor).fully_serving)
        supervisor.stop()
        supervisor.stop()
        assert await asyncio.wait_for(running, 10) == 1

    asyncio.run(walk())
