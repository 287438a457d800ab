"""Tests of the registry process: killed during writes, and stopped by SIGTERM."""

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
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

WRITES_BEFORE_KILLS = (1, 7, 20, 45)
"""Writes that are acknowledged before each kill."""
WRITES_S = 20.0
"""Time for the writes of one round, and for the clients to notice the kill, in seconds."""
MODELS = ("churn", "fraud", "upsell")


async def register_models(folder: Path) -> None:
    """Register two versions of three models."""
    async with registry_fixture(folder) as registry:
        for model in MODELS:
            for number in (1, 2):
                await registry.register(number, model)


async def write_until_killed(
    address: str, model: str, acknowledged: dict[str, int], count_write: Callable[[], None]
) -> None:
    """Swap the preloaded version again and again.

    Each write changes a deployment and the history. count_write is called after each.
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
                    acknowledged[model] = max(acknowledged.get(model, 0), written.revision)
                    count_write()


async def kill_once(folder: Path, writes: int, acknowledged: dict[str, int]) -> None:
    """Write from two clients for each model, and kill the registry after *writes* of them.

    The other clients wait for the answers to their writes at that moment. Without so many writes
    the registry is not killed, and TimeoutError is raised.
    """
    registry = RegistryProcess(folder)
    written = itertools.count(1)

    def count_write() -> None:
        if next(written) == writes:
            registry.kill()

    try:
        writers = (
            write_until_killed(registry.address, model, acknowledged, count_write)
            for model in MODELS * 2
        )
        await asyncio.wait_for(asyncio.gather(*writers), WRITES_S)
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
    """Each kill comes after another number of writes, while other writes are in progress."""
    acknowledged: dict[str, int] = {}
    asyncio.run(register_models(tmp_path))
    length = check_after_kill(tmp_path, acknowledged)
    for writes in WRITES_BEFORE_KILLS:
        asyncio.run(kill_once(tmp_path, writes, acknowledged))
        longer = check_after_kill(tmp_path, acknowledged)

        assert longer >= length + writes
        length = longer
