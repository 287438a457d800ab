"""A gateway whose clock, numbers or amount of windows are wrong costs itself, and no rollout."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from protos import rollout_pb2
from registry.client import RegistryClient
from tests.poll import wait_until
from tests.rollout.live_rollout import LiveRollout, run_live_rollout
from tests.rollout.scripted_parts import POLICIES
from tests.rollout.scripted_workers import ScriptedWorker

pytestmark = pytest.mark.walk

BAD = "bad"
"""The gateway whose two workers answer as many calls as those of the honest gateway."""


@asynccontextmanager
async def bad_gateway(
    live: LiveRollout, clock_ahead_s: float
) -> AsyncIterator[list[ScriptedWorker]]:
    """Run two workers of another gateway inside the block."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(RegistryClient(live.registry.address, BAD))
        workers = [
            ScriptedWorker(client, live.sink, slot, 200, BAD, clock_ahead_s) for slot in (0, 1)
        ]
        tasks = [asyncio.ensure_future(worker.run()) for worker in workers]
        try:
            yield workers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def watched(live: LiveRollout, failure_rate: float) -> list[rollout_pb2.RolloutStatus]:
    """Start a rollout, and return every status until its end."""
    for worker in live.workers:
        worker.failure_rates = {"2": failure_rate}
    await live.start(POLICIES["quick"])
    return await live.watch_statuses(60)


def refused_of(statuses: list[rollout_pb2.RolloutStatus]) -> set[str]:
    """Return every text about a refused worker."""
    return {sender for status in statuses for sender in status.refused_senders}


@pytest.mark.parametrize(
    ("clock_ahead_s", "failure_rate", "stage"),
    [
        (-3_600.0, 0.0, rollout_pb2.DONE),
        (30.0, 0.2, rollout_pb2.ROLLED_BACK),
        *(
            pytest.param(*case, marks=pytest.mark.nightly)
            for case in (
                (-3_600.0, 0.2, rollout_pb2.ROLLED_BACK),
                (-30.0, 0.0, rollout_pb2.DONE),
                (-30.0, 0.2, rollout_pb2.ROLLED_BACK),
                (30.0, 0.0, rollout_pb2.DONE),
                (3_600.0, 0.0, rollout_pb2.DONE),
                (3_600.0, 0.2, rollout_pb2.ROLLED_BACK),
            )
        ),
    ],
)
def test_rollout_ends_beside_a_gateway_with_a_wrong_clock(
    clock_ahead_s: float, failure_rate: float, stage: int, tmp_path: Path
) -> None:
    """Its windows are left out, its workers learn why, and the status names them."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live, bad_gateway(live, clock_ahead_s) as bad:
            statuses = await watched(live, failure_rate)
            assert statuses[-1].stage == stage
            holds = [row.reason for row in statuses if row.verdict == rollout_pb2.HOLD]
            assert holds == []
            # Everybody can see what is wrong.
            word = "behind" if clock_ahead_s < 0 else "ahead of"
            for text in (bad[0].stream.refusal, statuses[-1].refused_senders[0]):
                assert f"the clock of gateway {BAD!r}" in text
                assert word in text
            assert statuses[-1].dropped_windows > 0
            assert [worker.stream.refusal for worker in live.workers] == ["", ""]

    asyncio.run(course())


@pytest.mark.parametrize(
    ("failure_rate", "stage"), [(0.0, rollout_pb2.DONE), (0.2, rollout_pb2.ROLLED_BACK)]
)
def test_rollout_ends_beside_a_gateway_whose_numbers_jump(
    failure_rate: float, stage: int, tmp_path: Path
) -> None:
    """It says that 2^62 batches came before; its windows are left out until it starts anew."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live, bad_gateway(live, 0.0) as bad:
            jumping = bad[0].stream
            await wait_until(lambda: jumping._sequence > 1, 20.0)
            assert await jumping.wait_acknowledged(20.0)
            jumping._sequence += 2**62
            statuses = await watched(live, failure_rate)
            assert statuses[-1].stage == stage
            assert [row.reason for row in statuses if row.verdict == rollout_pb2.HOLD] == []
            assert "may be lost" in jumping.refusal
            assert "may be lost" in statuses[-1].refused_senders[0]

    asyncio.run(course())


def test_rollout_ends_beside_a_gateway_that_floods_the_port(tmp_path: Path) -> None:
    """Eight streams push as many windows as the port takes; those of the others still come."""

    async def course() -> None:
        async with run_live_rollout(tmp_path) as live:
            flood = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.rollout.live.window_flood", live.sink, "8",
                stdout=subprocess.PIPE,
            )  # fmt: skip
            try:
                assert flood.stdout is not None
                assert await flood.stdout.readline() == b"pushing\n"
                statuses = await watched(live, 0.2)
                assert flood.returncode is None
            finally:
                flood.kill()
                await flood.wait()
            assert statuses[-1].stage == rollout_pb2.ROLLED_BACK
            assert [row.reason for row in statuses if row.verdict == rollout_pb2.HOLD] == []
            assert any("25 % of the controller's time" in text for text in refused_of(statuses))
            times = statuses[-1].times
            assert times.moved_unix_ns - times.verdict_unix_ns < 1_000_000_000

    asyncio.run(course())
