"""Tests of the facts for card.json."""

import shutil
import subprocess
from pathlib import Path

import pytest

from training.artifacts.card import commit_of, package_versions


def test_card_commit_is_unknown_outside_of_a_checkout(tmp_path: Path) -> None:
    """An installed wheel has no git history."""
    assert commit_of(tmp_path / "nowhere") == "unknown"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_card_commit_marks_a_changed_checkout(tmp_path: Path) -> None:
    """The commit alone would not reproduce the version."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=dana", "-c", "user.email=dana@example.org"]
        subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True
        )

    git("init")
    (tmp_path / "recipe.py").write_text("one")
    git("add", "recipe.py")
    git("commit", "-m", "one")
    clean = commit_of(tmp_path)
    (tmp_path / "recipe.py").write_text("two")

    assert len(clean) == 40
    assert commit_of(tmp_path) == clean + "+"


def test_card_lists_the_packages_that_could_change_a_score() -> None:
    """Each package has a version."""
    versions = package_versions()
    assert {"python", "numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime"} <= set(versions)
    assert "unknown" not in versions.values()
