"""A4: a hostile model file escapes nowhere, and its user gets a sentence."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import host
from host.sandbox.run import Isolation, SandboxLimits
from tests.attacks.adoption.hostile_files import HOSTILE, Targets
from training.adoption.open_foreign import open_foreign
from training.errors import AdoptionError

pytestmark = pytest.mark.walk

LIMITS = SandboxLimits(memory_mb=1_500, cpu_s=5, seconds=60, temp_mb=64)
SLEEPER_S = 20
"""Limit of the one file that waits; busy machines need more time for the others."""
SECRET = "token-of-the-test-7f3a"
NAMESPACE_CASES = (
    "reads another process",
    "reads the environment",
    "reads a key in the home",
    "writes a file outside",
    "replaces the model",
    "writes into an installed package",
    "fills the temporary folder",
    "crashes",
)
"""What depends on how the child is isolated; these are tried without bubblewrap too."""
EVERY_TIME = {
    "reads the environment",
    "reads a key in the home",
    "connects to a port",
    "writes a file outside",
    "writes into an installed package",
    "kills another process",
    "forks 200 times",
    "takes 100 GB",
    "writes a report of its own",
    "unpacks out of its folder",
    "calls a function by skops",
    "a truncated pickle",
}
"""One file of each kind, for `make test`. `make attacks` and `make nightly` try every file."""


def cases(names: Iterable[str]) -> list[Any]:
    """Return the names as parameters, those outside of EVERY_TIME marked as nightly."""
    return [
        name if name in EVERY_TIME else pytest.param(name, marks=pytest.mark.nightly)
        for name in names
    ]


@pytest.fixture
def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Targets]:
    """Set out what an escaped file would reach, and check that none of it was reached."""
    outside, folder, home = (tmp_path / name for name in ("outside", "model", "home"))
    for path in (outside, folder, home / ".ssh"):
        path.mkdir(parents=True)
    secret_file = home / ".ssh" / "id_ed25519"
    secret_file.write_text(SECRET, encoding="utf-8")
    monkeypatch.setenv("TURNOUT_TOKEN", SECRET)
    monkeypatch.setenv("HOME", str(home))
    path = tmp_path / "s"
    with (
        socket.create_server(("127.0.0.1", 0)) as port,
        socket.socket(socket.AF_UNIX) as unix,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim,
    ):
        unix.bind(str(path))
        unix.listen()
        yield Targets(outside, secret_file, SECRET, port.getsockname()[1], path, victim.pid, folder)
        assert not list(outside.iterdir()), "a file was written outside"
        assert not list(tmp_path.rglob("escaped")), "a file was written outside"
        assert not list(Path(str(host.__file__)).parent.glob("escaped*"))
        assert secret_file.read_text(encoding="utf-8") == SECRET
        for server in (port, unix):
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        assert victim.poll() is None, "another process was killed"
        victim.communicate(b"\n")


def open_hostile(name: str, targets: Targets, isolation: Isolation | None) -> str:
    """Open the file called *name* and return the sentence that its user gets."""
    build, _ = HOSTILE[name]
    path = build(targets)
    limits = replace(LIMITS, seconds=SLEEPER_S) if name == "sleeps" else LIMITS
    with pytest.raises(AdoptionError) as refused:
        open_foreign(path, {}, limits=limits, isolation=isolation)
    return str(refused.value)


@pytest.mark.attack("A4")
@pytest.mark.parametrize("name", cases(HOSTILE))
def test_hostile_file_escapes_nowhere(name: str, targets: Targets) -> None:
    """A hostile model file is opened by `turnout adopt`."""
    sentence = open_hostile(name, targets, None)
    assert HOSTILE[name][1] in sentence
    assert SECRET not in sentence
    assert "\n" not in sentence
    assert sentence.isprintable()


@pytest.mark.attack("A4")
@pytest.mark.parametrize("name", cases(NAMESPACE_CASES))
def test_hostile_file_escapes_nowhere_without_bubblewrap(name: str, targets: Targets) -> None:
    """A hostile model file is opened where bubblewrap is not installed."""
    sentence = open_hostile(name, targets, Isolation.NAMESPACES)
    assert HOSTILE[name][1] in sentence
    assert SECRET not in sentence


def test_hostile_files_would_be_noticed(targets: Targets) -> None:
    """The signs of an escape are seen: a program of this test reaches every target."""
    (targets.outside / "escaped").touch()
    assert list(targets.outside.iterdir())
    (targets.outside / "escaped").unlink()
    assert os.environ["TURNOUT_TOKEN"] == SECRET
    assert Path(f"/proc/{targets.victim}/environ").read_bytes()


def test_there_are_30_hostile_files() -> None:
    """The promise of the issue names their number."""
    assert len(HOSTILE) >= 30
