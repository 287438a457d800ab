"""`turnout up`: one command up, one signal down, nothing left behind."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.walks.whole import TURNOUT, alive, until, up

pytestmark = pytest.mark.walk


def test_sigterm_stops_every_part_and_forgets_the_addresses(tmp_path: Path) -> None:
    """Gateway, control, store; then system.json is gone and a command leaves with 3."""
    with up(tmp_path / "state") as whole:
        pids = [pid for pid, _ in whole.running.children.values()]
        pids += [row["pid"] for row in whole.workers()]
        assert len(pids) == 6
        said = subprocess.run(
            [*TURNOUT, "up", "--folder", str(whole.folder)], capture_output=True, text=True
        )
        assert (said.returncode, "already" in said.stderr) == (1, True)
    assert not [pid for pid in pids if alive(pid)]
    assert not (tmp_path / "state" / "system.json").exists()
    gone = subprocess.run(
        [*TURNOUT, "models", "--folder", str(tmp_path / "state")], capture_output=True, text=True
    )
    assert (gone.returncode, gone.stdout) == (3, "")
    assert "turnout up" in gone.stderr


def test_killed_outright_it_leaves_nothing_behind(tmp_path: Path) -> None:
    """Kill -9 of `turnout up`: the kernel tells every part, and each ends by itself."""
    with up(tmp_path / "state") as whole:
        pids = [pid for pid, _ in whole.running.children.values()]
        pids += [row["pid"] for row in whole.workers()]
        store = (tmp_path / "state" / "store" / "pid").read_text().split()[0]
        pids.append(int(store))
        whole.kill(signal.SIGKILL)
        until(lambda: not [pid for pid in pids if alive(pid)], 20.0, "every part gone")
