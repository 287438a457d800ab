"""`turnout up`: one command up, one signal down, nothing left behind."""

import asyncio
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.servers import redis_server
from tests.walks.running_system import TURNOUT, poll_system_until, process_runs, turnout_up
from turnout.processes.port_checks import answers_ping, free_tcp_port

pytestmark = pytest.mark.walk


def test_sigterm_stops_every_part_and_forgets_the_addresses(tmp_path: Path) -> None:
    """Gateway, control, store; then system.json is gone and a command leaves with 3."""
    with turnout_up(tmp_path / "state") as whole:
        pids = [pid for pid, _ in whole.addresses.children.values()]
        pids += [row["pid"] for row in whole.workers()]
        assert len(pids) == 6
        said = subprocess.run(
            [*TURNOUT, "up", "--folder", str(whole.folder)], capture_output=True, text=True
        )
        assert (said.returncode, "already" in said.stderr) == (1, True)
    assert not [pid for pid in pids if process_runs(pid)]
    assert not (tmp_path / "state" / "system.json").exists()
    gone = subprocess.run(
        [*TURNOUT, "models", "--folder", str(tmp_path / "state")], capture_output=True, text=True
    )
    assert (gone.returncode, gone.stdout) == (3, "")
    assert "turnout up" in gone.stderr


def test_killed_outright_it_leaves_nothing_behind(tmp_path: Path) -> None:
    """Kill -9 of `turnout up`: the kernel tells every part, and each ends by itself."""
    with turnout_up(tmp_path / "state") as whole:
        pids = [pid for pid, _ in whole.addresses.children.values()]
        pids += [row["pid"] for row in whole.workers()]
        store = (tmp_path / "state" / "store" / "pid").read_text().split()[0]
        pids.append(int(store))
        whole.kill(signal.SIGKILL)
        poll_system_until(
            lambda: not [pid for pid in pids if process_runs(pid)], 20.0, "every part gone"
        )


def test_a_given_store_is_used_and_left_running(tmp_path: Path) -> None:
    """No store of our own; the given one still answers when we have gone."""
    with redis_server() as store:
        with turnout_up(tmp_path / "state", "--store", store.url) as whole:
            assert sorted(whole.addresses.children) == ["control", "gateway"]
            assert whole.addresses.store == store.url
        assert asyncio.run(answers_ping(store.url))


@pytest.mark.parametrize("option", ["--store", "--port"])
def test_what_cannot_start_says_why_and_leaves_nothing(tmp_path: Path, option: str) -> None:
    """A store nobody runs, a port somebody has: exit 1, the reason, and no process left."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        value = f"redis://127.0.0.1:{free_tcp_port()}/0" if option == "--store" else str(port)
        done = subprocess.run(
            [*TURNOUT, "up", option, value, "--folder", str(tmp_path / "state")],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    wanted = "no store answers" if option == "--store" else "gateway ended while starting"
    assert wanted in done.stderr
    assert not (tmp_path / "state" / "system.json").exists()
    mine = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _names(path, tmp_path)]
    assert mine == []


def _names(command: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in command.read_bytes()
    except OSError:
        return False
