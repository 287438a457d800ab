"""Workers that die, hang or come back while customers call."""

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


async def calling_meanwhile(
    gateway: str, meanwhile: Callable[[], Awaitable[None]]
) -> tuple[int, list[str]]:
    """Call steadily while *meanwhile* runs; returns (answered, failures).

    Four callers with connections of their own: one client's may all lead to one worker.
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
    await meanwhile()
    over.set()
    await asyncio.gather(*callers)
    return answered, failures


def serving_pids_of(whole: RunningSystem) -> dict[int, int]:
    """Slot -> pid of the workers that serve."""
    return {row["slot"]: row["pid"] for row in whole.workers() if row["state"] == "serving"}


def test_a_killed_worker_is_replaced_within_a_second(running_system: RunningSystem) -> None:
    """SIGKILL: the spare has the slot in at most 1 s, and customers get their answers."""
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
            "slot 0 served",
        )
        replaced_s = time.monotonic() - began
        await asyncio.sleep(0.3)

    answered, failures = asyncio.run(calling_meanwhile(running_system.addresses.gateway, kill))
    assert replaced_s <= 1.0
    assert answered > 20
    assert not failures
    running_system.wait_settled()


def test_a_stopped_worker_is_killed_at_two_seconds(running_system: RunningSystem) -> None:
    """SIGSTOP: no heartbeat for 2 s, then it is killed and its slot is served again."""
    running_system.wait_settled()
    before = serving_pids_of(running_system)

    async def hang() -> None:
        began = time.monotonic()
        suspend(before[1])
        await asyncio.to_thread(
            poll_system_until,
            lambda: serving_pids_of(running_system).get(1, before[1]) != before[1],
            8.0,
            "slot 1 served",
        )
        assert 1.5 <= time.monotonic() - began <= 3.5

    answered, failures = asyncio.run(calling_meanwhile(running_system.addresses.gateway, hang))
    assert answered > 20
    assert not failures
    running_system.wait_settled()
