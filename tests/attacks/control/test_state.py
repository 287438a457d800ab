"""F6: whoever can write to the registry's folder cannot change its state without being named."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.client import RegistryClient
from registry.types import AuditReport, RegistryUnavailableError
from tests.registry.registry_fixture import POLICY, RegistryProcess, registry_fixture

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def stopped_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry with a version in production, a rejected one, and a finding."""
    folder = tmp_path_factory.mktemp("registry")

    async def fill() -> None:
        async with registry_fixture(folder) as registry:
            await registry.put_in_production()
            for number in (2, 3, 4):
                await registry.register(number)
            await registry.bob.reject("churn", "3", "no", "standard", POLICY)
            await registry.cleo.write_finding(pb.Finding(model="churn", kind="hold", text="odd"))

    asyncio.run(fill())
    return folder


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[RegistryClient]:
    """A registry process on *folder*, and olga's client."""
    process = RegistryProcess(folder)
    try:
        async with RegistryClient(process.address, "olga") as client:
            yield client
    finally:
        process.close()


async def audit_and_write(folder: Path, key: bytes) -> AuditReport:
    """Start the registry, audit it with the noted key, and check that it refuses a write."""
    async with started(folder) as client:
        report = await client.audit(key)
        with pytest.raises(RegistryUnavailableError, match="writes nothing because"):
            await client.write_finding(pb.Finding(model="churn", kind="hold", text="again"))
        assert await client.list_versions("churn")
    return report


def noted_key(folder: Path) -> bytes:
    """The registry's public key, as an auditor noted it."""
    with sqlite3.connect(folder / "registry.sqlite") as connection:
        key: bytes = connection.execute("SELECT public_key FROM head").fetchone()[0]
    return key


FORGED_APPROVAL = (
    "INSERT INTO approvals SELECT 9, 'ffffffffffffffff', model, '3', digest, 'standard', "
    f"'{POLICY}', '', 'bob', 'forged', 0, 0, 1, '[]', 0 FROM versions WHERE label = 3"
)


@pytest.mark.attack("F6")
@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (FORGED_APPROVAL, "table approvals, row 9 is in the table"),
        ("DELETE FROM approvals WHERE rejected = 1", "table approvals, row 2 is missing"),
        ("UPDATE versions SET author = 'zed' WHERE label = 4", 'field author: the history says "a'),
        ("UPDATE versions SET was_production = 1", "field was_production"),
        (
            "UPDATE models SET holdout_salt = x'41414141414141414141414141414141'",
            "field holdout_salt_sha256",
        ),
        ("DELETE FROM findings", "table findings, row 1 is missing"),
        ("DELETE FROM versions WHERE label = 4", "table versions"),
    ],
    ids=["approval", "rejection", "author", "was_production", "salt", "finding", "version"],
)
def test_changed_table_is_named_and_stops_writes(
    statement: str, text: str, stopped_registry: Path, tmp_path: Path
) -> None:
    """Somebody with the database file changes one table."""
    folder = tmp_path / "registry"
    shutil.copytree(stopped_registry, folder)
    with sqlite3.connect(folder / "registry.sqlite") as connection:
        connection.execute(statement)
    connection.close()

    report = asyncio.run(audit_and_write(folder, noted_key(folder)))

    assert text in report.problem
    assert text in report.stopped


@pytest.mark.attack("F6")
def test_changed_deployment_is_named_and_not_published(
    stopped_registry: Path, tmp_path: Path
) -> None:
    """Somebody with the database file puts version 3 into production."""
    folder = tmp_path / "registry"
    shutil.copytree(stopped_registry, folder)
    with sqlite3.connect(folder / "registry.sqlite") as connection:
        (content,) = connection.execute("SELECT message FROM deployments").fetchone()
        message = pb.Deployment.FromString(content)
        message.production, message.revision = "3", message.revision + 1
        connection.execute(
            "UPDATE deployments SET message = ?, revision = revision + 1",
            (message.SerializeToString(),),
        )
    connection.close()

    async def scenario() -> None:
        report = await audit_and_write(folder, noted_key(folder))
        assert "table deployments, row 'churn', field message." in report.problem
        async with started(folder) as client:
            event = await anext(client.watch_deployments())
            assert not event.deployments

    asyncio.run(scenario())


@pytest.mark.attack("F6")
def test_change_beside_a_running_registry_stops_the_next_write(
    stopped_registry: Path, tmp_path: Path
) -> None:
    """Somebody changes a table while the registry runs, and then deploys."""
    folder = tmp_path / "registry"
    shutil.copytree(stopped_registry, folder)

    async def scenario() -> None:
        async with started(folder) as client:
            assert (await client.audit()).intact
            with sqlite3.connect(folder / "registry.sqlite") as connection:
                connection.execute("UPDATE versions SET was_production = 1")
            connection.close()
            current = await client.deployment("churn")
            forged = replace(current, production="3", why="forged")
            with pytest.raises(RegistryUnavailableError, match="field was_production"):
                await client.deploy(forged, rollback=True)
            report = await client.audit()
            assert "field was_production" in report.stopped

    asyncio.run(scenario())


@pytest.mark.attack("§2")
def test_older_copy_and_other_history_contradict_a_noted_head(
    stopped_registry: Path, tmp_path: Path
) -> None:
    """Somebody puts back an older copy of the whole registry, with its keys."""
    older, folder = tmp_path / "older", tmp_path / "registry"
    for copy in (older, folder):
        shutil.copytree(stopped_registry, copy)

    async def scenario() -> None:
        # The head is noted after one more entry.
        async with started(folder) as client:
            await client.write_finding(pb.Finding(model="churn", kind="hold", text="later"))
            noted = {"the safe": await client.signed_head()}
            assert (await client.audit(noted_heads=noted)).intact
        # The older copy, and the older copy that went on in another way.
        async with started(older) as client:
            assert (await client.audit()).intact
            report = await client.audit(noted_heads=noted)
            assert "the registry is an older copy" in report.problem
            for _ in range(2):
                await client.write_finding(pb.Finding(model="churn", kind="hold", text="other"))
            report = await client.audit(noted_heads=noted)
            assert "the registry has another history" in report.problem

    asyncio.run(scenario())


@pytest.mark.attack("§2")
@pytest.mark.parametrize("name", ["registry.ed25519", "prediction_id.key"])
def test_removed_key_refuses_the_start(name: str, stopped_registry: Path, tmp_path: Path) -> None:
    """Somebody removes a key, so that a new one would be made silently."""
    folder = tmp_path / "registry"
    shutil.copytree(stopped_registry, folder)
    (folder / "keys" / name).unlink()

    line = [sys.executable, "-m", "registry", "--folder", str(folder), "--listen", "127.0.0.1:0"]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 3
    assert f"keys/{name} is missing beside registry.sqlite. Put it back" in ended.stderr
    assert not (folder / "keys" / name).exists()
