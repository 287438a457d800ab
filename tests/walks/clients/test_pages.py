"""What the pages show is true: their programs and commands run, as they stand there."""

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

HOUSE = Path(__file__).parents[3]
README = HOUSE / "README.md"
BLOCKS = [
    *snippets(README, "python", "console"),
    *(
        block
        for page in (*sorted((HOUSE / "docs").glob("*.md")), CRATE / "README.md")
        for block in snippets(page, "console")
    ),
]


def run_page_line(played: PlayedDemo, line: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program where `make run` was started, `turnout` and the load generator in reach."""
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
def test_a_block_runs_as_it_stands(played_demo: PlayedDemo, block: Snippet) -> None:
    """Each program, and each command line in order, leaves with 0."""
    if "turnout-loadgen" in block.body and build_generator() is None:
        pytest.skip("cargo is not there to build the load generator")
    lines = (
        [[sys.executable, "-c", block.body]]
        if block.kind == "python"
        else [["bash", "-c", command] for command in block.commands]
    )
    assert lines
    for line in lines:
        done = run_page_line(played_demo, line)
        assert done.returncode == 0, f"{block}: {line[-1]}\n{done.stdout}{done.stderr}"


def test_every_item_of_the_first_issue_has_its_command() -> None:
    """S1 to S9, each in the table."""
    text = README.read_text(encoding="utf-8")
    assert [n for n in range(1, 10) if f"\n| S{n} |" not in text] == []


def test_every_page_that_is_linked_is_there() -> None:
    """No dead link inside the house."""
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if not (HOUSE / link).exists()] == []
