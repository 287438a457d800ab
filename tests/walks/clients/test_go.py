"""The example in Go calls a real gateway, with each server."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.front_doors import INGRESSES
from tests.walks.clients.example_gateway import (
    CLIENTS,
    Record,
    calls_while_connections_age,
    check_example,
    check_first_call,
    check_pushback,
    check_refused_pool,
    check_wrong_token,
)

pytestmark = pytest.mark.nightly  # the modules come from a proxy; the first build takes a minute


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built programs `example` and `load`.

    grpcio-tools, which the developers' environment has, gives its protoc to `go generate`.
    """
    if shutil.which("go") is None:
        pytest.skip("Go is not installed: there is no go")
    folder = tmp_path_factory.mktemp("go")
    protoc = folder / "tools" / "protoc"
    protoc.parent.mkdir()
    protoc.write_text(f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n')
    protoc.chmod(0o755)
    path = os.pathsep.join((str(protoc.parent), os.environ["PATH"]))
    for line in (["go", "generate", "."], ["go", "build", "-o", f"{folder}/", "./cmd/..."]):
        done = subprocess.run(
            line,
            cwd=CLIENTS / "go",
            env={**os.environ, "PATH": path, "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        if "requires go" in done.stderr:
            pytest.skip(f"this Go is too old: {done.stderr.strip()[-200:]}")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("ingress", INGRESSES)
def test_go_example_predicts_and_reports(ingress: str, programs: Path, tmp_path: Path) -> None:
    """By key, by inputs, several offers, an outcome twice, health, and an error."""
    check_example(ingress, tmp_path, [str(programs / "example")], "NotFound")


@pytest.mark.parametrize("ingress", INGRESSES)
def test_go_example_is_refused_with_another_token(
    ingress: str, programs: Path, tmp_path: Path
) -> None:
    """The token of the file is what is sent."""
    check_wrong_token(ingress, tmp_path, [str(programs / "example")])


def test_go_client_waits_as_the_gateway_says(programs: Path) -> None:
    """It honours grpc-retry-pushback-ms."""
    check_pushback([str(programs / "load")])


def test_go_client_repeats_the_calls_of_a_whole_pool(programs: Path) -> None:
    """The bound of retries is for a gateway that is down, and not for connections that end."""
    check_refused_pool([str(programs / "load")])


@pytest.mark.parametrize(("calls_open", "connections"), [(30, 1), (200, 1), (200, 8)])
@pytest.mark.parametrize("ingress", INGRESSES)
def test_go_calls_live_through_ageing_connections(
    ingress: str, calls_open: int, connections: int, programs: Path, record_property: Record
) -> None:
    """grpc-go repeats what a connection that closes has refused. No caller sees it."""
    line = [str(programs / "load")]
    counts = calls_while_connections_age(ingress, line, calls_open, connections)
    record_property("calls", counts)
    assert set(counts) == {"OK"}


def test_first_call_in_go_prints_the_score(programs: Path) -> None:
    """It is built with another address and customer in the place of its own."""
    program = CLIENTS / "go" / "cmd" / "first" / "main.go"

    def line_for(code: str) -> list[str]:
        source, overlay = programs / "first.go", programs / "overlay.json"
        source.write_text(code)
        overlay.write_text(json.dumps({"Replace": {str(program): str(source)}}))
        build = ["go", "build", "-overlay", str(overlay), "-o", f"{programs}/first", "./cmd/first"]
        done = subprocess.run(build, cwd=CLIENTS / "go", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [str(programs / "first")]

    check_first_call("grpcio", program, "go", line_for)
