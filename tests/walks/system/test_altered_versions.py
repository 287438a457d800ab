"""Versions whose files were altered are refused, and production still answers."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from protos.registry_pb2 import VersionLoad
from tests.neighbour_models import moved_in_company, neighbour_files
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.conftest import MODEL
from tests.walks.running_system import RunningSystem, poll_system_until
from tests.walks.system.test_commands import INPUTS

pytestmark = pytest.mark.walk

READY, REFUSED = VersionLoad.READY, VersionLoad.REFUSED


def reported_state(system: RunningSystem, label: str, state: int, workers: int = 3) -> list[str]:
    """Return the workers' reasons once *workers* workers report *label* in load state *state*."""

    async def watch() -> list[str]:
        reasons: dict[tuple[int, int], str] = {}
        async with (
            asyncio.timeout(20),
            system.registry_client("sam") as client,
        ):
            async for worker in client.watch_states():
                for load in worker.loads:
                    if (load.model, load.version, load.state) == (MODEL, label, state):
                        reasons[worker.slot, worker.boot_id] = load.reason
                if len(reasons) >= workers:
                    break
        return list(reasons.values())

    return asyncio.run(watch())


def version_folder(system: RunningSystem, part: str, label: str) -> Path:
    """Return the folder in which *part* (registry or gateway) keeps the files of a version."""
    digest = system.turnout("versions", "show", MODEL, label)["digest"]
    return system.folder / part / "versions" / str(digest)


def assert_version_1_answers(system: RunningSystem) -> None:
    """Check that a prediction is version 1's, whose score is 0.1 by hand."""
    prediction = system.turnout("predict", MODEL, "S1", *INPUTS)
    assert (prediction["version"], prediction["scores"][0]) == ("1", pytest.approx([0.1]))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "model.onnx"),
        (lambda content: content[: len(content) // 2], "model.onnx"),
    ],
    ids=["one bit flipped", "cut in half"],
)
def test_workers_refuse_a_version_damaged_on_the_registrys_disk(
    running_system: RunningSystem, tmp_path: Path, damage: object, text: str
) -> None:
    """Each worker names the file, the version cannot be deployed, and version 1 answers."""
    assert callable(damage)
    weights = linear_weights(3) * (5 + len(running_system.turnout("versions", "list", MODEL)))
    label = running_system.register(MODEL, tmp_path / "files", weights=weights)
    running_system.approve(MODEL, label, "initial")
    file = version_folder(running_system, "registry", label) / "model.onnx"
    file.chmod(0o644)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))

    assert text in running_system.turnout("splits", "preload", MODEL, label, exit_code=1)
    reasons = reported_state(running_system, label, REFUSED)
    assert len(reasons) == 3
    assert all(text in reason for reason in reasons)
    refused = running_system.turnout("splits", "set", MODEL, "--production", label, exit_code=1)
    assert label in refused
    assert_version_1_answers(running_system)
    # Other walks verify every version of the system.
    file.write_bytes(whole)


def test_registry_refuses_a_version_that_fails_its_golden_test(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """Its ONNX file does not give the outputs of its golden rows."""
    files = tiny_files(MODEL, weights=linear_weights(3) * 3)
    files["golden.npz"] = tiny_files(MODEL)["golden.npz"]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    before = len(running_system.turnout("versions", "list", MODEL))

    refused = running_system.turnout("versions", "register", MODEL, str(tmp_path), exit_code=1)
    assert "golden" in refused
    assert len(running_system.turnout("versions", "list", MODEL)) == before


def test_version_is_proven_to_the_tolerance_that_it_states(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """Scores move by 5e-5 in company: refused, also if the version states more than it may.

    A version that states 1e-4 is registered, READY on each worker, and its approver sees it.
    """
    folder = tmp_path / "files"

    def register(card: dict[str, object], exit_code: int) -> Any:  # noqa: ANN401  any JSON
        files = neighbour_files(moved_in_company(5e-5))
        files["card.json"] = json.dumps(card).encode()
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        line = ("versions", "register", MODEL, str(folder))
        return running_system.turnout(*line, actor="dana", exit_code=exit_code)

    assert "a score must depend on its own row only" in register({}, 1)
    too_much = {"score_tolerance": {"absolute": 1e-3, "relative": 0}}
    assert "score_tolerance" in register(too_much, 1)
    stated = {"score_tolerance": {"absolute": 1e-4, "relative": 0}}
    label = register(stated, 0)["label"]
    shown = running_system.turnout("versions", "show", MODEL, label)
    assert shown["card"]["score_tolerance"] == stated["score_tolerance"]
    running_system.turnout("splits", "preload", MODEL, label)
    assert len(reported_state(running_system, label, READY)) == 3
    assert_version_1_answers(running_system)


def test_worker_fetches_a_version_again_when_its_cached_copy_is_damaged(
    running_system: RunningSystem,
) -> None:
    """A worker that starts with a damaged copy moves it away and fetches the registry's."""
    running_system.wait_settled()
    file = version_folder(running_system, "gateway", "1") / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    running_system.turnout("splits", "set", MODEL, "--holdout", "0")
    for slot in (0, 1):
        (pid,) = [row["pid"] for row in running_system.workers() if row["slot"] == slot]
        os.kill(pid, signal.SIGKILL)
        poll_system_until(
            lambda pid=pid: pid not in [row["pid"] for row in running_system.workers()],
            10.0,
            "the killed worker is replaced",
        )
        running_system.wait_settled()

    assert reported_state(running_system, "1", READY)
    for _ in range(20):
        assert_version_1_answers(running_system)
    assert file.read_bytes() != b"damaged"
