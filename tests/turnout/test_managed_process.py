"""Managed processes: start, restart and stop, and checks of ports and pids."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from host.processes import start_ticks
from turnout.errors import StartError
from turnout.processes.managed_process import ManagedProcess, ProcessSpec, end_leftover_process
from turnout.processes.port_checks import (
    FIRST_PORT,
    PORTS,
    accepts_connections,
    answers_http,
    free_tcp_port,
)

pytestmark = pytest.mark.walk

LISTEN = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler
).serve_forever()
"""
PARENT = """
import subprocess, sys, os
child = subprocess.Popen([sys.executable, "-m", "turnout.processes.die_with_parent",
str(os.getpid()),
                          sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
sys.stdin.read()
"""


def wait_until_async(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once *condition* holds; fail after *seconds*."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true in time"
        time.sleep(0.01)


async def wait_soon(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once *condition* holds, with the loop running; fail after *seconds*."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def listener(folder: Path, port: int, script: str = LISTEN) -> ProcessSpec:
    """Return the spec of a process that answers HTTP on *port*."""
    return ProcessSpec(
        name="listener",
        command=[sys.executable, "-c", script, str(port)],
        log=folder / "logs" / "listener.log",
        ready=lambda: accepts_connections(f"127.0.0.1:{port}"),
        ready_s_max=10.0,
        grace_s=2.0,
    )


def test_managed_process_is_restarted_and_reported_when_it_is_killed(tmp_path: Path) -> None:
    """It answers again on the same port; two lines report its end and its return."""
    port, reports, restarted_pids = free_tcp_port(), list[str](), list[int]()

    async def walk() -> None:
        child = ManagedProcess(listener(tmp_path, port), reports.append)
        await child.start()
        restarting = asyncio.create_task(
            child.restart_when_ended(lambda: restarted_pids.append(child.pid))
        )
        first = child.pid
        os.kill(first, signal.SIGKILL)
        await wait_soon(lambda: bool(restarted_pids))
        assert child.pid == restarted_pids[0] != first
        assert await answers_http(f"http://127.0.0.1:{port}/")
        restarting.cancel()
        await child.stop()
        assert not await accepts_connections(f"127.0.0.1:{port}")

    asyncio.run(walk())
    assert "SIGKILL" in reports[0]
    assert "is back" in reports[1]


def test_managed_process_that_cannot_start_quotes_its_log(tmp_path: Path) -> None:
    """The error has the end of the log."""
    spec = listener(tmp_path, free_tcp_port(), script="raise SystemExit('no more ports today')")
    with pytest.raises(StartError, match="no more ports today"):
        asyncio.run(ManagedProcess(spec, print).start())


def test_managed_process_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    """The report says so, and the process has ended."""
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LISTEN
    reports: list[str] = []

    async def walk() -> int:
        child = ManagedProcess(listener(tmp_path, free_tcp_port(), script), reports.append)
        await child.start()
        await child.stop()
        return child.pid

    assert start_ticks(asyncio.run(walk())) is None
    assert "killing it" in reports[-1]


def test_die_with_parent_ends_the_program_when_its_parent_is_killed() -> None:
    """SIGKILL of the parent ends the program that runs in the child."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    command = Path(f"/proc/{pid}/cmdline")
    wait_until_async(
        lambda: b"turnout.processes.die_with_parent" not in command.read_bytes()
    )  # it has exec'd the program
    parent.kill()
    parent.communicate()
    wait_until_async(lambda: start_ticks(pid) is None)


def test_start_ticks_of_a_zombie_are_none() -> None:
    """The child has ended, and its parent has not waited for it yet."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    wait_until_async(lambda: start_ticks(child.pid) is None)
    assert child.wait() == 0


def test_end_leftover_process_does_not_signal_a_reused_pid() -> None:
    """Only the process with the recorded start time is ended."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ticks = start_ticks(sleeper.pid)
    assert ticks is not None
    asyncio.run(end_leftover_process(sleeper.pid, ticks + 1, 0.2))
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.3)
    asyncio.run(end_leftover_process(sleeper.pid, ticks, 5.0))
    assert sleeper.wait(5) == -signal.SIGTERM


def test_free_port_is_none_that_outgoing_connections_take() -> None:
    """A port of the system's own range may be taken before a server listens on it."""
    ports = {free_tcp_port() for _ in range(50)}
    assert len(ports) > 40
    assert all(FIRST_PORT <= port < FIRST_PORT + PORTS for port in ports)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] > FIRST_PORT + PORTS


def test_port_checks_are_false_when_nothing_listens() -> None:
    """A check never raises."""
    port = free_tcp_port()
    assert not asyncio.run(accepts_connections(f"127.0.0.1:{port}"))
    assert not asyncio.run(answers_http(f"http://127.0.0.1:{port}/healthz"))
