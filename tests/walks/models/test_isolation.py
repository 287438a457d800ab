"""A version earns its way in: what crashes, hangs or eats does so in a child, and nobody waits."""

import asyncio
import gc
import os
import platform
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.isolation.load_proofs import ProofStore
from gateway.isolation.prober import Prober, probe_limits_of
from gateway.settings import Settings
from host.clock import SystemClock
from protos import window_pb2
from protos.predict_pb2 import PRODUCTION
from registry.types import VersionRefusedError
from tests.fatal_models import crashing_files, memory_hungry_files, nan_files, spinning_files
from tests.gateway.canary_at_half import PRODUCTION_ONLY, closed_windows, predict_all_keys
from tests.gateway.gateway_fixture import GatewayFixture, gateway_fixture, predict_request
from tests.gateway.models.test_loader import digest_of, signed, version_off_its_golden_rows
from tests.poll import wait_until
from tests.tiny_models import tiny_files
from tests.walks.gateway_with_store import resident_mb

pytestmark = pytest.mark.walk

DEFAULTS = Settings()
TIGHT = Settings(probe_cpu_s_max=2, probe_run_ms_max=500)
on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the division that traps is x86's"
)


def prober(folder: Path, settings: Settings = TIGHT) -> Prober:
    """One worker's, over a host's folder."""
    return Prober(ProofStore(folder), probe_limits_of(settings), SystemClock())


async def refusal(one: Prober, files: dict[str, bytes]) -> str:
    """Why the version may not be opened here."""
    with pytest.raises(VersionRefusedError) as refused:
        await one.prove(digest_of(files), files)
    return str(refused.value)


def fds() -> int:
    """Descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


# The first opening


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param(crashing_files(), "SIGFPE while scoring the golden rows", marks=on_x86),
        pytest.param(spinning_files(), "2 s of CPU while scoring the golden rows", id="hangs"),
        pytest.param(memory_hungry_files(900_000_000), "cannot be scored", id="eats"),
        pytest.param(nan_files(), "scores nan here", id="nan"),
    ],
)
def test_what_a_version_dies_of_in_its_probe_is_why_it_is_refused(
    files: dict[str, bytes], reason: str, tmp_path: Path
) -> None:
    """Crash, hang, 3.6 GB, NaN on golden rows: the child has it, the reason is kept for all."""
    sealed = signed(files)

    async def walk() -> None:
        one, other, before = prober(tmp_path), prober(tmp_path), fds()
        words = await refusal(one, sealed)
        assert reason in words
        assert await refusal(other, sealed) == words
        assert (one.children_started, other.children_started) == (1, 0)
        assert fds() == before

    before_mb = resident_mb()
    asyncio.run(walk())
    assert resident_mb() - before_mb < 64


def test_a_proof_is_made_once_a_host_and_not_by_guesses(tmp_path: Path) -> None:
    """Three workers at once: one child. Another runtime's proof is none; off golden: refused."""
    good = signed(tiny_files())

    async def walk() -> None:
        three = [prober(tmp_path) for _ in range(3)]
        await asyncio.gather(*(one.prove(digest_of(good), good) for one in three))
        assert sum(one.children_started for one in three) == 1
        place = next((tmp_path / "proofs").glob("*.json"))
        place.write_text(place.read_text().replace("onnxruntime-", "onnxruntime-0."))
        again = prober(tmp_path)
        await again.prove(digest_of(good), good)
        assert again.children_started == 1
        assert "golden row" in await refusal(again, version_off_its_golden_rows())

    asyncio.run(walk())


def test_a_probe_that_is_not_wanted_any_more_leaves_no_child(tmp_path: Path) -> None:
    """Cancelled in the middle: the child is killed, descriptors are as before."""
    endless = signed(spinning_files())

    async def walk() -> None:
        gc.collect()  # what earlier walks left to the collector is not ours to count
        before = fds()
        one = prober(tmp_path, Settings())
        asked = asyncio.create_task(one.prove(digest_of(endless), endless))
        await wait_until(lambda: bool(children()))
        (child,) = children()
        asked.cancel()
        await asyncio.wait({asked})
        await wait_until(lambda: not pid_exists(child))
        # Its pidfd is closed by the loop's next look, a turn after the child has died.
        await wait_until(lambda: fds() == before)

    asyncio.run(walk())


# Shadows


def children() -> list[int]:
    """Probes and shadows that this process started and that still run."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in listed if is_ours(pid)]


def is_ours(pid: str) -> bool:
    """Whether it runs a program of the gateway's; other walks of this run have theirs."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return bool({b"gateway.isolation.probe", b"gateway.shadow.scorer"} & set(line))


def pid_exists(pid: int) -> bool:
    """Whether *pid* runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class ShadowedGateway:
    """A gateway whose production is shadowed by version 2."""

    gateway: GatewayFixture

    @property
    def pid(self) -> int:
        """Of the shadow's process."""
        return self.gateway.parts.shadows.pids().get("2", 0)

    async def quiet(self) -> None:
        """Return when no copy waits."""
        self.gateway.recorder.fold()
        await wait_until(lambda: self.gateway.parts.shadows.rows_waiting == 0, 20.0)

    async def call(self, first: float, calls: int = 1) -> float:
        """Ask some times in a row; the slowest answer in seconds. Each must be production's."""
        slowest = 0.0
        for _ in range(calls):
            began = time.monotonic()
            reply = await self.gateway.predict(predict_request(first, 2, 3))
            slowest = max(slowest, time.monotonic() - began)
            assert (reply.role, reply.version) == (PRODUCTION, "1")
        return slowest

    def shadow(self) -> window_pb2.Window:
        """What the shadow did so far; windows begin anew."""
        return closed_windows(self.gateway).get("SHADOW", window_pb2.Window())


@asynccontextmanager
async def shadowed_gateway(
    files: dict[str, bytes], settings: Settings = DEFAULTS
) -> AsyncIterator[ShadowedGateway]:
    """Serve, shadow everything, and look that nothing is left afterwards."""
    deployment = replace(PRODUCTION_ONLY, shadows=(("2", 10_000),))
    before = fds()
    versions = {"1": tiny_files(), "2": files}
    async with gateway_fixture(versions, deployment, settings=settings) as gateway:
        one = ShadowedGateway(gateway)
        await one.call(1.0)
        await one.quiet()
        yield one
        shadow = one.pid
    assert children() == []
    assert not shadow or not pid_exists(shadow)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in tasks if "shadow" in repr(task.get_coro())]
    # grpc's own, which it keeps for the next server; it lets go of the rest in threads of its own.
    await wait_until(lambda: fds() <= before + 4)


@on_x86
def test_a_shadow_that_crashes_twice_is_told_and_run_no_more() -> None:
    """Customers notice nothing; the first crash costs copies, the second is a hard guard."""

    async def walk() -> None:
        async with shadowed_gateway(crashing_files(when=5.0)) as one:
            first = one.pid
            assert one.shadow().pairs.pairs == 1
            assert await one.call(9.0) < 1.0
            await wait_until(lambda: not pid_exists(first))
            assert one.gateway.guards == []
            await wait_until(
                lambda: one.pid != first and not one.gateway.parts.shadows.rows_waiting
            )
            while not one.pid:  # it rests before it is started again
                await one.call(1.0)
                await asyncio.sleep(0.01)
            await one.quiet()
            await one.call(9.0)
            await wait_until(lambda: bool(one.gateway.guards))
            (guard,) = one.gateway.guards
            assert guard.kind == window_pb2.HardGuard.PROCESS_DIED
            assert (guard.model, guard.version) == ("churn", "2")
            assert "SIGFPE" in guard.reason
            assert 0 < guard.first_bad_unix_ns < guard.at_unix_ns
            one.shadow()
            await one.call(1.0, calls=5)
            await one.quiet()
            assert (one.pid, one.shadow().calls.dropped) == (0, 5)
            assert len(one.gateway.guards) == 1

    asyncio.run(walk())


def test_a_shadow_that_hangs_is_ended_and_told_the_second_time() -> None:
    """A run of more than .3 s of CPU: ended, blamed; nobody waited."""

    async def walk() -> None:
        async with shadowed_gateway(
            spinning_files(when=5.0), Settings(shadow_run_cpu_ms_max=300)
        ) as one:
            while not one.gateway.guards:
                assert await one.call(9.0) < 1.0
                await one.quiet()
                await asyncio.sleep(0.02)
            assert "0.3 s of CPU" in one.gateway.guards[0].reason

    asyncio.run(walk())


def test_a_shadow_that_wants_too_much_memory_only_fails_its_copies() -> None:
    """3.6 GB of at most 2: the run raises in the child, counted as a faulty pair."""

    async def walk() -> None:
        async with shadowed_gateway(memory_hungry_files(900_000_000, when=5.0)) as one:
            await one.call(9.0)
            await one.quiet()
            pairs = one.shadow().pairs
            assert (pairs.faulty, one.gateway.guards, one.pid > 0) == (1, [], True)

    asyncio.run(walk())


def test_a_stopped_shadow_costs_no_memory_and_nobody_is_blamed() -> None:
    """SIGSTOP: copies wait up to the bound, the rest is dropped; then it is replaced."""

    async def walk() -> None:
        bounds = Settings(shadow_rows_waiting_max=256, shadow_run_timeout_ms=3_000)
        async with shadowed_gateway(tiny_files(), bounds) as one:
            stopped = one.pid
            os.kill(stopped, signal.SIGSTOP)
            one.shadow()
            await predict_all_keys(one.gateway)
            before_mb, calls, slowest = resident_mb(), 60, 0.0
            while pid_exists(stopped):
                began = time.monotonic()
                calls += len(await predict_all_keys(one.gateway))
                slowest = max(slowest, time.monotonic() - began)
                assert one.gateway.parts.shadows.rows_waiting <= 256
            assert resident_mb() - before_mb < 16
            assert slowest < 2.5  # who waited for it would have waited for all of its 3 s
            await one.quiet()
            shadow = one.shadow()
            assert shadow.calls.dropped + shadow.pairs.pairs == calls
            assert shadow.calls.dropped >= calls - 60
            await until_paired(one)
            assert one.gateway.guards == []

    asyncio.run(walk())


def test_a_killed_shadow_is_started_again_and_nobody_is_blamed() -> None:
    """SIGKILL three times, with copies inside: each time a new process, never a guard."""

    async def walk() -> None:
        async with shadowed_gateway(tiny_files()) as one:
            for _ in range(3):
                killed = one.pid
                os.kill(killed, signal.SIGKILL)
                await one.call(1.0, calls=20)
                await wait_until(lambda pid=killed: not pid_exists(pid))  # type: ignore[misc]
                await until_paired(one)
                assert one.pid != killed
            assert one.gateway.guards == []

    asyncio.run(walk())


async def until_paired(gateway: ShadowedGateway) -> None:
    """Call until the shadow compares again."""
    gateway.shadow()
    give_up = time.monotonic() + 10.0
    while not gateway.shadow().pairs.pairs:
        assert time.monotonic() < give_up
        await gateway.call(1.0)
        await gateway.quiet()
        await asyncio.sleep(0.01)
