"""Rolling restarts under load fail no call of clients that never retry."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest

from benchmarks.load import rust_generator
from benchmarks.standalone_gateway import (
    INPUTS,
    MODEL,
    PREDICT,
    StandaloneGateway,
    standalone_gateway,
    tiny_request,
    write_gateway_folder,
)
from tests.front_doors import INGRESSES, NEEDS_NATIVE_INGRESS
from tests.walks.running_system import RunningSystem

pytestmark = pytest.mark.walk

NO_RETRIES = (("grpc.service_config", json.dumps({"methodConfig": []})),)
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), *NO_RETRIES)
"""Channel options: each channel has a connection of its own."""
AGE_S = 1.0

RESTARTS, CALLS, RATE = 100, 1_000_000, 2_500
"""The longest walk: its restarts, its calls, and its calls/s."""


@dataclass
class RestartCallers:
    """Callers on persistent and on new connections, which call until `stopped` is set."""

    port: int
    pause_s: float = 0.0
    """Pause between two calls on a persistent connection."""
    answered: int = 0
    fresh_connections: int = 0
    """Answered calls that were the first on a new connection."""
    failed: Counter[str] = field(default_factory=Counter)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, persistent: int, fresh: int) -> None:
        """Call on so many connections of each kind at once."""
        callers = [self._persistent() for _ in range(persistent)]
        await asyncio.gather(*callers, *(self._fresh() for _ in range(fresh)))

    async def _persistent(self) -> None:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{self.port}", options=OWN_CONNECTION
        ) as channel:
            while not self.stopped.is_set():
                await self._call(channel)
                await asyncio.sleep(self.pause_s)

    async def _fresh(self) -> None:
        while not self.stopped.is_set():
            async with grpc.aio.insecure_channel(
                f"127.0.0.1:{self.port}", options=OWN_CONNECTION
            ) as channel:
                before = self.answered
                await self._call(channel)
                self.fresh_connections += self.answered - before > 0
            await asyncio.sleep(0.01)

    async def _call(self, channel: grpc.aio.Channel) -> None:
        try:
            await channel.unary_unary(PREDICT)(tiny_request(), timeout=10.0)
            self.answered += 1
        except grpc.aio.AioRpcError as error:
            self.failed[f"{error.code().name}: {error.details()}"] += 1
            await asyncio.sleep(0.01)


async def wait_renewed(
    gateway: StandaloneGateway, before: dict[int, int], within_s: float = 90.0
) -> None:
    """Wait until no worker of *before* is left, and as many serve again beside one spare."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        rows = await asyncio.to_thread(gateway.workers)
        states = sorted(row["state"] for row in rows)
        left = set(before.values()) & {row["pid"] for row in rows}
        if not left and states == ["serving"] * len(before) + ["spare"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not renewed within {within_s} s: {rows}")


async def rolling_restarts(
    gateway: StandaloneGateway, times: int, persistent: int, fresh: int, pause_s: float
) -> RestartCallers:
    """Restart all workers *times* times while callers call; return the callers."""
    callers = RestartCallers(gateway.port, pause_s)
    calling = asyncio.create_task(callers.run(persistent, fresh))
    await asyncio.sleep(0.5)
    for _ in range(times):
        before = await asyncio.to_thread(gateway.serving_pids)
        gateway.rolling_restart()
        await wait_renewed(gateway, before)
    await asyncio.sleep(0.5)
    callers.stopped.set()
    await calling
    return callers


def brisk_gateway(ingress: str, workers: int) -> dict[str, object]:
    """Return settings under which a worker waits only briefly for its clients."""
    return {
        "ingress": ingress,
        "workers": workers,
        "connection_age_s_max": AGE_S,
        "drain_grace_s": 5.0,
    }


def restart_under_load(
    folder: Path,
    ingress: str,
    workers: int,
    times: int,
    persistent: int,
    fresh: int,
    pause_s: float = 0.0,
) -> RestartCallers:
    """Run a gateway that serves from *folder*, and restart its workers under load."""
    write_gateway_folder(folder)
    with standalone_gateway(folder, brisk_gateway(ingress, workers)) as gateway:
        assert gateway.wait_settled(workers)
        return asyncio.run(rolling_restarts(gateway, times, persistent, fresh, pause_s))


@pytest.mark.parametrize("ingress", INGRESSES)
def test_two_rolling_restarts_fail_no_call(tmp_path: Path, ingress: str) -> None:
    """Two SIGHUPs under load on persistent and new connections: every call is answered."""
    # Without pauses the callers would take all of a processor for the 20 s of two restarts.
    callers = restart_under_load(
        tmp_path, ingress, workers=1, times=2, persistent=6, fresh=2, pause_s=0.005
    )
    assert not callers.failed
    assert callers.answered > 500
    assert callers.fresh_connections > 20


@pytest.mark.nightly
@pytest.mark.parametrize("ingress", INGRESSES)
def test_twenty_rolling_restarts_fail_none_of_a_hundred_thousand_calls(
    tmp_path: Path, ingress: str
) -> None:
    """Contract P2 at full length."""
    callers = restart_under_load(tmp_path, ingress, workers=2, times=20, persistent=12, fresh=3)
    assert not callers.failed, callers
    assert callers.answered >= 100_000
    assert callers.fresh_connections >= 1_000


@dataclass
class LoadResult:
    """The sums over all runs of the load generator."""

    calls: int = 0
    retries: int = 0
    failed: Counter[str] = field(default_factory=Counter)


async def run_load(port: int, result: LoadResult, stopped: asyncio.Event) -> None:
    """Send 2,500 calls/s over connections that last a second, until *stopped* is set."""
    line = [rust_generator.BINARY, f"127.0.0.1:{port}", "--model", MODEL, "--inputs", INPUTS]
    line += ["--key", "S#######:100000", "--connections", 8, "--rate", RATE, "--seconds", 20]
    line += ["--timeout-ms", 10_000, "--allow", "all", "--json"]
    while not stopped.is_set():
        generator = await asyncio.create_subprocess_exec(
            *map(str, line), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await generator.communicate()
        run = json.loads(output)
        result.calls += run["statuses"].pop("OK", 0)
        result.retries += run["transparent_retries"]
        result.failed.update({name: count for name, count in run["statuses"].items() if count})


@pytest.mark.nightly
@NEEDS_NATIVE_INGRESS
def test_a_hundred_rolling_restarts_fail_none_of_a_million_calls(tmp_path: Path) -> None:
    """Over the native ingress, with the load generator and gRPC's own client at once."""
    rust_generator.build_generator()
    write_gateway_folder(tmp_path)

    async def walk(gateway: StandaloneGateway) -> tuple[int, LoadResult, RestartCallers]:
        callers, load, restarts = RestartCallers(gateway.port), LoadResult(), 0
        loading = asyncio.create_task(run_load(gateway.port, load, callers.stopped))
        calling = asyncio.create_task(callers.run(persistent=2, fresh=1))
        while restarts < RESTARTS or load.calls < CALLS:
            before = await asyncio.to_thread(gateway.serving_pids)
            gateway.rolling_restart()
            await wait_renewed(gateway, before)
            restarts += 1
        callers.stopped.set()
        await asyncio.gather(loading, calling)
        return restarts, load, callers

    with standalone_gateway(tmp_path, brisk_gateway("native", 1)) as gateway:
        assert gateway.wait_settled(1)
        restarts, load, callers = asyncio.run(walk(gateway))
    print(f"{restarts} restarts, {load}, {callers}")  # noqa: T201  the nightly's figures
    assert not load.failed, load
    assert not callers.failed, callers
    assert callers.fresh_connections >= RESTARTS


def test_turnout_restart_command_replaces_every_worker(running_system: RunningSystem) -> None:
    """When the command returns, none of the old workers is left."""
    running_system.wait_settled()
    before = {row["pid"] for row in running_system.workers()}
    report = running_system.turnout("restart")
    assert report["replaced"] == len(before) == 3
    assert not before & {row["pid"] for row in running_system.workers()}
    running_system.wait_settled()
