"""A rolling restart under load, seen by clients that never retry."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest

from benchmarks.alone import PREDICT, Alone, alone, furnish, request
from tests.walks.whole import Whole

pytestmark = pytest.mark.walk

NO_RETRIES = (("grpc.service_config", json.dumps({"methodConfig": []})),)
APART = (("grpc.use_local_subchannel_pool", 1), *NO_RETRIES)
"""Each channel a connection of its own."""
AGE_S = 1.0


@dataclass
class Callers:
    """Persistent and new connections, calling until told to stop."""

    port: int
    answered: int = 0
    fresh: int = 0
    """Of those, the first on a new connection."""
    failed: Counter[str] = field(default_factory=Counter)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, persistent: int, fresh: int) -> None:
        """Call on so many connections of each kind."""
        keep = [self._persistent() for _ in range(persistent)]
        await asyncio.gather(*keep, *(self._fresh() for _ in range(fresh)))

    async def _persistent(self) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=APART) as channel:
            while not self.over.is_set():
                await self._call(channel)

    async def _fresh(self) -> None:
        while not self.over.is_set():
            async with grpc.aio.insecure_channel(
                f"127.0.0.1:{self.port}", options=APART
            ) as channel:
                before = self.answered
                await self._call(channel)
                self.fresh += self.answered - before > 0
            await asyncio.sleep(0.01)

    async def _call(self, channel: grpc.aio.Channel) -> None:
        try:
            await channel.unary_unary(PREDICT)(request(), timeout=10.0)
            self.answered += 1
        except grpc.aio.AioRpcError as error:
            self.failed[f"{error.code().name}: {error.details()}"] += 1
            await asyncio.sleep(0.01)


async def renewed(gateway: Alone, before: dict[int, int], within_s: float = 90.0) -> None:
    """Return when none of the workers of *before* is left and the house is whole again."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        rows = await asyncio.to_thread(gateway.workers)
        states = sorted(row["state"] for row in rows)
        left = set(before.values()) & {row["pid"] for row in rows}
        if not left and states == ["serving"] * len(before) + ["spare"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not renewed within {within_s} s: {rows}")


async def rolled(gateway: Alone, times: int, persistent: int, fresh: int) -> Callers:
    """Restart all workers *times* times under load."""
    callers = Callers(gateway.port)
    calling = asyncio.create_task(callers.run(persistent, fresh))
    await asyncio.sleep(0.5)
    for _ in range(times):
        before = await asyncio.to_thread(gateway.serving)
        gateway.roll()
        await renewed(gateway, before)
    await asyncio.sleep(0.5)
    callers.over.set()
    await calling
    return callers


def restart(folder: Path, workers: int, times: int, persistent: int, fresh: int) -> Callers:
    """Run a gateway over *folder* and restart its workers under load."""
    furnish(folder)
    settings = {"workers": workers, "connection_age_s_max": AGE_S, "drain_grace_s": 5.0}
    with alone(folder, settings) as gateway:
        assert gateway.settled(workers)
        return asyncio.run(rolled(gateway, times, persistent, fresh))


def test_two_rolling_restarts_fail_no_call(tmp_path: Path) -> None:
    """SIGHUP, twice, under load of persistent and new connections: every call is answered."""
    callers = restart(tmp_path, workers=1, times=2, persistent=6, fresh=2)
    assert not callers.failed
    assert callers.answered > 500
    assert callers.fresh > 20


@pytest.mark.nightly
def test_twenty_rolling_restarts_fail_none_of_a_hundred_thousand_calls(tmp_path: Path) -> None:
    """Contract C5, whole."""
    callers = restart(tmp_path, workers=2, times=20, persistent=12, fresh=3)
    assert not callers.failed, callers
    assert callers.answered >= 100_000
    assert callers.fresh >= 1_000


def test_turnout_restart_replaces_every_worker(whole: Whole) -> None:
    """The operator's verb: when it returns, none of the old workers is left."""
    whole.settled()
    before = {row["pid"] for row in whole.workers()}
    told = whole.turnout("restart")
    assert told["replaced"] == len(before) == 3
    assert not before & {row["pid"] for row in whole.workers()}
    whole.settled()
