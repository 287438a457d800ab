"""Training runs through the commands: kept with their numbers, also when the trainer is killed."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.walks.running_system import TURNOUT, RunningSystem, turnout_up

pytestmark = pytest.mark.walk

ROWS = """
    SELECT printf('C%05d', range) AS customer_id, now()::TIMESTAMP - INTERVAL 1 DAY AS taken_at,
           (hash(range) % 100)::INTEGER AS minutes,
           minutes + (hash(range + 10000) % 100)::INTEGER > 100 AS churned
    FROM range(4000)"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """One running system."""
    with turnout_up(tmp_path_factory.mktemp("system") / ".turnout") as running:
        yield running


@pytest.fixture(scope="module")
def project(system: RunningSystem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of one table, whose rows are ingested, and whose recipe is applied."""
    folder = tmp_path_factory.mktemp("shop")
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({ROWS}) TO '{folder / 'customers.parquet'}' (FORMAT parquet)")
    words = ("--entity", "customer_id", "--time", "taken_at", "--label", "churned")
    table = ("--from", str(folder / "customers.parquet"))
    system.turnout("init", "shop", "--into", str(folder), *table, *words)
    run(system, folder, "apply", "--yes", "--reason", "first")
    run(system, folder, "features", "ingest", "customers")
    return folder


def run(system: RunningSystem, project: Path, *line: str, exit_code: int = 0) -> Any:  # noqa: ANN401
    """Run one command with --json for the project; return its JSON, or its error in one line."""
    value = system.turnout(*line, "--project", str(project), exit_code=exit_code)
    return " ".join(value.split()) if isinstance(value, str) else value


def test_runs_are_kept_shown_and_compared(system: RunningSystem, project: Path) -> None:
    """They make a version, keep a champion, and name what the key made before."""
    train = ("train", "churned", "--run-key", "nightly-1", "--cause", "schedule nightly")
    first = run(system, project, *train)
    assert first["version"] == "1"
    # The same key trains no second time, and says what came of the first.
    again = run(system, project, *train)
    assert (again["version"], again["run"], again["ended_before"]) == ("1", first["run"], True)
    # The same recipe and rows again are not better than themselves.
    kept = run(system, project, "train", "churned", "--champion", "1", exit_code=1)
    assert "AUC gain over the champion" in kept

    newest, oldest = run(system, project, "runs", "list", "churned")
    assert (oldest["state"], oldest["version"]) == ("registered", "1")
    assert (oldest["cause"], oldest["key"]) == ("schedule nightly", "nightly-1")
    assert (newest["state"], newest["cause"]) == ("champion kept", "by hand")
    shown = run(system, project, "runs", "show", newest["id"][:8])
    (gain,) = [check for check in shown["result"]["gate"] if check["name"] == "auc_gain"]
    assert (gain["passed"], gain["text"] in newest["error"]) == (False, True)
    assert (
        shown["inputs"]["champion"]
        == run(system, project, "runs", "show", first["run"])["version_digest"]
    )
    assert shown["result"]["memory_mb"] > 50
    assert {"labels", "rows", "fit and convert", "gate"} <= shown["result"]["seconds"].keys()
    # Two runs differ in what they were compared with and in what came of them.
    found = {
        item["field"]: (item["first"], item["second"])
        for item in run(system, project, "runs", "compare", first["run"], newest["id"])
    }
    assert found["state"] == ("registered", "champion kept")
    assert found["champion"][0] == ""
    assert "recipe_sha256" not in found
    # The log has the steps, a line each.
    logs = [*TURNOUT, "--folder", str(system.folder), "runs", "logs", newest["id"][:8], "-f"]
    lines = subprocess.run(logs, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line[9:] for line in lines[:2]] == ["labels", "rows"]
    assert "failed 1 of" in lines[-1]


def test_killed_trainer_leaves_its_run_and_its_key(system: RunningSystem, project: Path) -> None:
    """Until it is silent for long, the run is not taken over: a slow trainer may still live."""
    line = ["train", "churned", "--champion", "none", "--run-key", "killed"]
    trainer = subprocess.Popen(
        [*TURNOUT, "--folder", str(system.folder), "--as", "sam", "--project", str(project), *line],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    # The first step is printed after the run was begun.
    assert trainer.stderr is not None
    assert "labels" in trainer.stderr.readline()
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    trainer.stderr.close()

    refused = run(system, project, *line, exit_code=1)
    assert "of this key is running" in refused
    assert "turnout runs logs" in refused
    (killed,) = [item for item in run(system, project, "runs", "list") if item["key"] == "killed"]
    assert (killed["state"], killed["ended_unix_ms"], killed["version"]) == ("running", 0, "")
