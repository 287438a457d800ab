"""Versions that crash, hang or need too much memory do so in a child process, not in a worker."""

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
from gateway.isolation.prober import Prober
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
TIGHT = Settings(probe_cpu_s_max=2, probe_run_ms_max=500, probe_s_max=240)
"""Processor time is bounded tightly, and other work of the machine does not use it up."""
on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the division that traps is x86's"
)


def prober(folder: Path, settings: Settings = TIGHT) -> Prober:
    """Return the prober of one worker, over the host's *folder*."""
    return Prober(ProofStore(folder), settings, SystemClock())


async def refusal_message(worker_prober: Prober, files: dict[str, bytes]) -> str:
    """Return the reason for which the version is refused."""
    with pytest.raises(VersionRefusedError) as refused:
        await worker_prober.prove(digest_of(files), files)
    return str(refused.value)


def fds() -> int:
    """Return the number of open descriptors of this process."""
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
def test_prober_refuses_a_version_with_the_reason_of_its_probes_death(
    files: dict[str, bytes], reason: str, tmp_path: Path
) -> None:
    """Crash, hang, 3.6 GB, NaN on golden rows: the child ends, and every worker gets the reason."""
    sealed = signed(files)

    async def walk() -> None:
        first, second, before = prober(tmp_path), prober(tmp_path), fds()
        message = await refusal_message(first, sealed)
        assert reason in message
        assert await refusal_message(second, sealed) == message
        assert (first.children_started, second.children_started) == (1, 0)
        assert fds() == before

    before_mb = resident_mb()
    asyncio.run(walk())
    assert resident_mb() - before_mb < 64


def test_prober_proves_a_version_once_for_a_host_and_runtime(tmp_path: Path) -> None:
    """Three workers start one child. A proof of another runtime does not count."""
    good = signed(tiny_files())

    async def walk() -> None:
        probers = [prober(tmp_path) for _ in range(3)]
        await asyncio.gather(*(worker.prove(digest_of(good), good) for worker in probers))
        assert sum(worker.children_started for worker in probers) == 1
        proof = next((tmp_path / "proofs").glob("*.json"))
        proof.write_text(proof.read_text().replace("onnxruntime-", "onnxruntime-0."))
        again = prober(tmp_path)
        await again.prove(digest_of(good), good)
        assert again.children_started == 1
        assert "golden row" in await refusal_message(again, version_off_its_golden_rows())

    asyncio.run(walk())


def test_prober_kills_the_child_of_a_cancelled_probe(tmp_path: Path) -> None:
    """A probe cancelled in the middle leaves no process and no descriptor."""
    endless = signed(spinning_files())

    async def walk() -> None:
        gc.collect()  # garbage of earlier walks would be counted
        before = fds()
        endless_prober = prober(tmp_path, Settings())
        proving = asyncio.create_task(endless_prober.prove(digest_of(endless), endless))
        await wait_until(lambda: bool(children()))
        (child,) = children()
        proving.cancel()
        await asyncio.wait({proving})
        await wait_until(lambda: not pid_exists(child))
        # The loop closes the child's pidfd one turn after the child has died.
        await wait_until(lambda: fds() == before)

    asyncio.run(walk())


# Shadows


def children() -> list[int]:
    """Return the running probes and shadows that this process started."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in pids if is_gateway_child(pid)]


def is_gateway_child(pid: str) -> bool:
    """Return whether *pid* runs a probe or a shadow; other walks start other programs."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return bool({b"gateway.isolation.probe", b"gateway.shadow.scorer"} & set(line))


def pid_exists(pid: int) -> bool:
    """Return whether *pid* runs; a zombie does not."""
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
        """The process id of the shadow; 0 when it has none."""
        return self.gateway.parts.shadows.pids().get("2", 0)

    async def wait_idle(self) -> None:
        """Wait until no copy waits to be scored."""
        self.gateway.recorder.fold()
        await wait_until(lambda: self.gateway.parts.shadows.rows_waiting == 0, 20.0)

    async def call(self, first: float, calls: int = 1) -> float:
        """Call *calls* times in a row, each answered by production; return the slowest time."""
        slowest = 0.0
        for _ in range(calls):
            began = time.monotonic()
            reply = await self.gateway.predict(predict_request(first, 2, 3))
            slowest = max(slowest, time.monotonic() - began)
            assert (reply.role, reply.version) == (PRODUCTION, "1")
        return slowest

    def shadow(self) -> window_pb2.Window:
        """Close the windows, and return the shadow's."""
        return closed_windows(self.gateway).get("SHADOW", window_pb2.Window())


@asynccontextmanager
async def shadowed_gateway(
    files: dict[str, bytes], settings: Settings = DEFAULTS
) -> AsyncIterator[ShadowedGateway]:
    """Serve, shadow every call, and check afterwards that nothing is left."""
    deployment = replace(PRODUCTION_ONLY, shadows=(("2", 10_000),))
    before = fds()
    versions = {"1": tiny_files(), "2": files}
    async with gateway_fixture(versions, deployment, settings=settings) as gateway:
        shadowed = ShadowedGateway(gateway)
        await shadowed.call(1.0)
        await shadowed.wait_idle()
        yield shadowed
        shadow = shadowed.pid
    assert children() == []
    assert not shadow or not pid_exists(shadow)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in tasks if "shadow" in repr(task.get_coro())]
    # grpc keeps some descriptors for the next server, and closes others in its own threads.
    await wait_until(lambda: fds() <= before + 4)


@on_x86
def test_shadow_that_crashes_twice_is_reported_and_stopped() -> None:
    """Callers see nothing. The first crash loses copies, the second is a hard guard."""

    async def walk() -> None:
        async with shadowed_gateway(crashing_files(when=5.0)) as gateway:
            # The first crash loses its copies.
            first = gateway.pid
            assert gateway.shadow().pairs.pairs == 1
            assert await gateway.call(9.0) < 1.0
            await wait_until(lambda: not pid_exists(first))
            assert gateway.gateway.guards == []
            await wait_until(
                lambda: gateway.pid != first and not gateway.gateway.parts.shadows.rows_waiting
            )
            while not gateway.pid:  # it is started again after a pause
                await gateway.call(1.0)
                await asyncio.sleep(0.01)
            # The second one is a hard guard.
            await gateway.wait_idle()
            await gateway.call(9.0)
            await wait_until(lambda: bool(gateway.gateway.guards))
            (guard,) = gateway.gateway.guards
            assert guard.kind == window_pb2.HardGuard.PROCESS_DIED
            assert (guard.model, guard.version) == ("churn", "2")
            assert "SIGFPE" in guard.reason
            assert 0 < guard.first_bad_unix_ns < guard.at_unix_ns
            gateway.shadow()
            await gateway.call(1.0, calls=5)
            await gateway.wait_idle()
            assert (gateway.pid, gateway.shadow().calls.dropped) == (0, 5)
            assert len(gateway.gateway.guards) == 1
            # The worker knows it for every other use, too.
            ((reason, _),) = gateway.gateway.parts.route_table.quarantined.values()
            assert reason == guard.reason

    asyncio.run(walk())


def test_shadow_that_hangs_is_killed_and_reported_the_second_time() -> None:
    """A run of more than .3 s of CPU is killed and reported; no caller waits."""

    async def walk() -> None:
        async with shadowed_gateway(
            spinning_files(when=5.0), Settings(shadow_run_cpu_ms_max=300)
        ) as gateway:
            while not gateway.gateway.guards:
                assert await gateway.call(9.0) < 1.0
                await gateway.wait_idle()
                await asyncio.sleep(0.02)
            assert "0.3 s of CPU" in gateway.gateway.guards[0].reason

    asyncio.run(walk())


def test_shadow_that_needs_too_much_memory_fails_only_its_copies() -> None:
    """With 3.6 GB of at most 2 the run raises in the child, and the pair counts as faulty."""

    async def walk() -> None:
        async with shadowed_gateway(memory_hungry_files(900_000_000, when=5.0)) as gateway:
            await gateway.call(9.0)
            await gateway.wait_idle()
            pairs = gateway.shadow().pairs
            assert (pairs.faulty, gateway.gateway.guards, gateway.pid > 0) == (1, [], True)

    asyncio.run(walk())


def test_stopped_shadow_is_replaced_without_memory_growth_or_report() -> None:
    """After SIGSTOP copies wait up to the bound, the others are dropped; then it is replaced."""

    async def walk() -> None:
        bounds = Settings(shadow_rows_waiting_max=256, shadow_run_timeout_ms=3_000)
        async with shadowed_gateway(tiny_files(), bounds) as gateway:
            stopped = gateway.pid
            os.kill(stopped, signal.SIGSTOP)
            gateway.shadow()
            await predict_all_keys(gateway.gateway)
            before_mb, calls, slowest = resident_mb(), 60, 0.0
            while pid_exists(stopped):
                began = time.monotonic()
                calls += len(await predict_all_keys(gateway.gateway))
                slowest = max(slowest, time.monotonic() - began)
                assert gateway.gateway.parts.shadows.rows_waiting <= 256
            assert resident_mb() - before_mb < 16
            assert (
                slowest < 2.5
            )  # a caller that waited for the shadow would wait for all of its 3 s
            await gateway.wait_idle()
            shadow = gateway.shadow()
            assert shadow.calls.dropped + shadow.pairs.pairs == calls
            assert shadow.calls.dropped >= calls - 60
            await call_until_paired(gateway)
            assert gateway.gateway.guards == []

    asyncio.run(walk())


def test_killed_shadow_is_started_again_without_report() -> None:
    """After each of three SIGKILLs with copies inside there is a new process, and no guard."""

    async def walk() -> None:
        async with shadowed_gateway(tiny_files()) as gateway:
            for _ in range(3):
                killed = gateway.pid
                os.kill(killed, signal.SIGKILL)
                await gateway.call(1.0, calls=20)
                await wait_until(lambda pid=killed: not pid_exists(pid))  # type: ignore[misc]
                await call_until_paired(gateway)
                assert gateway.pid != killed
            assert gateway.gateway.guards == []

    asyncio.run(walk())


async def call_until_paired(gateway: ShadowedGateway) -> None:
    """Call until the shadow's answers are compared again."""
    gateway.shadow()
    give_up = time.monotonic() + 10.0
    while not gateway.shadow().pairs.pairs:
        assert time.monotonic() < give_up
        await gateway.call(1.0)
        await gateway.wait_idle()
        await asyncio.sleep(0.01)
