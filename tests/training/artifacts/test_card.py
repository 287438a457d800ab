"""The card knows where it came from, or says that it does not."""

import shutil
import subprocess
from pathlib import Path

import pytest

from training.artifacts.card import commit_of, package_versions


def test_outside_of_a_checkout_the_commit_is_unknown(tmp_path: Path) -> None:
    """An installed wheel has no history; no error, no guess."""
    assert commit_of(tmp_path / "nowhere") == "unknown"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_changed_checkout_is_marked(tmp_path: Path) -> None:
    """The commit alone would not reproduce it."""

    def git(*words: str) -> None:
        who = ["-c", "user.name=dana", "-c", "user.email=dana@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "recipe.py").write_text("one")
    git("add", "recipe.py")
    git("commit", "-m", "one")
    clean = commit_of(tmp_path)
    (tmp_path / "recipe.py").write_text("two")

    assert len(clean) == 40
    assert commit_of(tmp_path) == clean + "+"


def test_everything_that_could_change_a_score_is_listed() -> None:
    """With a version each."""
    found = package_versions()
    assert {"python", "numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime"} <= set(found)
    assert "unknown" not in found.values()
