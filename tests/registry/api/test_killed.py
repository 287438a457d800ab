"""The registry killed with kill -9 in the middle of its writes: old or new, never mixed."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.history import verify_chain
from registry.storage.deployments import deployment_json
from registry.storage.store import RegistryStore
from registry.types import RegistryUnavailableError, RevisionConflictError
from tests.registry.registry_fixture import registry_fixture

pytestmark = pytest.mark.walk

ROUNDS = 4
MODELS = ("churn", "fraud", "upsell")


class Killable:
    """`python -m registry` on a free port."""

    def __init__(self, folder: Path) -> None:
        self._running = subprocess.Popen(
            [sys.executable, "-m", "registry", "--folder", str(folder), "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._running.stdout is not None
        self.address = self._running.stdout.readline().split()[-1]

    def kill(self) -> None:
        """No chance to say goodbye."""
        os.kill(self._running.pid, signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to go, and return its exit code."""
        os.kill(self._running.pid, signal.SIGTERM)
        return self._running.wait(10)

    def close(self) -> None:
        """Reap it."""
        self._running.kill()
        self._running.wait(10)
        assert self._running.stdout is not None
        self._running.stdout.close()


async def prepare(folder: Path) -> None:
    """Three models with two versions each, and nothing but preloads deployed."""
    async with registry_fixture(folder) as house:
        for model in MODELS:
            for number in (1, 2):
                await house.register(number, model)


async def write_until_killed(address: str, model: str, acknowledged: dict[str, int]) -> None:
    """Swap the preloaded version back and forth: each write moves a deployment and the history."""
    async with RegistryClient(address, f"writer of {model}") as client:
        with suppress(RegistryUnavailableError):
            while True:
                held = await client.deployment(model)
                other = "1" if held.preload == ("2",) else "2"
                with suppress(RevisionConflictError):
                    written = await client.deploy(replace(held, preload=(other,), why="swap"))
                    acknowledged[model] = written.revision


async def kill_once(folder: Path, delay_s: float, acknowledged: dict[str, int]) -> None:
    """Write as fast as it goes, from two clients a model, until the kill."""
    registry = Killable(folder)
    try:
        writers = [
            asyncio.create_task(write_until_killed(registry.address, model, acknowledged))
            for model in MODELS * 2
        ]
        await asyncio.sleep(delay_s)  # the moment of the kill is the fault injected, not a wait
        registry.kill()
        await asyncio.wait_for(asyncio.gather(*writers), 10)
    finally:
        registry.close()


def check_after_kill(folder: Path, acknowledged: dict[str, int]) -> int:
    """Every deployment is the newest its history tells of, and no acknowledged write is lost."""
    store = RegistryStore(folder, lambda: 1)
    try:
        entries: list[pb.HistoryEntry] = []
        while page := store.history(
            after=entries[-1].seq if entries else 0, limit=0, object_prefix=""
        ).entries:
            entries.extend(page)
        head = store.history(after=0, limit=1, object_prefix="").head
        assert verify_chain(entries, head, store.keys.version_public_key) is None
        for model in MODELS:
            told = [json.loads(e.after) for e in entries if e.object == f"model/{model}/deployment"]
            held = store.deployment(model)
            assert held.revision == len(told) >= acknowledged.get(model, 0)
            if told:
                del told[-1]["policy_digest"]
                assert told[-1] == json.loads(json.dumps(deployment_json(held)))
                label = held.preload[0]
                assert store.get_version(model, label).status == pb.STAGING
    finally:
        store.close()
    return len(entries)


def test_sigterm_ends_it_well_even_with_a_watcher(tmp_path: Path) -> None:
    """Exit code 0 while somebody watches; a port that is taken is exit code 3."""

    async def watch() -> int:
        registry = Killable(tmp_path)
        try:
            async with RegistryClient(registry.address, "ann") as client:
                stream = client.watch_deployments()
                await anext(stream)
                taken = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "registry", "--folder", str(tmp_path / "other")),
                    *("--listen", registry.address),
                    stderr=subprocess.PIPE,
                )
                _, words = await taken.communicate()
                assert (taken.returncode, b"cannot listen" in words) == (3, True)
                code = await asyncio.to_thread(registry.stop)
                await stream.aclose()  # type: ignore[attr-defined]
                return code
        finally:
            registry.close()

    assert asyncio.run(watch()) == 0


def test_no_kill_leaves_a_deployment_without_its_entry(tmp_path: Path) -> None:
    """Four kills at random moments; after each, history and deployments are one story."""
    moment = random.Random(11)
    acknowledged: dict[str, int] = {}
    asyncio.run(prepare(tmp_path))
    lengths = []
    for _ in range(ROUNDS):
        asyncio.run(kill_once(tmp_path, moment.uniform(0.05, 0.4), acknowledged))
        lengths.append(check_after_kill(tmp_path, acknowledged))

    assert lengths[-1] > lengths[0] > 6  # it did write in between
