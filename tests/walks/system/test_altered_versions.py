"""Versions that are not what was registered: refused by every worker; the old one serves."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from protos.registry_pb2 import VersionLoad
from registry.client import RegistryClient
from tests.tiny_models import linear_weights, tiny_files
from tests.walks.conftest import MODEL
from tests.walks.running_system import RunningSystem, poll_system_until
from tests.walks.system.test_commands import INPUTS

pytestmark = pytest.mark.walk

READY, REFUSED = VersionLoad.READY, VersionLoad.REFUSED


def reported_state(whole: RunningSystem, label: str, state: int, workers: int = 3) -> list[str]:
    """Return the reasons once *workers* workers hold *label* in *state*."""

    async def listen() -> list[str]:
        said: dict[tuple[int, int], str] = {}
        async with (
            asyncio.timeout(20),
            RegistryClient(whole.addresses.registry, "sam") as client,
        ):
            async for one in client.watch_states():
                for held in one.loads:
                    if (held.model, held.version, held.state) == (MODEL, label, state):
                        said[one.slot, one.boot_id] = held.reason
                if len(said) >= workers:
                    break
        return list(said.values())

    return asyncio.run(listen())


def version_folder(whole: RunningSystem, part: str, label: str) -> Path:
    """Where *part* (registry or gateway) keeps the files of a version."""
    digest = whole.turnout("versions", "show", MODEL, label)["digest"]
    return whole.folder / part / "versions" / str(digest)


def still_served_by_the_old_one(whole: RunningSystem) -> None:
    """Version 1, with its score by head."""
    got = whole.turnout("predict", MODEL, "S1", *INPUTS)
    assert (got["version"], got["scores"][0]) == ("1", pytest.approx([0.1]))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "model.onnx"),
        (lambda content: content[: len(content) // 2], "model.onnx"),
    ],
    ids=["one bit flipped", "cut in half"],
)
def test_a_version_harmed_on_the_registrys_disk_is_refused_by_every_worker(
    running_system: RunningSystem, tmp_path: Path, harm: object, words: str
) -> None:
    """Each says which file; nobody can deploy it; version 1 goes on."""
    assert callable(harm)
    weights = linear_weights(3) * (5 + len(running_system.turnout("versions", "list", MODEL)))
    label = running_system.register(MODEL, tmp_path / "files", weights=weights)
    running_system.approve(MODEL, label, "initial")
    file = version_folder(running_system, "registry", label) / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(harm(file.read_bytes()))

    assert words in running_system.turnout("splits", "preload", MODEL, label, exit_code=1)
    reasons = reported_state(running_system, label, REFUSED)
    assert len(reasons) == 3
    assert all(words in reason for reason in reasons)
    refused = running_system.turnout("splits", "set", MODEL, "--production", label, exit_code=1)
    assert label in refused
    still_served_by_the_old_one(running_system)


def test_a_version_off_its_golden_rows_is_not_even_registered(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """Its ONNX file scores otherwise than its golden rows promise: the registry says no."""
    files = tiny_files(MODEL, weights=linear_weights(3) * 3)
    files["golden.npz"] = tiny_files(MODEL)["golden.npz"]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    before = len(running_system.turnout("versions", "list", MODEL))

    refused = running_system.turnout("versions", "register", MODEL, str(tmp_path), exit_code=1)
    assert "golden" in refused
    assert len(running_system.turnout("versions", "list", MODEL)) == before


def test_a_copy_harmed_on_the_gateways_disk_is_fetched_anew(running_system: RunningSystem) -> None:
    """A worker that starts from a rotten copy sets it aside, and serves what the registry has."""
    running_system.wait_settled()
    file = version_folder(running_system, "gateway", "1") / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(b"rotten")
    running_system.turnout("splits", "set", MODEL, "--holdout", "0")
    for slot in (0, 1):
        (pid,) = [row["pid"] for row in running_system.workers() if row["slot"] == slot]
        os.kill(pid, signal.SIGKILL)
        poll_system_until(
            lambda pid=pid: pid not in [row["pid"] for row in running_system.workers()],
            10.0,
            "killed",
        )
        running_system.wait_settled()

    assert reported_state(running_system, "1", READY)
    for _ in range(20):
        still_served_by_the_old_one(running_system)
    assert file.read_bytes() != b"rotten"
