"""docs/calling.md is true: its programs run beside a system, its tables are the code's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.methods.report_outcome import Outcomes
from gateway.settings import Settings
from gateway.status import Code
from tests.walks.clients.page_snippets import Snippet, snippets
from tests.walks.clients.triton_environment import triton_python
from tests.walks.four_models import Four

pytestmark = pytest.mark.walk

HOUSE = Path(__file__).parents[3]
PAGE = HOUSE / "docs" / "calling.md"


@pytest.mark.parametrize("block", snippets(PAGE, "python"), ids=str)
def test_a_program_runs_as_it_stands(four: Four, block: Snippet) -> None:
    """From a user's folder; tritonclient's in the environment that has it."""
    theirs = "tritonclient" in block.body
    python = triton_python() if theirs else sys.executable
    environment = dict(os.environ) if theirs else {**os.environ, "PYTHONPATH": str(HOUSE)}
    done = subprocess.run(
        [str(python), "-c", block.body],
        cwd=four.base,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    if "PredictStream" in block.body:
        assert done.stdout == "1000 scored\n"
    if "report_outcome" in block.body:
        assert done.stdout == "kept\nknown already\n"


def test_the_page_names_every_status_and_kind_and_its_numbers() -> None:
    """What callers are told is what the code does."""
    page = PAGE.read_text(encoding="utf-8")
    elsewhere = {"OK", "ABORTED", "PERMISSION_DENIED", "UNAUTHENTICATED"}
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))
    assert {code.name for code in Code} - elsewhere <= listed
    assert [kind for kind in Outcomes.KINDS if f"`{kind}`" not in page] == []
    settings = Settings()
    assert f"`streams_max` ({settings.streams_max})" in page
    assert f"`stream_calls_max` ({settings.stream_calls_max})" in page
    assert f"`typed_bytes_max` ({settings.typed_bytes_max // 1024} KB)" in page
    assert f"`outcome_keys_max` ({settings.outcome_keys_max:,})" in page
    assert f"`outcome_late_days`, {settings.outcome_late_days}," in page
