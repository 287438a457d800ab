"""`turnout train` says what it joined, and stops when the ids of labels have another format."""

import json
import subprocess
from pathlib import Path

import duckdb
import pytest

from tests.walks.running_system import TURNOUT

pytestmark = pytest.mark.walk

ROWS = """
    SELECT printf('C%05d', range) AS customer_id, now()::TIMESTAMP - INTERVAL 1 DAY AS taken_at,
           (hash(range) % 100)::INTEGER AS minutes,
           minutes + (hash(range + 10000) % 100)::INTEGER > 100 AS churned
    FROM range(4000)"""


def turnout(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a turnout command in *folder*, which no system serves."""
    return subprocess.run(
        [*TURNOUT, *words], cwd=folder, capture_output=True, text=True, check=False
    )


def test_training_prints_its_joins_and_stops_without_them(tmp_path: Path) -> None:
    """The card of the version has the same shares. The error names the form of ids and no id."""
    # A project from a table, and its rows in the offline store.
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({ROWS}) TO '{tmp_path / 'customers.parquet'}' (FORMAT parquet)")
    made = turnout(
        tmp_path,
        *("init", "shop", "--from", "customers.parquet", "--entity", "customer_id"),
        *("--time", "taken_at", "--label", "churned"),
    )
    assert made.returncode == 0, made.stderr
    project = tmp_path / "shop"
    assert turnout(project, "features", "ingest", "customers").returncode == 0
    train = ("--json", "train", "churned", "--no-register", "--champion", "none", "--out")
    trained = turnout(project, *train, str(tmp_path / "good"))
    assert trained.returncode == 0, trained.stderr
    shares = {"customers": {"missing": 0.0, "stale": 0.0, "defaulted": 0.0}}
    assert json.loads(trained.stdout)["joined"] == shares
    assert json.loads((tmp_path / "good" / "card.json").read_text())["joined"] == shares

    # The labels lose the prefix of their ids, as a table with integers does.
    labels = project / "labels" / "churned.py"
    without_prefix = 'substr("customer_id", 2) AS customer_id'
    labels.write_text(
        labels.read_text().replace('"customer_id"::VARCHAR AS customer_id', without_prefix)
    )
    stopped = turnout(project, *train, str(tmp_path / "bad"))
    assert stopped.returncode == 1
    message = " ".join(stopped.stderr.split())
    assert "view 'customers' has no fresh row for 100.0% of the 4,000 labels" in message
    assert "by a prefix only (labels: 5 digits; view: 'C' + 5 digits)" in message
    assert not (tmp_path / "bad").exists()
