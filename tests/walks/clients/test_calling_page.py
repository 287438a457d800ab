"""The pages for callers: their programs run beside a system, their tables match the code."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import grpc
import pytest

from gateway.methods.report_outcome import ReportOutcomeService
from gateway.settings import Settings
from gateway.status import Code
from tests.front_doors import INGRESSES
from tests.walks.clients.example_gateway import example_gateway, run_program
from tests.walks.clients.page_snippets import Snippet, snippets
from tests.walks.clients.triton_environment import triton_python
from tests.walks.four_models import FourModels
from turnout_client import PredictError, Prediction

pytestmark = pytest.mark.walk

REPOSITORY = Path(__file__).parents[3]
PAGE = REPOSITORY / "docs" / "calling.md"
CLIENT_PAGE = REPOSITORY / "clients" / "python" / "README.md"
CLIENT_ADDRESS = "127.0.0.1:8500"
"""The gateway's address in the programs of CLIENT_PAGE."""


@pytest.mark.parametrize("block", snippets(PAGE, "python"), ids=str)
def test_calling_page_program_runs_as_it_stands(four_models: FourModels, block: Snippet) -> None:
    """It runs in a user's folder. Programs for tritonclient run in the environment that has it."""
    needs_triton = "tritonclient" in block.body
    python = triton_python() if needs_triton else sys.executable
    environment = (
        dict(os.environ) if needs_triton else {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    done = subprocess.run(
        [str(python), "-c", block.body],
        cwd=four_models.base,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    if "PredictStream" in block.body:
        assert done.stdout == "1000 scored\n"
    if "report_outcome" in block.body or "report_entity_outcome" in block.body:
        assert done.stdout == "kept\nknown already\n"


@pytest.mark.parametrize("block", snippets(CLIENT_PAGE, "python"), ids=str)
def test_client_readme_program_runs_beside_a_gateway(
    four_models: FourModels, block: Snippet
) -> None:
    """Only the gateway's address is replaced. This repository is not on the path."""
    assert CLIENT_ADDRESS in block.body
    program = block.body.replace(CLIENT_ADDRESS, four_models.system.addresses.gateway)
    line = [sys.executable, "-I", "-c", program]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"


def test_calling_page_command_for_the_shell_runs_as_it_stands(four_models: FourModels) -> None:
    """Only the gateway's address is replaced."""
    if shutil.which("grpcurl") is None:
        pytest.skip("grpcurl is not on PATH")
    (block,) = snippets(PAGE, "sh")
    command = block.body.replace("localhost:8500", four_models.system.addresses.gateway)
    command = command.replace("-max-time 1", "-max-time 10")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    assert (reply["version"], len(reply["scores"])) == ("1", 1)


@pytest.mark.parametrize("ingress", INGRESSES)
def test_calling_page_command_for_load_runs_as_it_stands(ingress: str) -> None:
    """Only the address, the customer and the number of calls are replaced."""
    if shutil.which("ghz") is None:
        pytest.skip("ghz is not on PATH")
    (block,) = snippets(PAGE, "ghz")

    async def run() -> str:
        async with example_gateway(ingress) as gateway:
            command = block.body.replace("localhost:8500", gateway.address)
            command = command.replace("S0000042", "S000042").replace("-n 100000", "-n 640 -t 60s")
            return await run_program(["bash", "-c", command])

    assert re.search(r"\[OK\]\s+640 responses", asyncio.run(run()))


def test_client_readme_names_the_fields_codes_and_versions_of_the_package() -> None:
    """Fields of Prediction, codes that PredictError explains, and the version in the file name."""
    page = CLIENT_PAGE.read_text(encoding="utf-8")
    missing = [item.name for item in fields(Prediction) if f"`{item.name}`" not in page]
    codes = set(re.findall(r"[A-Z]+_?[A-Z]+", str(PredictError.__doc__))) & set(
        grpc.StatusCode.__members__
    )
    missing += [code for code in codes - {"OK"} if f"`{code}`" not in page]
    assert (missing, len(codes)) == ([], 8)
    project = tomllib.loads((CLIENT_PAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"turnout_client-{project['project']['version']}-py3" in page


def test_calling_page_names_every_status_outcome_kind_and_limit() -> None:
    """The numbers on the page are the settings' defaults."""
    page = PAGE.read_text(encoding="utf-8")
    elsewhere = {"OK", "ABORTED"}
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))
    assert {code.name for code in Code} - elsewhere <= listed
    assert [kind for kind in ReportOutcomeService.KINDS if f"`{kind}`" not in page] == []
    settings = Settings()
    assert f"`streams_max` ({settings.streams_max})" in page
    assert f"`stream_calls_max` ({settings.stream_calls_max})" in page
    assert f"`typed_contents_bytes_max` ({settings.typed_contents_bytes_max // 1024} KB)" in page
    assert f"`outcome_keys_max` ({settings.outcome_keys_max:,})" in page
    assert f"`outcome_late_days`, {settings.outcome_late_days}," in page
