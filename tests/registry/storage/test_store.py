"""Tests of RegistryStore on disk: damage, locks, full disks and keys."""

import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos import registry_pb2 as pb
from registry import bundle
from registry.keys import prediction_id_key, signing_key
from registry.storage.store import RegistryStore
from registry.types import (
    BadRequestError,
    RegistryFaultError,
    RegistryFullError,
    RegistryUnavailableError,
)
from tests.tiny_models import linear_weights, tiny_files

pytestmark = pytest.mark.walk

AT = 1_790_000_000_000_000_000


def opened_store(folder: Path) -> RegistryStore:
    """A store with a fixed clock."""
    return RegistryStore(folder, lambda: AT)


def register_version(store: RegistryStore, number: int = 1) -> pb.Version:
    """Register the *number*-th version of churn."""
    files = bundle.seal_files(
        tiny_files(weights=linear_weights(3) * number),
        model="churn",
        author="ann",
        created_unix_ms=number,
    )
    return store.register("ann", bundle.verify_bundle(files, trusted_key=None), files)


def make_registry(folder: Path, versions: int = 4) -> None:
    """Make a registry with *versions* versions."""
    store = opened_store(folder)
    for number in range(1, versions + 1):
        register_version(store, number)
    store.close()


def execute_sql(folder: Path, *statements: str) -> None:
    """Change the database while no registry has it open."""
    connection = sqlite3.connect(folder / "registry.sqlite")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def register_many(store: RegistryStore) -> None:
    """Register versions 2 to 39."""
    for number in range(2, 40):
        register_version(store, number)


@pytest.mark.parametrize(
    ("statements", "broken"),
    [
        (["UPDATE history SET reason = 'fine' WHERE seq = 2"], "entry 2 was edited"),
        (["DELETE FROM history WHERE seq = 2"], "entry 2 is missing"),
        (["DELETE FROM history WHERE seq = 4"], "entry 4 is missing"),
        (
            [
                "UPDATE history SET seq = 99 WHERE seq = 2",
                "UPDATE history SET seq = 2 WHERE seq = 3",
                "UPDATE history SET seq = 3 WHERE seq = 99",
            ],
            "entry 2 was edited",
        ),
        (
            [
                "DELETE FROM history WHERE seq = 4",
                "UPDATE head SET seq = 3, digest = (SELECT digest FROM history WHERE seq = 3)",
            ],
            "entry 3 is the head, and its signature is not valid",
        ),
        (["DELETE FROM head"], "is the head"),
    ],
)
def test_store_stops_writing_after_a_manipulated_history(
    statements: list[str], broken: str, tmp_path: Path
) -> None:
    """The damage is found at start and named in the error. Reading goes on."""
    make_registry(tmp_path)
    execute_sql(tmp_path, *statements)

    store = opened_store(tmp_path)

    with pytest.raises(RegistryUnavailableError, match=broken):
        register_version(store, 9)
    assert len(store.list_versions("churn")[0]) == 4
    store.close()


def test_store_continues_a_valid_history_after_a_restart(tmp_path: Path) -> None:
    """Keys, labels and the chain are the same."""
    make_registry(tmp_path)

    store = opened_store(tmp_path)

    assert register_version(store, 5).label == "5"
    assert store.history(after=0, limit=0, object_prefix="").head.seq == 5
    assert store.history(after=1, limit=2, object_prefix="model/churn/").entries[0].seq == 2
    store.close()


def test_store_stops_writing_after_a_damaged_page(tmp_path: Path) -> None:
    """SQLite's quick check runs at start."""
    make_registry(tmp_path, versions=12)
    path = tmp_path / "registry.sqlite"
    content = bytearray(path.read_bytes())
    for start in range(4_096, len(content), 4_096):
        content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)

    with pytest.raises((RegistryUnavailableError, RegistryFaultError)):
        register_version(opened_store(tmp_path), 13)


def test_store_waits_one_second_for_the_lock_of_another_process(tmp_path: Path) -> None:
    """Readers do not wait."""
    store = opened_store(tmp_path)
    register_version(store)
    other = sqlite3.connect(tmp_path / "registry.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(RegistryUnavailableError, match="for 1000 ms"):
        register_version(store, 2)
    assert len(store.list_versions("churn")[0]) == 1

    other.execute("ROLLBACK")
    other.close()
    assert register_version(store, 2).label == "2"
    store.close()


def limit_pages(store: RegistryStore, pages: int) -> None:
    """Limit the size of the database, which has the effect of a full disk."""
    writer = store._database._writer
    writer.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    writer.rollback()


def test_store_writes_nothing_on_a_full_disk_and_continues_later(tmp_path: Path) -> None:
    """A failed change leaves no entry in the history."""
    store = opened_store(tmp_path)
    register_version(store)
    with store._database.read_transaction() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    limit_pages(store, pages)

    with pytest.raises(RegistryFullError, match="disk is full"):
        register_many(store)

    written = len(store.list_versions("churn")[0])
    assert store.history(after=0, limit=0, object_prefix="").head.seq == written
    limit_pages(store, 1_000_000)
    assert register_version(store, 50).label == str(written + 1)
    store.close()


def test_store_refuses_a_number_of_2_to_the_63(tmp_path: Path) -> None:
    """BadRequestError names the bound."""
    store = opened_store(tmp_path)
    lease = store.acquire_lease("ann", pb.LeaseRequest(name="rollout", holder="a", seconds=60))

    with pytest.raises(BadRequestError, match=r"2\*\*63"):
        store.save_checkpoint(
            "ann", pb.Checkpoint(rollout_id="r", sequence=2**63, lease_token=lease.token)
        )
    store.close()


def test_store_refuses_a_folder_that_another_store_has_open(tmp_path: Path) -> None:
    """It opens the folder after the other store is closed."""
    first = opened_store(tmp_path)
    with pytest.raises(RegistryUnavailableError, match="another registry serves"):
        opened_store(tmp_path)
    first.close()

    opened_store(tmp_path).close()


def test_store_removes_folders_left_by_a_killed_write(tmp_path: Path) -> None:
    """A folder that was not renamed is no version."""
    make_registry(tmp_path, versions=1)
    (tmp_path / "versions" / ".abc.new").mkdir()

    opened_store(tmp_path).close()

    assert [entry.name for entry in (tmp_path / "versions").glob(".*")] == []


def test_keys_are_made_once_with_mode_600(tmp_path: Path) -> None:
    """Each start reads the same key. A key that all users could read is refused."""
    first = signing_key(tmp_path / "keys")
    secret = prediction_id_key(tmp_path / "keys")

    assert signing_key(tmp_path / "keys").private_bytes_raw() == first.private_bytes_raw()
    assert prediction_id_key(tmp_path / "keys") == secret
    assert isinstance(first, Ed25519PrivateKey)
    assert len(secret) == 32
    for path in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    (tmp_path / "keys" / "registry.ed25519").chmod(0o660)
    assert signing_key(tmp_path / "keys").private_bytes_raw() == first.private_bytes_raw()
    (tmp_path / "keys" / "registry.ed25519").chmod(0o644)
    with pytest.raises(RegistryFaultError, match="mode 644"):
        signing_key(tmp_path / "keys")


@pytest.mark.parametrize("spoil", [lambda p: p.write_bytes(b"short"), lambda p: p.write_bytes(b"")])
def test_key_of_another_length_is_refused(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    """A cut key must not sign."""
    signing_key(tmp_path)
    spoil(tmp_path / "registry.ed25519")

    with pytest.raises(RegistryFaultError, match="32"):
        signing_key(tmp_path)
