"""Kills of the journal's reader and of monitoring, at random moments: each row counts once."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.walk


def test_killed_reader_and_monitoring_count_each_row_once() -> None:
    """Every cell of the store equals that of a count without a kill.

    A program of its own does it, because it forks, and this process has threads of gRPC.
    """
    program = [sys.executable, "-m", "benchmarks.monitoring.killed_readers", "--kills", "30"]
    done = subprocess.run(program, capture_output=True, timeout=200, check=True, text=True)
    run = json.loads(done.stdout.splitlines()[-1])
    assert run["reader_kills"] + run["server_kills"] == 30
    assert run["server_kills"] > 0
    assert (run["rows"], run["outcomes"]) == (run["counted_rows"], run["counted_outcomes"])
    assert run["equal"]
    assert run["batches"] > 1
