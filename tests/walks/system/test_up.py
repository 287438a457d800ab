"""`turnout up`: it starts a system, and one signal stops all of it."""

import signal
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from features.online.store_client import store_client
from features.online.store_server import ping
from features.online.store_url import parse_store_url, url_with_credentials
from tests.servers import redis_server
from tests.walks.running_system import TURNOUT, poll_system_until, process_runs, turnout_up
from turnout.processes.port_checks import free_tcp_port

pytestmark = pytest.mark.walk


def test_up_stops_every_process_on_sigterm_and_removes_system_json(tmp_path: Path) -> None:
    """A command that follows exits with 3."""
    with turnout_up(tmp_path / "state") as system:
        pids = [pid for pid, _ in system.addresses.children.values()]
        pids += [row["pid"] for row in system.workers()]
        assert len(pids) == 8
        second = subprocess.run(
            [*TURNOUT, "up", "--folder", str(system.folder)], capture_output=True, text=True
        )
        assert (second.returncode, "already" in second.stderr) == (1, True)
    assert not [pid for pid in pids if process_runs(pid)]
    assert not (tmp_path / "state" / "system.json").exists()
    command = subprocess.run(
        [*TURNOUT, "models", "--folder", str(tmp_path / "state")], capture_output=True, text=True
    )
    assert (command.returncode, command.stdout) == (3, "")
    assert "turnout up" in command.stderr


def test_up_leaves_no_process_behind_when_it_is_killed(tmp_path: Path) -> None:
    """After SIGKILL of `turnout up`, the kernel sends each process a SIGTERM."""
    with turnout_up(tmp_path / "state") as system:
        pids = [pid for pid, _ in system.addresses.children.values()]
        pids += [row["pid"] for row in system.workers()]
        store = (tmp_path / "state" / "store" / "pid").read_text().split()[0]
        pids.append(int(store))
        system.kill(signal.SIGKILL)
        poll_system_until(
            lambda: not [pid for pid in pids if process_runs(pid)], 20.0, "every process has ended"
        )


def test_up_uses_a_given_store_and_leaves_it_running(tmp_path: Path) -> None:
    """No store is started, and the given one still answers afterwards."""
    with redis_server() as store:
        with turnout_up(tmp_path / "state", "--store", store.url) as system:
            assert sorted(system.addresses.children) == [
                "control",
                "features",
                "gateway",
                "journal-reader",
            ]
            assert system.addresses.store == store.url
        assert ping(parse_store_url(store.url), 1.0) == "PONG"


def test_no_process_has_the_password_of_a_store_on_its_command_line(tmp_path: Path) -> None:
    """Everybody on a host reads command lines in /proc; the URL is in a file of this user."""
    password = "hunter2-of-the-store"
    with redis_server() as store:
        with store_client(store.url) as client:
            client.execute_command("ACL", "SETUSER", "shop", "on", f">{password}", "~*", "+@all")
        file = tmp_path / "shop.url"
        file.write_text(url_with_credentials(store.url, "shop", password))
        refused = subprocess.run(
            [*TURNOUT, "up", "--store", file.read_text(), "--folder", str(tmp_path / "state")],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert refused.returncode == 2
        assert "everybody on this host can read" in " ".join(refused.stderr.split())
        assert password not in refused.stderr
        with turnout_up(tmp_path / "state", "--store", f"file:{file}") as system:
            assert password in system.addresses.store
            assert len(_command_lines(str(tmp_path))) > len(system.addresses.children)
            assert _command_lines(password) == []
            kept = tmp_path / "state" / "store.url"
            assert password in kept.read_text()
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_up_listens_at_the_given_host_and_ports(tmp_path: Path) -> None:
    """`localhost` is both families; the ports are the same at each start."""
    port, metrics_port = free_tcp_port(), free_tcp_port()
    options = ("--host", "localhost", "--port", str(port), "--metrics-port", str(metrics_port))
    with turnout_up(tmp_path / "state", *options) as system:
        assert system.addresses.gateway == f"localhost:{port}"
        assert system.addresses.metrics == f"http://127.0.0.1:{metrics_port}/metrics"
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), 5.0).close()
        assert system.turnout("models") == []


def test_up_refuses_pages_beyond_this_machine_without_identities(tmp_path: Path) -> None:
    """Nothing is started: the pages would say to everybody what is deployed and called."""
    command = subprocess.run(
        [*TURNOUT, "up", "--metrics-host", "0.0.0.0", "--folder", str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert command.returncode == 1
    assert "give the system --identities" in command.stderr
    assert not (tmp_path / "state" / "gateway.json").exists()


def test_up_refuses_a_store_that_writer_and_reader_would_read_differently(tmp_path: Path) -> None:
    """Redis' own library would write to database 2, and the gateway would read database 0."""
    with redis_server() as store:
        url = f"{store.url.removesuffix('/0')}?db=2"
        command = subprocess.run(
            [*TURNOUT, "up", "--store", url, "--folder", str(tmp_path / "state")],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert command.returncode == 1
    assert "'db'" in command.stderr
    assert "Traceback" not in command.stderr
    assert not (tmp_path / "state" / "gateway.json").exists()


@pytest.mark.parametrize("option", ["--store", "--port"])
def test_up_that_cannot_start_prints_why_and_leaves_no_process(tmp_path: Path, option: str) -> None:
    """It exits with 1 when the store does not answer, and when the port is taken."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        value = f"redis://127.0.0.1:{free_tcp_port()}/0" if option == "--store" else str(port)
        command = subprocess.run(
            [*TURNOUT, "up", option, value, "--folder", str(tmp_path / "state")],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert command.returncode == 1
    reason = "no store answers" if option == "--store" else "gateway ended while starting"
    assert reason in command.stderr
    assert not (tmp_path / "state" / "system.json").exists()
    assert _command_lines(str(tmp_path)) == []


def _command_lines(text: str) -> list[bytes]:
    """Return the command line of each process on this host that has *text* on it."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(path.read_bytes())
    return [line for line in lines if text.encode() in line]


def test_up_runs_in_a_folder_that_has_folders_with_names_of_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project may have features/ and stats/; they hide none of ours, in no process."""
    for room in ("features", "gateway", "registry", "stats", "turnout"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise RuntimeError('not the room')\n")
    monkeypatch.chdir(tmp_path)
    command = [str(Path(sys.executable).with_name("turnout")), "up", "--folder", "state"]
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        poll_system_until(
            lambda: b"Ctrl-C" in log.read_bytes() or process.poll() is not None, 60.0, "it is up"
        )
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)
