"""Runs that are due while registry, controllers and runner are killed: none lost, none twice."""

from pathlib import Path

import pytest

from benchmarks.endurance.schedule_year import simulate_year


@pytest.mark.walk
def test_days_of_schedules_survive_kills(tmp_path: Path) -> None:
    """Nine runs, and one kill of each kind of process."""
    ends = simulate_year(tmp_path, count=9, kills=3)
    assert ends.total() == 9


@pytest.mark.nightly
def test_months_of_schedules_survive_kills(tmp_path: Path) -> None:
    """A fifth of the simulated year of benchmarks/endurance/schedule_year.py."""
    ends = simulate_year(tmp_path, count=200, kills=40)
    assert ends.total() == 200
    assert {"REGISTERED", "CHAMPION_KEPT", "GATE_FAILED", "FAILED"} <= ends.keys()
