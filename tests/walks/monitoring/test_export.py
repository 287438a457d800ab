"""`turnout monitor export` beside a running system: files that DuckDB reads."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.walks.conftest import MODEL
from tests.walks.monitoring.looked_at import store_a_week
from tests.walks.running_system import RunningSystem, poll_system_until
from turnout.monitoring.export_tables import TABLES

pytestmark = pytest.mark.walk


def rows_of(folder: Path, table: str, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query over one file."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW t AS FROM '{folder}/{table}.parquet'")
        return list(connection.execute(query).fetchall())


def test_export_has_what_was_stored_and_counted(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """Every table has its columns and types; numbers are equal to those of the commands."""
    # Figures, an incident, and some rows that the reader counts.
    store_a_week(running_system)
    incident = running_system.turnout("incidents", "open", MODEL, "--title", "for the export")
    inputs = [part for n in range(3) for part in ("-i", f"f{n}=0.5")]
    for number in range(5):
        running_system.turnout("predict", MODEL, f"S{number}", *inputs)

    def counted() -> bool:
        status = running_system.turnout("monitor", "status")
        versions = [item for item in status["versions"] if item["model"] == MODEL]
        return sum(item["rows"] for item in versions) >= 5

    poll_system_until(counted, 30.0, "rows in monitoring")
    folder = tmp_path / "out's"
    written = running_system.turnout("monitor", "export", str(folder))
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        f"{name}.parquet" for name in TABLES
    )
    assert list(tmp_path.iterdir()) == [folder]
    # The schema is that of the page.
    plain = folder.rename(tmp_path / "out")
    for name, columns in TABLES.items():
        described = rows_of(plain, name, "DESCRIBE t")
        assert [row[:2] for row in described] == [(key, kind) for key, (kind, _) in columns.items()]
    counts = {file["file"]: file["rows"] for file in written["files"]}
    assert rows_of(plain, "figures", "SELECT count(*) FROM t") == [(counts["figures.parquet"],)]
    # Some of the content.
    where = f"WHERE model = '{MODEL}'"
    query = f"SELECT value, low, n FROM t {where} AND kind = 'quality'"
    assert rows_of(plain, "figures", query) == [(0.71, pytest.approx(0.61), 500)]
    query = f"SELECT lacking FROM t {where} AND value IS NULL"
    assert "not enough data" in str(rows_of(plain, "figures", query)[0][0])
    assert rows_of(plain, "alarms", f"SELECT stream, severity FROM t {where}") == [("f0", "review")]
    query = f"SELECT sum(rows) >= 5, min(role) FROM t {where} AND role = 'production'"
    assert rows_of(plain, "cells", query) == [(True, "production")]
    query = f"SELECT title, state FROM t WHERE incident = '{incident['id']}'"
    assert rows_of(plain, "incidents", query) == [("for the export", "open")]
    close = ("--resolution", "expected", "--reason", "a test")
    running_system.turnout("incidents", "close", incident["id"], *close)


def test_export_refuses_what_it_cannot_write(running_system: RunningSystem, tmp_path: Path) -> None:
    """A folder that exists, one in a folder that does not, bad days; nothing is left behind."""
    system = running_system
    assert "exists already" in system.turnout("monitor", "export", str(tmp_path), exit_code=2)
    nowhere = str(tmp_path / "none" / "out")
    assert "does not exist" in system.turnout("monitor", "export", nowhere, exit_code=2)
    line = ("monitor", "export", str(tmp_path / "out"), "--since", "soon")
    assert "is no date" in system.turnout(*line, exit_code=2)
    gone = ("monitor", "export", str(tmp_path / "out"), "--monitoring", "127.0.0.1:1")
    assert "is the system up" in system.turnout(*gone, exit_code=3)
    assert list(tmp_path.iterdir()) == []


def test_export_of_days_without_data_has_empty_files(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """With all columns, so that a query over them runs."""
    line = ("--since", "2020-03-01", "--until", "2020-03-02")
    written = running_system.turnout("monitor", "export", str(tmp_path / "out"), *line)
    assert {file["rows"] for file in written["files"]} == {0}
    for name, columns in TABLES.items():
        assert len(rows_of(tmp_path / "out", name, "DESCRIBE t")) == len(columns)


def test_export_without_duckdb_says_what_to_install(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """In a process that cannot import it."""
    program = (
        "import sys; sys.modules['duckdb'] = None\n"
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'duckdb' else find(name, *more)\n"
        "from turnout.__main__ import main; main(sys.argv[1:])\n"
    )
    line = ["monitor", "export", str(tmp_path / "out"), "--folder", str(running_system.folder)]
    done = subprocess.run(
        [sys.executable, "-c", program, *line], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'turnout[training]'" in done.stderr
