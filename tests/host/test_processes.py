"""Process figures from /proc, and children that die with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.__main__ import main as gateway_main
from host.processes import (
    cpu_seconds,
    is_alive,
    open_descriptors,
    peak_rss_bytes,
    platform_refusal,
    rss_bytes,
    start_ticks,
)
from turnout.__main__ import main as turnout_main

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and prctl are Linux")

SLEEPS = "import time; print('ready', flush=True); time.sleep(60)"

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""

CHILD = """
import os, signal, sys, time
from host.processes import die_with_parent
assert die_with_parent(int(sys.argv[1]), os.getppid())
print("ready", flush=True)
time.sleep(60)
"""


def holds_within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Poll *condition* until it is true; False when it is not within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that does nothing, ready."""
    with subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_is_alive_ends_with_the_process_even_while_it_is_a_zombie(
    sleeper: subprocess.Popen[bytes],
) -> None:
    """A killed process is dead before its parent has waited for it."""
    assert is_alive(sleeper.pid)
    sleeper.kill()
    if sys.platform == "linux":  # not waited for: a zombie
        assert holds_within(5, lambda: not is_alive(sleeper.pid))
    sleeper.wait()
    assert not is_alive(sleeper.pid)


@linux
def test_start_ticks_name_one_process(sleeper: subprocess.Popen[bytes]) -> None:
    """A child starts after its parent; a process that is gone has no start."""
    own_start, child_start = start_ticks(os.getpid()), start_ticks(sleeper.pid)
    assert own_start is not None
    assert child_start is not None
    assert 0 < own_start <= child_start
    sleeper.kill()
    sleeper.wait()
    assert start_ticks(sleeper.pid) is None


@linux
def test_cpu_seconds_grow_with_work_and_match_the_kernels_own_count() -> None:
    """/proc and CLOCK_PROCESS_CPUTIME_ID agree within ticks."""
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    before = time.process_time()
    # /proc counts in ticks of 10 ms, user and system time rounded each by itself.
    assert cpu_seconds(os.getpid()) == pytest.approx(before, abs=0.05)


@linux
def test_rss_bytes_count_memory_that_is_touched() -> None:
    """64 MiB more, and the peak is at least as high."""
    before = rss_bytes(os.getpid())
    block = b"\1" * (64 << 20)
    grown = rss_bytes(os.getpid()) - before
    assert 56 << 20 < grown < 80 << 20
    assert peak_rss_bytes() >= before + len(block) - (8 << 20)


def test_figures_of_a_process_that_is_gone_are_zero() -> None:
    """Nothing is raised."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert (rss_bytes(process.pid), cpu_seconds(process.pid)) == (0, 0.0)
    assert start_ticks(process.pid) is None


@linux
def test_stat_of_a_program_with_brackets_in_its_name_is_read(tmp_path: Path) -> None:
    """The name field may hold what separates the fields."""
    program = tmp_path / "a) b (c"
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", SLEEPS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_alive(process.pid)
        assert cpu_seconds(process.pid) < 30
        process.kill()


@linux
def test_open_descriptors_list_what_this_process_has_open(tmp_path: Path) -> None:
    """A file is listed while it is open; the count grows by it."""
    before = len(open_descriptors())
    with (tmp_path / "file").open("w") as file:
        assert file.fileno() in open_descriptors()
        assert len(open_descriptors()) == before + 1
    assert len(open_descriptors()) == before


@linux
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_child_dies_with_its_killed_parent(signum: signal.Signals) -> None:
    """The kernel ends the child; the parent had no chance to."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(int(signum))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.communicate()
    assert holds_within(5, lambda: not is_alive(child))


def test_die_with_parent_says_so_when_the_parent_is_another_process() -> None:
    """Its own pid stands for a parent that died meanwhile."""
    code = (
        "import os; from host.processes import die_with_parent; "
        "print(die_with_parent(parent=os.getpid()), die_with_parent(parent=os.getppid()), "
        "die_with_parent())"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    if sys.platform == "linux":
        assert printed.split() == ["False", "True", "True"]
    else:
        assert printed.split() == ["True", "True", "True"]


def test_platform_without_a_gateway_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The gateway and `turnout up` end before they make a file. Linux is not refused."""
    assert platform_refusal() == ""
    monkeypatch.setattr("host.processes.sys", SimpleNamespace(platform="darwin"))
    assert gateway_main([f"--set=folder={tmp_path / 'gateway'}"]) == 2
    with pytest.raises(SystemExit) as ended:
        turnout_main(["up", "--folder", str(tmp_path / "state")])
    assert ended.value.code == 1
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.count("this is darwin") == 2
    assert printed.count("Run it in a container") == 2
    assert list(tmp_path.iterdir()) == []
