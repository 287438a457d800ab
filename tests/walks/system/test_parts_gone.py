"""The gateway answers while the registry and the controller are gone or hang."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from registry.types import GateError
from tests.tiny_models import tiny_files
from tests.turnout.test_managed_process import wait_soon
from tests.walks.running_system import RunningSystem
from tests.walks.system.test_workers import serving_pids_of
from turnout.demo.deploy_acts import wait_until_applied
from turnout.processes.local_system import LocalSystem, SystemPlan
from turnout.processes.managed_process import ManagedProcess
from turnout_client import PredictClient

pytestmark = pytest.mark.walk

MODEL = "tiny"
INPUTS = [1.0, 0.0, 0.0]


@asynccontextmanager
async def system_without_restart(
    folder: Path,
) -> AsyncIterator[tuple[RunningSystem, dict[str, ManagedProcess]]]:
    """Run the processes of a system without restarting them; a tiny model is in production."""
    system = LocalSystem(SystemPlan(folder=folder), print)
    system.write_settings()
    parts = {child.spec.name: child for child in system.processes}
    try:
        await asyncio.gather(*(child.start() for child in system.processes))
        running = RunningSystem(folder, system.addresses)
        await _deploy(running)
        yield running, parts
    finally:
        for child in reversed(system.processes):
            await child.stop()


async def _deploy(system: RunningSystem) -> None:
    await deploy_model(system, MODEL, tiny_files(MODEL))


async def deploy_model(system: RunningSystem, model: str, files: Mapping[str, bytes]) -> None:
    """Make a version production of a new model, and wait until the gateway serves it."""
    async with system.registry_client("dana") as dana:
        version = await dana.register(model, files)
    async with system.registry_client("gabriel") as gabriel:
        approval = await gabriel.approve(model, version.label, "initial", "", "", "fine")
        deployment = await gabriel.deployment(model)
        deployment = await gabriel.deploy(replace(deployment, preload=(version.label,), why="warm"))
        proposed = replace(
            deployment, preload=(), production=version.label, approval_id=approval.id, why="first"
        )
        async with asyncio.timeout(20):
            while True:
                try:
                    deployment = await gabriel.deploy(proposed)
                except GateError:
                    await asyncio.sleep(0.05)
                else:
                    break
            await wait_until_applied(gabriel, deployment, 3)


async def kill(child: ManagedProcess) -> None:
    """Kill one process, and wait until it has ended."""
    os.kill(child.pid, signal.SIGKILL)
    await child.stop()


def test_gateway_answers_without_a_registry_also_after_worker_restarts(tmp_path: Path) -> None:
    """The registry is killed and then every worker. The new workers answer with version 1."""

    async def walk() -> None:
        async with (
            system_without_restart(tmp_path / "state") as (system, parts),
            PredictClient(system.addresses.gateway) as client,
        ):
            await kill(parts["control"])
            first = await client.predict(MODEL, keys="S1", inputs=INPUTS, timeout_s=5)
            assert (first.version, first.role) == ("1", "production")
            for _ in range(2):
                before = serving_pids_of(system)
                for pid in before.values():
                    os.kill(pid, signal.SIGKILL)
                await wait_soon(lambda old=before: _all_replaced(system, old), 40.0)  # type: ignore[misc]
                prediction = await client.predict(MODEL, keys="S1", inputs=INPUTS, timeout_s=5)
                assert prediction.version == "1"
                assert prediction.scores[0, 0] == pytest.approx(0.1)

    asyncio.run(walk())


def test_gateway_answers_in_time_while_the_registry_hangs(tmp_path: Path) -> None:
    """SIGSTOP leaves the registry's connections open. Calls are answered within 1 s."""

    async def walk() -> None:
        async with (
            system_without_restart(tmp_path / "state") as (system, parts),
            PredictClient(system.addresses.gateway) as client,
        ):
            os.kill(parts["control"].pid, signal.SIGSTOP)
            try:
                for _ in range(50):
                    await client.predict(MODEL, keys="S1", inputs=INPUTS, timeout_s=1)
            finally:
                os.kill(parts["control"].pid, signal.SIGCONT)

    asyncio.run(walk())


def _all_replaced(system: RunningSystem, before: dict[int, int]) -> bool:
    now = serving_pids_of(system)
    return len(now) == 2 and not set(now.values()) & set(before.values())
