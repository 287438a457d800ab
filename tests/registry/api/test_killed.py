"""Tests of the registry process: killed during writes, and stopped by SIGTERM."""

import asyncio
import json
import random
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.history.chain import verify_chain
from registry.storage.deployments import deployment_json
from registry.storage.store import RegistryStore
from registry.types import RegistryUnavailableError, RevisionConflictError
from tests.registry.registry_fixture import RegistryProcess, registry_fixture

pytestmark = pytest.mark.walk

ROUNDS = 4
MODELS = ("churn", "fraud", "upsell")


async def register_models(folder: Path) -> None:
    """Register two versions of three models."""
    async with registry_fixture(folder) as registry:
        for model in MODELS:
            for number in (1, 2):
                await registry.register(number, model)


async def write_until_killed(
    address: str, model: str, acknowledged: dict[str, int], written_once: asyncio.Event
) -> None:
    """Swap the preloaded version again and again.

    Each write changes a deployment and the history.
    """
    async with RegistryClient(address, f"writer of {model}") as client:
        with suppress(RegistryUnavailableError):
            while True:
                current = await client.deployment(model)
                other_label = "1" if current.preload == ("2",) else "2"
                with suppress(RevisionConflictError):
                    written = await client.deploy(
                        replace(current, preload=(other_label,), why="swap")
                    )
                    acknowledged[model] = written.revision
                    written_once.set()


async def kill_once(folder: Path, delay_s: float, acknowledged: dict[str, int]) -> None:
    """Write from two clients for each model until the registry is killed."""
    registry, written_once = RegistryProcess(folder), asyncio.Event()
    try:
        writers = [
            asyncio.create_task(
                write_until_killed(registry.address, model, acknowledged, written_once)
            )
            for model in MODELS * 2
        ]
        await asyncio.wait_for(written_once.wait(), 20)
        await asyncio.sleep(delay_s)  # the moment of the kill is the fault injected, not a wait
        registry.kill()
        await asyncio.wait_for(asyncio.gather(*writers), 10)
    finally:
        registry.close()


def check_after_kill(folder: Path, acknowledged: dict[str, int]) -> int:
    """Check that history and deployments agree, and that no acknowledged write is lost."""
    store = RegistryStore(folder, lambda: 1)
    try:
        assert store.stopped_reason == ""
        entries: list[pb.HistoryEntry] = []
        while page := store.history(
            after=entries[-1].seq if entries else 0, limit=0, object_prefix=""
        ).entries:
            entries.extend(page)
        head = store.history(after=0, limit=1, object_prefix="").head
        assert verify_chain(entries, head, store.keys.version_public_key) is None
        for model in MODELS:
            recorded = [
                json.loads(entry.after)
                for entry in entries
                if entry.object == f"model/{model}/deployment"
            ]
            deployment = store.deployment(model)
            assert deployment.revision == len(recorded) >= acknowledged.get(model, 0)
            if recorded:
                del recorded[-1]["policy_digest"], recorded[-1]["message_sha256"]
                assert recorded[-1] == json.loads(json.dumps(deployment_json(deployment)))
                label = deployment.preload[0]
                assert store.get_version(model, label).status == pb.STAGING
    finally:
        store.close()
    return len(entries)


def test_registry_process_ends_with_code_0_after_sigterm(tmp_path: Path) -> None:
    """A watch is open meanwhile. A process on a taken port ends with code 3."""

    async def watch() -> int:
        registry = RegistryProcess(tmp_path)
        try:
            async with RegistryClient(registry.address, "ann") as client:
                stream = client.watch_deployments()
                await anext(stream)
                second = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "registry", "--folder", str(tmp_path / "other")),
                    *("--listen", registry.address),
                    stderr=subprocess.PIPE,
                )
                _, message = await second.communicate()
                assert (second.returncode, b"cannot listen" in message) == (3, True)
                code = await asyncio.to_thread(registry.stop)
                await stream.aclose()  # type: ignore[attr-defined]
                return code
        finally:
            registry.close()

    assert asyncio.run(watch()) == 0


def test_registry_process_keeps_history_and_deployments_equal_after_kills(tmp_path: Path) -> None:
    """Four kills come at random moments."""
    generator = random.Random(11)
    acknowledged: dict[str, int] = {}
    asyncio.run(register_models(tmp_path))
    lengths = []
    for _ in range(ROUNDS):
        asyncio.run(kill_once(tmp_path, generator.uniform(0.05, 0.4), acknowledged))
        lengths.append(check_after_kill(tmp_path, acknowledged))

    assert lengths[-1] > lengths[0] > 6  # it did write in between
