"""Workers that are killed or stopped while customers call."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.walks.conftest import MODEL
from tests.walks.running_system import RunningSystem, poll_system_until, suspend
from turnout_client import PredictClient, PredictError

pytestmark = pytest.mark.walk

INPUTS = [1.0, 0.0, 0.0]


async def call_during(gateway: str, action: Callable[[], Awaitable[None]]) -> tuple[int, list[str]]:
    """Call steadily while *action* runs; return (answered calls, failures).

    There are four clients, because the connections of one client may all lead to one worker.
    """
    answered, failures, over = 0, list[str](), asyncio.Event()

    async def caller() -> None:
        nonlocal answered
        async with PredictClient(gateway) as client:
            while not over.is_set():
                try:
                    await client.predict(MODEL, keys="S1", inputs=INPUTS, timeout_s=5.0)
                    answered += 1
                except PredictError as error:
                    failures.append(str(error))
                await asyncio.sleep(0.002)

    callers = [asyncio.create_task(caller()) for _ in range(4)]
    await action()
    over.set()
    await asyncio.gather(*callers)
    return answered, failures


def serving_pids_of(system: RunningSystem) -> dict[int, int]:
    """Return the pid of each serving worker by slot."""
    return {row["slot"]: row["pid"] for row in system.workers() if row["state"] == "serving"}


def test_worker_that_is_killed_is_replaced_within_a_second(running_system: RunningSystem) -> None:
    """The spare takes the slot, and no call fails."""
    running_system.wait_settled()
    before = serving_pids_of(running_system)
    replaced_s = 0.0

    async def kill() -> None:
        nonlocal replaced_s
        began = time.monotonic()
        os.kill(before[0], signal.SIGKILL)
        await asyncio.to_thread(
            poll_system_until,
            lambda: serving_pids_of(running_system).get(0, before[0]) != before[0],
            5.0,
            "slot 0 is served again",
        )
        replaced_s = time.monotonic() - began
        await asyncio.sleep(0.3)

    answered, failures = asyncio.run(call_during(running_system.addresses.gateway, kill))
    assert replaced_s <= 1.0
    assert answered > 20
    assert not failures
    running_system.wait_settled()


def test_worker_that_is_stopped_is_killed_after_two_seconds(running_system: RunningSystem) -> None:
    """After 2 s without a heartbeat it is killed. Its slot is served again, and no call fails."""
    running_system.wait_settled()
    before = serving_pids_of(running_system)

    async def hang() -> None:
        began = time.monotonic()
        suspend(before[1])
        await asyncio.to_thread(
            poll_system_until,
            lambda: serving_pids_of(running_system).get(1, before[1]) != before[1],
            8.0,
            "slot 1 is served again",
        )
        assert 1.5 <= time.monotonic() - began <= 3.5

    answered, failures = asyncio.run(call_during(running_system.addresses.gateway, hang))
    assert answered > 20
    assert not failures
    running_system.wait_settled()
