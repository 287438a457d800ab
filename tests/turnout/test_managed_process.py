"""Parts as processes: started, tethered, started again, stopped."""

import asyncio
import os
import signal
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
    accepts_connections,
    answers_http,
    answers_ping,
    free_tcp_port,
)

pytestmark = pytest.mark.walk

LISTEN = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler
).serve_forever()
"""
TETHER = """
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
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.01)


async def wait_soon(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once *condition* holds, with the loop running; fail after *seconds*."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come true in time"
        await asyncio.sleep(0.01)


def listener(folder: Path, port: int, script: str = LISTEN) -> ProcessSpec:
    """Return a part that answers HTTP on *port*."""
    return ProcessSpec(
        name="listener",
        command=[sys.executable, "-c", script, str(port)],
        log=folder / "logs" / "listener.log",
        ready=lambda: accepts_connections(f"127.0.0.1:{port}"),
        ready_s_max=10.0,
        grace_s=2.0,
    )


def test_a_part_that_dies_is_started_again_and_said_so(tmp_path: Path) -> None:
    """Killed, it answers again on the same port; two lines tell of it."""
    port, said, changes = free_tcp_port(), list[str](), list[int]()

    async def walk() -> None:
        child = ManagedProcess(listener(tmp_path, port), said.append)
        await child.start()
        keeper = asyncio.create_task(child.restart_when_ended(lambda: changes.append(child.pid)))
        first = child.pid
        os.kill(first, signal.SIGKILL)
        await wait_soon(lambda: bool(changes))
        assert child.pid == changes[0] != first
        assert await answers_http(f"http://127.0.0.1:{port}/")
        keeper.cancel()
        await child.stop()
        assert not await accepts_connections(f"127.0.0.1:{port}")

    asyncio.run(walk())
    assert "SIGKILL" in said[0]
    assert "is back" in said[1]


def test_a_part_that_cannot_start_says_what_its_log_says(tmp_path: Path) -> None:
    """The reason is on the screen, not only in a file."""
    part = listener(tmp_path, free_tcp_port(), script="raise SystemExit('no more ports today')")
    with pytest.raises(StartError, match="no more ports today"):
        asyncio.run(ManagedProcess(part, print).start())


def test_a_part_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    """Down means down."""
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LISTEN
    said: list[str] = []

    async def walk() -> int:
        child = ManagedProcess(listener(tmp_path, free_tcp_port(), script), said.append)
        await child.start()
        await child.stop()
        return child.pid

    assert start_ticks(asyncio.run(walk())) is None
    assert "killing it" in said[-1]


def test_a_tethered_program_ends_when_its_parent_is_killed() -> None:
    """Kill -9 of `turnout up` leaves nothing behind."""
    parent = subprocess.Popen(
        [sys.executable, "-c", TETHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    command = Path(f"/proc/{pid}/cmdline")
    wait_until_async(
        lambda: b"turnout.processes.die_with_parent" not in command.read_bytes()
    )  # it has become the program
    parent.kill()
    parent.communicate()
    wait_until_async(lambda: start_ticks(pid) is None)


def test_a_zombie_is_no_process_any_more() -> None:
    """Ended, not yet waited for: nothing of it can be in the way."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    wait_until_async(lambda: start_ticks(child.pid) is None)
    assert child.wait() == 0


def test_only_the_very_process_that_was_recorded_is_ended() -> None:
    """A pid that now belongs to somebody else is left alone."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ticks = start_ticks(sleeper.pid)
    assert ticks is not None
    asyncio.run(end_leftover_process(sleeper.pid, ticks + 1, 0.2))
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.3)
    asyncio.run(end_leftover_process(sleeper.pid, ticks, 5.0))
    assert sleeper.wait(5) == -signal.SIGTERM


def test_nobody_listening_is_an_answer() -> None:
    """A probe never raises."""
    port = free_tcp_port()
    assert not asyncio.run(accepts_connections(f"127.0.0.1:{port}"))
    assert not asyncio.run(answers_ping(f"redis://127.0.0.1:{port}/0"))
    assert not asyncio.run(answers_http(f"http://127.0.0.1:{port}/healthz"))
