"""The programs and commands on the pages run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.load.rust_generator import BINARY, CRATE, build_generator
from tests.walks.clients.page_snippets import Snippet, snippets
from tests.walks.conftest import PlayedDemo

pytestmark = pytest.mark.walk

REPOSITORY = Path(__file__).parents[3]
README = REPOSITORY / "README.md"
PROGRAM_PAGES = (README, *(REPOSITORY / "docs" / name for name in ("first-model.md", "models.md")))
"""Pages whose programs run beside the demo, too; those of other pages have tests of their own."""

PAGES_RUN_ELSEWHERE = ("explaining.md", "monitoring.md", "review.md")
"""Tests of tests/walks/monitoring run their commands, with the days of figures that they need."""

BLOCKS = [
    block
    for page in [README, *sorted((REPOSITORY / "docs").glob("*.md")), CRATE / "README.md"]
    if page.name not in PAGES_RUN_ELSEWHERE
    for block in snippets(page, *(["python"] if page in PROGRAM_PAGES else []), "console")
]


def run_page_line(played: PlayedDemo, line: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the demo's working directory, with our programs on PATH."""
    programs = [str(Path(sys.executable).parent), str(BINARY.parent), os.environ["PATH"]]
    return subprocess.run(
        line,
        cwd=played.base,
        env={**os.environ, "PATH": os.pathsep.join(programs), "TURNOUT_ACTOR": "sam"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_page_block_runs_as_it_stands(played_demo: PlayedDemo, block: Snippet) -> None:
    """Each program, and each command of a block in its order, exits with 0."""
    if "turnout-loadgen" in block.body and build_generator() is None:
        pytest.skip("cargo is not installed, so the load generator cannot be built")
    lines = (
        [[sys.executable, "-c", block.body]]
        if block.kind == "python"
        else [["bash", "-c", command] for command in block.commands]
    )
    assert lines
    for line in lines:
        done = run_page_line(played_demo, line)
        assert done.returncode == 0, f"{block}: {line[-1]}\n{done.stdout}{done.stderr}"


def test_readme_has_a_command_for_each_part() -> None:
    """The table has a row for each of S1 to S9."""
    text = README.read_text(encoding="utf-8")
    assert [n for n in range(1, 10) if f"\n| S{n} |" not in text] == []


def test_readme_links_only_to_files_that_exist() -> None:
    """Links to web pages are not checked."""
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
