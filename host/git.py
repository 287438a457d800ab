"""The state of a git work tree, as `git` says it."""

import subprocess
from pathlib import Path


def commit_of(folder: Path) -> str:
    """Return the git commit of *folder*, with "+" if it has uncommitted changes.

    Outside of a git checkout, and without git, return "unknown".
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.strip() + ("+" if changed else "")


def uncommitted_files(folder: Path) -> list[str] | None:
    """Return the files below *folder* that differ from the commit, as paths from there.

    New files are among them, unless git ignores them.

    Return None when *folder* is in no git checkout, has no commit, or git is not there.
    """
    try:
        _git(folder, "rev-parse", "HEAD")
        prefix = _git(folder, "rev-parse", "--show-prefix").strip("\n")
        status = _git(folder, "status", "--porcelain", "-z", "--untracked-files=all", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    # Each entry is two letters, a blank and the path; a renamed file's old path follows by itself.
    entries = status.split("\0")
    names = [entry[3:] for entry in entries if len(entry) > 3 and entry[2] == " "]
    return [name.removeprefix(prefix) for name in names]


def tracked_files(folder: Path) -> list[str]:
    """Return the files below *folder* that git tracks; none outside of a checkout."""
    try:
        return [name for name in _git(folder, "ls-files", "-z", "--", ".").split("\0") if name]
    except (OSError, subprocess.SubprocessError):
        return []


def _git(folder: Path, *arguments: str) -> str:
    process = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    )
    return process.stdout
