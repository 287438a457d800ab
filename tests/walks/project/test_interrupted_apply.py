"""An apply while something else happens: another apply, or the end of the registry."""

import subprocess
from pathlib import Path

import pytest

from tests.project.project_files import USAGE, write_project, write_rows
from tests.walks.running_system import TURNOUT, RunningSystem, turnout_up

pytestmark = pytest.mark.walk

QUESTION = b"Apply this to dev?"


def begin_apply(system: RunningSystem, root: Path) -> subprocess.Popen[bytes]:
    """Start `turnout apply`, and return once it has planned and asks whether to apply."""
    options = ["--project", str(root), "--folder", str(system.folder), "--as", "dana"]
    apply = subprocess.Popen(
        [*TURNOUT, "apply", "--reason", "slow", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert apply.stderr is not None
    shown = b""
    while QUESTION not in shown:
        block = apply.stderr.read1(4_096)
        assert block, shown.decode()
        shown += block
    return apply


def answer_yes(apply: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Let it apply; return its exit code and what it said after the question."""
    _, said = apply.communicate(b"y\n", timeout=60)
    return apply.returncode, " ".join(said.decode().split())


def revisions(system: RunningSystem, root: Path) -> list[str]:
    """Return the reasons of the applied revisions, oldest first."""
    history = system.turnout("project", "history", "--project", str(root))
    return [item["reason"] for item in reversed(history)]


def test_apply_is_refused_when_another_came_first_and_writes_nothing_when_the_registry_ends(
    tmp_path: Path,
) -> None:
    """The compare-and-set decides, and a revision is written whole or not at all."""
    root, folder = tmp_path / "shop", tmp_path / "system" / ".turnout"
    folder.parent.mkdir()
    files = ("recipes/churn.py", "labels/churned.py", "models/churn.toml", "policies/careful.toml")
    write_project(root, dict.fromkeys(files))
    write_rows(root)
    with turnout_up(folder) as system:
        # Two people have seen the same plan; the second one to answer is told to look again.
        slow = begin_apply(system, root)
        system.turnout("apply", "--yes", "--reason", "first", "--project", str(root))
        code, said = answer_yes(slow)
        assert code == 1
        assert "revision" in said
        assert "Traceback" not in said
        assert revisions(system, root) == ["first"]
        # The registry ends between the question and the answer.
        (root / "views/usage.py").write_text(USAGE.replace("86_400_000", "1_000"))
        slow = begin_apply(system, root)
    code, said = answer_yes(slow)
    assert code not in (0, 1), said
    assert "no system runs in" in said
    assert "Traceback" not in said
    with turnout_up(folder) as system:
        assert revisions(system, root) == ["first"]
        planned = system.turnout("plan", "--project", str(root), exit_code=1)
        assert [item["name"] for item in planned["changes"]] == ["usage"]
        assert system.turnout("apply", "--yes", "--reason", "again", "--project", str(root))[
            "applied"
        ]
