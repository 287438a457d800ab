"""Tests of the project: `pytest tests`. No system is needed."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_file_loads() -> None:
    """`turnout project check` names what is wrong, with file and line."""
    command = ["turnout", "project", "check", "--project", str(ROOT), "--env", "dev"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
