"""A system in other surroundings than ours, and what it sends to the world."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.walks.running_system import RunningSystem, poll_system_until, turnout_up
from turnout.processes.port_checks import free_tcp_port
from turnout.processes.system_file import read_system_file

pytestmark = pytest.mark.walk

LOOPBACK = ("127.", "::1", "::ffff:127.")
QUIET_S = 75.0
"""ONNX Runtime sends what it has collected within a minute."""


def deploy_and_predict(system: RunningSystem, folder: Path) -> None:
    """Register, approve, deploy and ask a version, and restart the workers."""
    inputs = [part for name in ("f0", "f1", "f2") for part in ("--input", f"{name}=1")]
    label = system.register("churn", folder / "version")
    system.approve("churn", label, "initial")
    system.deploy("churn", label)
    for _ in range(2):
        answer = system.turnout("predict", "churn", "S1", *inputs)
        assert answer["version"] == label
        system.turnout("restart")


def test_system_and_commands_use_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the environment answers nothing, so whatever went to it would fail."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_tcp_port()}")
    with turnout_up(tmp_path / "state") as system:
        deploy_and_predict(system, tmp_path)


@pytest.mark.nightly
def test_no_process_opens_a_connection_to_another_host(tmp_path: Path) -> None:
    """Every connection of every process goes to loopback or to a Unix socket."""
    # A system whose every connection is traced.
    strace = shutil.which("strace")
    assert strace, "install strace (Debian: apt install strace)"
    trace, state = tmp_path / "trace", tmp_path / "state"
    line = [strace, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    line += [sys.executable, "-m", "turnout", "up", "--json", "--folder", str(state)]
    with (
        (tmp_path / "up.log").open("wb") as log,
        subprocess.Popen(line, stdout=log, stderr=log) as program,
    ):
        try:
            addresses = poll_system_until(
                lambda: (tmp_path / "up.log").stat().st_size and read_system_file(state),
                180.0,
                "turnout up",
            )
            began = time.monotonic()
            system = RunningSystem(state, addresses)
            deploy_and_predict(system, tmp_path)
            poll_system_until(lambda: time.monotonic() > began + QUIET_S, 2 * QUIET_S, "a minute")
        finally:
            # strace goes on until what it traces has ended.
            running = read_system_file(state)
            if running is not None:
                os.kill(running.pid, signal.SIGTERM)
            else:
                program.kill()
    # Every address in the trace is one of this host.
    hosts = re.findall(r'inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"', trace.read_text())
    assert hosts, "nothing was traced"
    assert {host for host in hosts if not host.startswith(LOOPBACK)} == set()
