"""Tests of what a git work tree says about itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

from host.git import commit_of, tracked_files, uncommitted_files


def test_commit_is_unknown_outside_of_a_checkout(tmp_path: Path) -> None:
    """An installed wheel has no git history."""
    assert commit_of(tmp_path / "nowhere") == "unknown"
    assert uncommitted_files(tmp_path / "nowhere") is None
    assert tracked_files(tmp_path / "nowhere") == []


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_marks_a_changed_checkout(tmp_path: Path) -> None:
    """The commit alone would not reproduce the version."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=dana", "-c", "user.email=dana@example.org"]
        subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True
        )

    git("init")
    (tmp_path / "recipe.py").write_text("one")
    git("add", "recipe.py")
    assert uncommitted_files(tmp_path) is None, "there is no commit yet"
    git("commit", "-m", "one")
    clean = commit_of(tmp_path)
    assert uncommitted_files(tmp_path) == []
    assert tracked_files(tmp_path) == ["recipe.py"]
    (tmp_path / "recipe.py").write_text("two")
    (tmp_path / "new file.py").write_text("three")

    assert len(clean) == 40
    assert commit_of(tmp_path) == clean + "+"
    assert sorted(uncommitted_files(tmp_path) or []) == ["new file.py", "recipe.py"]
    # Of a folder below the checkout, only its own files, as paths from there.
    below = tmp_path / "shop" / "views"
    below.mkdir(parents=True)
    (below / "usage.py").write_text("four")
    assert uncommitted_files(tmp_path / "shop") == ["views/usage.py"]
    git("add", "shop")
    assert tracked_files(tmp_path / "shop") == ["views/usage.py"]
