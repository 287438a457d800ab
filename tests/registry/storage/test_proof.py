"""Tests that a registry proves its state: every edit is named, and no honest state is accused."""

import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.storage import proof
from registry.storage.store import RegistryStore
from registry.types import (
    RegistryError,
    RegistryFaultError,
    RegistryUnavailableError,
    VersionRefusedError,
)
from tests.registry.honest_registry import START_NS, HonestRegistry
from tests.registry.old_registry import forget_fields
from tests.registry.registry_edits import make_random_edit

pytestmark = pytest.mark.walk

SNAPSHOT_EVERY = 40
"""Entries between two snapshots in these tests, so that a short history has some."""


@pytest.fixture
def fast_folder() -> Iterator[Path]:
    """A folder in memory, where the system has one: what a disk would keep is not tested here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _frequent_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "SNAPSHOT_EVERY", SNAPSHOT_EVERY)


def make_honest(folder: Path, seed: int, operations: int) -> None:
    """Make a registry by random legal operations, in three runs of its process."""
    generator = random.Random(seed)
    for _ in range(3):
        registry = HonestRegistry(folder, generator)
        registry.operate(operations // 3)
        assert registry.store.stopped_reason == ""
        registry.store.close()


def found_problem(folder: Path) -> str:
    """What a start, the check of older entries, and a fetch of every version say; "" if nothing."""
    try:
        store = RegistryStore(folder, lambda: 1)
    except RegistryError as error:
        return str(error)
    try:
        for _ in store.older_entries():
            pass
        if store.stopped_reason:
            return store.stopped_reason
        for model in store.list_models()[0]:
            for version in store.list_versions(model.model)[0]:
                try:
                    store.fetch(model.model, version.digest)
                except VersionRefusedError as error:
                    return f"version {version.digest}: {error}"
        return ""
    finally:
        store.close()


def try_edits(folder: Path, seeds: range, operations: int) -> dict[str, list[int]]:
    """Try one random edit for each seed; return kind -> [made, without effect], all named.

    Every hundredth edit begins from another honest registry.
    """
    counts: dict[str, list[int]] = {}
    unnamed: list[str] = []
    for seed in seeds:
        honest = folder / f"honest-{seed // 100}"
        if not honest.exists():
            make_honest(honest, seed // 100, operations)
            assert found_problem(honest) == "", seed
        edited = folder / "edited"
        shutil.copytree(honest, edited)
        kind, name = make_random_edit(random.Random(seed), edited)
        try:
            problem = found_problem(edited)
        except Exception as error:  # noqa: BLE001  a crash names nothing
            problem = f"it crashed: {error!r}"
        made = counts.setdefault(kind, [0, 0])
        made[0 if name else 1] += 1
        if seed % 500 == 499:
            print(f"seed {seed}: {len(unnamed)} unnamed; [made, without effect]: {counts}")  # noqa: T201
        if (name and name not in problem) or (not name and problem):
            unnamed.append(f"seed {seed}: {kind} must be named {name!r}: {problem!r}")
            print(unnamed[-1])  # noqa: T201  a long run says at once what it found
        shutil.rmtree(edited)
    assert not unnamed, f"{len(unnamed)} of {len(seeds)}:\n" + "\n".join(unnamed[:20])
    return counts


def test_every_random_edit_is_named(fast_folder: Path) -> None:
    """Bar 3 of issue 12, a small share of it."""
    counts = try_edits(fast_folder, range(150), 150)

    assert sum(made for made, _ in counts.values()) > 100


@pytest.mark.nightly
@pytest.mark.timeout(7_200)
def test_each_of_10000_random_edits_is_named(fast_folder: Path) -> None:
    """Bar 3 of issue 12: 10,000 single edits of database, files, keys and history."""
    counts = try_edits(fast_folder, range(1_000, 12_000), 200)

    assert sum(made for made, _ in counts.values()) >= 10_000


@pytest.mark.parametrize("seed", range(3))
def test_no_honest_registry_is_accused(seed: int, fast_folder: Path) -> None:
    """Three runs of legal operations each, with a proof at each start."""
    make_honest(fast_folder, seed, 300)

    assert found_problem(fast_folder) == ""


F6_STATEMENTS = {
    "an approval is forged": (
        "INSERT INTO approvals SELECT max(place) + 1, 'ffffffffffffffff', model, version, "
        "version_digest, policy_name, policy_digest, '', 'bob', 'forged', 0, 0, 1, '[]', 0 "
        "FROM approvals",
        "table approvals",
    ),
    "a rejection is deleted": ("DELETE FROM approvals WHERE rejected = 1", "table approvals"),
    "an author is changed": ("UPDATE versions SET author = 'zed' WHERE label = 1", "field author"),
    "a version was production": (
        "UPDATE versions SET was_production = 1 - was_production",
        "field was_production",
    ),
    "a deployment is replaced": (
        "UPDATE deployments SET message = substr(message, 1, 9), revision = revision + 1",
        "table deployments",
    ),
    "a salt is changed": (
        "UPDATE models SET holdout_salt = x'41414141414141414141414141414141'",
        "field holdout_salt",
    ),
    "findings are deleted": ("DELETE FROM findings", "table findings"),
    "a version is deleted": ("DELETE FROM versions WHERE label = 1", "table versions"),
    "an actor becomes bytes": (
        # An entry behind the newest snapshot: a start reads these, older ones are read later.
        "UPDATE history SET actor = CAST(actor AS BLOB) WHERE seq = (SELECT max(seq) FROM history)",
        "history entry",
    ),
    "seals are deleted": ("DELETE FROM seals", "seal"),
}


@pytest.mark.parametrize("name", F6_STATEMENTS)
def test_edit_of_a_stopped_database_stops_writes(name: str, fast_folder: Path) -> None:
    """The statements of F6: the start names each, reads go on, and nothing is written."""
    make_honest(fast_folder, 7, 300)
    statement, text = F6_STATEMENTS[name]
    execute_sql(fast_folder, statement)

    store = RegistryStore(fast_folder, lambda: START_NS)

    assert text in store.stopped_reason
    with pytest.raises(RegistryUnavailableError, match="writes nothing because"):
        store.write_finding("ann", pb.Finding(model="churn", kind="hold", text="t"))
    assert store.list_versions("churn")[0]
    store.close()


def test_edit_of_a_running_database_is_found_by_the_next_write(fast_folder: Path) -> None:
    """Another process deletes a finding; without an edit, its visit changes nothing."""
    registry = HonestRegistry(fast_folder, random.Random(3))
    registry.operate(200)
    finding = pb.Finding(model="churn", kind="hold", text="t")
    execute_sql(fast_folder, "UPDATE findings SET text = text")
    registry.store.write_finding("ann", finding)

    execute_sql(fast_folder, "DELETE FROM findings WHERE sequence = 1")

    with pytest.raises(RegistryUnavailableError, match="table findings, row 1 is missing"):
        registry.store.write_finding("ann", finding)
    registry.store.close()


def test_altered_deployment_reaches_no_gateway(fast_folder: Path) -> None:
    """The service asks `list_deployments` what to publish."""
    make_honest(fast_folder, 7, 300)
    honest = RegistryStore(fast_folder, lambda: START_NS)
    published = {deployment.model for deployment in honest.list_deployments()}
    honest.close()
    execute_sql(
        fast_folder, f"UPDATE deployments SET revision = 999 WHERE model = '{min(published)}'"
    )

    store = RegistryStore(fast_folder, lambda: START_NS)

    assert {d.model for d in store.list_deployments()} == published - {min(published)}
    store.close()


def test_database_of_an_older_registry_is_sealed_and_not_accused(fast_folder: Path) -> None:
    """It has no table of seals, and its entries lack what the new ones have."""
    make_old_registry(fast_folder)

    for _ in range(2):
        store = RegistryStore(fast_folder, lambda: START_NS)
        assert store.stopped_reason == ""
        store.close()
    execute_sql(fast_folder, "UPDATE leases SET until_unix_ms = until_unix_ms + 1")
    assert "table leases" in found_problem(fast_folder)


def make_old_registry(folder: Path) -> None:
    """Make a registry whose history is as an older version of Turnout wrote it."""
    make_honest(folder, 5, 90)
    registered = {"created_unix_ms", "model_contract", "input_contract", "entities", "views"}
    newer = {"": {"card_sha256", "holdout_salt_sha256", "message_sha256"}, "register": registered}
    forget_fields(folder, newer)
    execute_sql(folder, "DROP TABLE seals")
    execute_sql(folder, "UPDATE versions SET views = ''")


def test_older_copy_of_the_database_contradicts_its_snapshot(fast_folder: Path) -> None:
    """The file beside the database is newer than the database."""
    make_honest(fast_folder, 2, 30)
    shutil.copy(fast_folder / "registry.sqlite", fast_folder / "copy")
    make_honest(fast_folder, 2, 300)
    shutil.move(fast_folder / "copy", fast_folder / "registry.sqlite")

    assert "history.snapshot" in found_problem(fast_folder)


def test_start_after_a_snapshot_reads_new_entries_only(fast_folder: Path) -> None:
    """An older entry that was edited is found by the check that follows the start."""
    make_honest(fast_folder, 2, 300)
    execute_sql(fast_folder, "UPDATE history SET reason = 'x' WHERE seq = 3")

    store = RegistryStore(fast_folder, lambda: START_NS)
    assert store.stopped_reason == ""
    for _ in store.older_entries():
        pass
    assert "history entry 3 was edited" in store.stopped_reason
    store.close()


@pytest.mark.parametrize(
    ("removed", "text"),
    [
        ("keys/registry.ed25519", "Put it back from a copy"),
        ("keys/prediction_id.key", "Put it back from a copy"),
        ("versions", "the folder versions is missing"),
        ("registry.sqlite", "Put the database back from a copy"),
    ],
)
def test_folder_without_a_part_refuses_the_start(
    removed: str, text: str, fast_folder: Path
) -> None:
    """Nothing is made anew silently, and the way out is named."""
    make_honest(fast_folder, 1, 30)
    path = fast_folder / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    with pytest.raises(RegistryFaultError, match=text):
        RegistryStore(fast_folder, lambda: START_NS)
    assert not path.exists()


@pytest.mark.parametrize("name", ["registry.ed25519", "prediction_id.key"])
def test_key_of_another_registry_refuses_the_start(name: str, fast_folder: Path) -> None:
    """Both keys belong to their database."""
    make_honest(fast_folder / "one", 1, 30)
    make_honest(fast_folder / "two", 2, 30)
    shutil.copy(fast_folder / "two" / "keys" / name, fast_folder / "one" / "keys" / name)

    with pytest.raises(RegistryFaultError, match="Put back the keys that belong to this database"):
        RegistryStore(fast_folder / "one", lambda: START_NS)


def test_replaced_checkpoint_with_its_older_seal_is_found(fast_folder: Path) -> None:
    """Somebody who has an older copy of the database puts one row back, with its seal."""
    store = RegistryStore(fast_folder, lambda: START_NS)
    request = pb.LeaseRequest(name="rollout", holder="ctl", seconds=60)
    token = store.acquire_lease("ctl", request).token
    checkpoint = pb.Checkpoint(rollout_id="r", sequence=1, state=b"old", lease_token=token)
    store.save_checkpoint("ctl", checkpoint)
    rows = read_sql(fast_folder, "SELECT * FROM checkpoints") + read_sql(
        fast_folder, "SELECT * FROM seals WHERE object = 'checkpoints/r'"
    )
    checkpoint = pb.Checkpoint(rollout_id="r", sequence=2, state=b"new", lease_token=token)
    store.save_checkpoint("ctl", checkpoint)
    store.close()
    connection = sqlite3.connect(fast_folder / "registry.sqlite")
    connection.execute("REPLACE INTO checkpoints VALUES (?, ?, ?, ?)", rows[0])
    connection.execute("REPLACE INTO seals VALUES (?, ?, ?, ?)", rows[1])
    connection.commit()
    connection.close()

    assert "replaced by an older one" in found_problem(fast_folder)


def execute_sql(folder: Path, statement: str) -> None:
    """Change the database as another process would."""
    connection = sqlite3.connect(folder / "registry.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()


def read_sql(folder: Path, statement: str) -> list[tuple[object, ...]]:
    """Read rows as another process would."""
    connection = sqlite3.connect(folder / "registry.sqlite")
    rows = connection.execute(statement).fetchall()
    connection.close()
    return rows
