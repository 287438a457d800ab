"""docs/review.md and docs/monitoring.md are executed, beside a system with the four models."""

import datetime as dt
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.house.sources import REPOSITORY
from tests.walks.clients.page_snippets import snippets
from tests.walks.monitoring.looked_at import store_days_with_rows

if TYPE_CHECKING:
    from tests.walks.four_models import FourModels

pytestmark = pytest.mark.walk

DOCS = REPOSITORY / "docs"
PROGRAMS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def run_in(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a page as a reader would, in the folder of the system."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": PROGRAMS, "TURNOUT_FOLDER": ".turnout/demo"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("page", "blocks"), [("review.md", 5), ("monitoring.md", 2)])
def test_commands_of_the_page_run(four_models: "FourModels", page: str, blocks: int) -> None:
    """Each command exits with 0, and the files that it names are there."""
    # The page accepts two weeks, on which the version had rows.
    last = (dt.date(2026, 11, 14) - dt.date(1970, 1, 1)).days
    store_days_with_rows(four_models.system, 14, "churn", last)
    found = snippets(DOCS / page, "console")
    assert len(found) == blocks
    for command in (command for block in found for command in block.commands):
        done = run_in(four_models.base, command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        for name in re.findall(r"--(?:html|markdown) (\S+)|export (\S+)", command):
            assert (four_models.base / "".join(name)).exists()


def test_query_of_the_page_reads_the_export(four_models: "FourModels") -> None:
    """In the folder in which the commands of the page have written it."""
    import duckdb

    folder = four_models.base / "bi-2026-11"
    if not folder.exists():
        assert run_in(four_models.base, f"turnout monitor export {folder.name}").returncode == 0
    text = (DOCS / "review.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    with duckdb.connect() as connection:
        columns = connection.execute(query.replace("'bi", f"'{four_models.base}/bi")).description
    assert [column[0] for column in columns] == ["model", "version", "day", "rows", "share"]


@pytest.mark.parametrize("page", ["review.md", "monitoring.md"])
def test_other_commands_of_the_page_have_options_that_there_are(page: str) -> None:
    """Those with addresses and ids of a reader's own cannot run; an unknown option is refused."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    joined = "\n".join(blocks).replace("\\\n", " ")
    commands = re.findall(r"^ *(turnout .*)$", joined, re.MULTILINE)
    assert commands
    for command in commands:
        line = [*shlex.split(command)[1:], "--help"]
        done = subprocess.run(
            [sys.executable, "-m", "turnout", *line], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert f"Usage: turnout {line[0]}" in done.stdout
