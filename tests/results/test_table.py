"""The table at the end of `make attacks`, `make clients` and `make surroundings`."""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

TESTS = '''
import pytest

@pytest.fixture
def broken():
    raise OSError("no disk")

@pytest.mark.parametrize("door", ["native", "grpcio"])
def test_calls_are_answered(door, record_property):
    record_property("calls", {"OK": 10_108, "UNAVAILABLE": 1})
    assert door == "native", "one call was refused"

@pytest.mark.attack("S07")
def test_bomb_costs_nothing():
    """A small message that inflates to gigabytes."""

def test_system_starts(broken):
    pass

def test_other_language():
    pytest.skip("Go is not installed")
'''
TABLE = [
    "green S07 A small message that inflates to gigabytes.",
    "FAILED doors calls are answered: grpcio 10,108 OK, 1 UNAVAILABLE, "
    "AssertionError: one call was refused",
    "green doors calls are answered: native 10,108 OK, 1 UNAVAILABLE",
    "skipped doors other language Go is not installed",
    "ERROR doors system starts OSError: no disk",
    "2 green, 1 FAILED, 1 ERROR, 1 skipped",
]


def test_table_has_a_row_with_the_reason_for_each_test(tmp_path: Path) -> None:
    """One is green, one fails, one fails in its set-up, one is skipped and one is an attack."""
    (tmp_path / "test_doors.py").write_text(TESTS)
    line = [sys.executable, "-m", "pytest", "-p", "tests.results.table", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*line, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    _, _, table = done.stdout.partition(" results ==")
    rows = table.strip("=\n").splitlines()[: len(TABLE)]
    # Widths and seconds are of no interest.
    assert [" ".join(re.sub(r"\d+\.\d s ", "", row).split()) for row in rows] == TABLE
