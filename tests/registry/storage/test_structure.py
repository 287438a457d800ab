"""Tests that foreign definitions of tables, numbers below 1 and undecodable texts are named."""

import sqlite3
from pathlib import Path

import pytest

from protos import registry_pb2 as pb
from registry.storage.store import RegistryStore
from registry.types import RegistryFaultError, RegistryUnavailableError

pytestmark = pytest.mark.walk

FINDING = pb.Finding(model="churn", kind="hold", text="t")


def edit_definition(folder: Path, old: str, new: str) -> None:
    """Make table findings anew with another definition and the same rows."""
    connection = sqlite3.connect(folder / "registry.sqlite")
    (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'findings'").fetchone()
    assert old in sql
    connection.executescript(
        "BEGIN IMMEDIATE; CREATE TABLE copy AS SELECT * FROM findings; DROP TABLE findings;"
        + sql.replace(old, new)
        + "; INSERT INTO findings SELECT * FROM copy; DROP TABLE copy; COMMIT"
    )
    connection.close()


def execute(folder: Path, script: str) -> None:
    """Change the database as another process would."""
    connection = sqlite3.connect(folder / "registry.sqlite")
    connection.executescript(script)
    connection.close()


UNIQUE = ("PRIMARY KEY (sequence)", "PRIMARY KEY (sequence), UNIQUE (model) ON CONFLICT IGNORE")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        UNIQUE,
        ("model VARCHAR(64) NOT NULL", "model VARCHAR(64) DEFAULT 'x' NOT NULL"),
        ("kind VARCHAR(64) NOT NULL", "kind VARCHAR(64) COLLATE NOCASE NOT NULL"),
    ],
)
def test_other_definition_stops_the_next_write(old: str, new: str, tmp_path: Path) -> None:
    """The table is made anew beside the running registry; a restart finds it too."""
    store = RegistryStore(tmp_path, lambda: 1)
    store.write_finding("ann", FINDING)
    edit_definition(tmp_path, old, new)

    with pytest.raises(RegistryUnavailableError, match="'findings' is not as the registry makes"):
        store.write_finding("ann", FINDING)
    store.close()
    store = RegistryStore(tmp_path, lambda: 1)
    assert "'findings'" in store.stopped_reason
    store.close()


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("CREATE TABLE more (x)", "the table 'more'"),
        ("ALTER TABLE findings ADD COLUMN more TEXT", "the table 'findings' is not as"),
        ("DROP INDEX ix_history_object", "index ix_history_object is missing"),
        (
            "INSERT INTO history SELECT -1, at_unix_ms, actor, action, object, before, after, "
            "reason, previous, digest FROM history",
            "history entry -1 was added",
        ),
        (
            "UPDATE findings SET text = CAST(x'ff' AS TEXT)",
            "table findings, row 1, field text: the value is not UTF-8",
        ),
    ],
)
def test_other_edits_are_named_at_the_start(script: str, text: str, tmp_path: Path) -> None:
    """Nothing else in the database differs."""
    store = RegistryStore(tmp_path, lambda: 1)
    store.write_finding("ann", FINDING)
    store.close()
    execute(tmp_path, script)

    store = RegistryStore(tmp_path, lambda: 1)
    assert text in store.stopped_reason
    store.close()


def test_database_of_an_earlier_release_is_not_accused(tmp_path: Path) -> None:
    """Its tables lack later columns, which the start adds at their ends."""
    RegistryStore(tmp_path, lambda: 1).close()
    for table, column in (("versions", "views"), ("versions", "production_approval"),
                          ("approvals", "ended"), ("approvals", "stopped_revision")):  # fmt: skip
        execute(tmp_path, f"ALTER TABLE {table} DROP COLUMN {column}")

    for _ in range(2):
        store = RegistryStore(tmp_path, lambda: 1)
        assert store.stopped_reason == ""
        store.close()


def test_dropped_insert_undoes_the_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if no proof noticed the rule that drops the row."""
    store = RegistryStore(tmp_path, lambda: 1)
    store.write_finding("ann", FINDING)
    edit_definition(tmp_path, *UNIQUE)
    monkeypatch.setattr(store._database, "was_changed_by_others", lambda _: False)

    with pytest.raises(RegistryFaultError, match="took 0 rows"):
        store.write_finding("ann", FINDING)
    assert store.history(after=0, limit=0, object_prefix="").head.seq == 1
    store.close()


def test_statistics_of_sqlite_are_no_foreign_table(tmp_path: Path) -> None:
    """A person may have run ANALYZE, beside the running registry or before its start."""
    store = RegistryStore(tmp_path, lambda: 1)
    store.write_finding("ann", FINDING)
    execute(tmp_path, "ANALYZE")
    store.write_finding("ann", FINDING)
    store.close()
    store = RegistryStore(tmp_path, lambda: 1)
    assert not store.stopped_reason
    store.close()
