"""A rolling restart under load, seen by clients that never retry."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest

from benchmarks.load import rust_generator
from benchmarks.standalone_gateway import INPUTS, MODEL, PREDICT, Alone, alone, furnish, request
from tests.front_doors import BUILT, DOORS
from tests.walks.running_system import Whole

pytestmark = pytest.mark.walk

NO_RETRIES = (("grpc.service_config", json.dumps({"methodConfig": []})),)
APART = (("grpc.use_local_subchannel_pool", 1), *NO_RETRIES)
"""Each channel a connection of its own."""
AGE_S = 1.0

RESTARTS, CALLS, RATE = 100, 1_000_000, 2_500
"""Of the longest walk."""


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


def brisk(ingress: str, workers: int) -> dict[str, object]:
    """Settings under which a worker need not wait long for its clients."""
    return {
        "ingress": ingress,
        "workers": workers,
        "connection_age_s_max": AGE_S,
        "drain_grace_s": 5.0,
    }


def restart(
    folder: Path, ingress: str, workers: int, times: int, persistent: int, fresh: int
) -> Callers:
    """Run a gateway over *folder* and restart its workers under load."""
    furnish(folder)
    with alone(folder, brisk(ingress, workers)) as gateway:
        assert gateway.settled(workers)
        return asyncio.run(rolled(gateway, times, persistent, fresh))


@pytest.mark.parametrize("ingress", DOORS)
def test_two_rolling_restarts_fail_no_call(tmp_path: Path, ingress: str) -> None:
    """SIGHUP, twice, under load of persistent and new connections: every call is answered."""
    callers = restart(tmp_path, ingress, workers=1, times=2, persistent=6, fresh=2)
    assert not callers.failed
    assert callers.answered > 500
    assert callers.fresh > 20


@pytest.mark.nightly
@pytest.mark.parametrize("ingress", DOORS)
def test_twenty_rolling_restarts_fail_none_of_a_hundred_thousand_calls(
    tmp_path: Path, ingress: str
) -> None:
    """Contract C5, whole."""
    callers = restart(tmp_path, ingress, workers=2, times=20, persistent=12, fresh=3)
    assert not callers.failed, callers
    assert callers.answered >= 100_000
    assert callers.fresh >= 1_000


@dataclass
class Told:
    """What the load generator's runs came to."""

    calls: int = 0
    sent_again: int = 0
    failed: Counter[str] = field(default_factory=Counter)


async def asked(port: int, told: Told, over: asyncio.Event) -> None:
    """Ask 2,500 calls a second over connections that last a second, until told to stop."""
    line = [rust_generator.BINARY, f"127.0.0.1:{port}", "--model", MODEL, "--inputs", INPUTS]
    line += ["--key", "S#######:100000", "--connections", 8, "--rate", RATE, "--seconds", 20]
    line += ["--timeout-ms", 10_000, "--allow", "all", "--json", "--quiet"]
    while not over.is_set():
        generator = await asyncio.create_subprocess_exec(
            *map(str, line), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await generator.communicate()
        run = json.loads(said)
        told.calls += run["statuses"].pop("OK", 0)
        told.sent_again += run["sent_again"]
        told.failed.update({name: count for name, count in run["statuses"].items() if count})


@pytest.mark.nightly
@BUILT
def test_a_hundred_rolling_restarts_fail_none_of_a_million_calls(tmp_path: Path) -> None:
    """Behind the native door: beside the load, gRPC's own client on old and new connections."""
    rust_generator.built()
    furnish(tmp_path)

    async def walk(gateway: Alone) -> tuple[int, Told, Callers]:
        callers, told, over, restarts = Callers(gateway.port), Told(), asyncio.Event(), 0
        asking = asyncio.create_task(asked(gateway.port, told, over))
        calling = asyncio.create_task(callers.run(persistent=2, fresh=1))
        while restarts < RESTARTS or told.calls < CALLS:
            before = await asyncio.to_thread(gateway.serving)
            gateway.roll()
            await renewed(gateway, before)
            restarts += 1
        over.set()
        callers.over.set()
        await asyncio.gather(asking, calling)
        return restarts, told, callers

    with alone(tmp_path, brisk("native", 1)) as gateway:
        assert gateway.settled(1)
        restarts, told, callers = asyncio.run(walk(gateway))
    print(f"{restarts} restarts, {told}, {callers}")  # noqa: T201  the nightly's figures
    assert not told.failed, told
    assert not callers.failed, callers
    assert callers.fresh >= RESTARTS


def test_turnout_restart_replaces_every_worker(whole: Whole) -> None:
    """The operator's verb: when it returns, none of the old workers is left."""
    whole.settled()
    before = {row["pid"] for row in whole.workers()}
    told = whole.turnout("restart")
    assert told["replaced"] == len(before) == 3
    assert not before & {row["pid"] for row in whole.workers()}
    whole.settled()
