"""The example in Java calls a real gateway, with each server."""

import shutil
import subprocess
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

pytestmark = pytest.mark.nightly  # Maven fetches what it lacks, some 90 s the first time

PROGRAM = CLIENTS / "java" / "target" / "turnout-example.jar"
LOAD = ["java", "-cp", str(PROGRAM), "example.Load"]


@pytest.fixture(scope="module", autouse=True)
def example_in_java() -> None:
    """Build the example: stubs, classes and the jar, as its README says."""
    if shutil.which("mvn") is None:
        pytest.skip("Maven is not installed: there is no mvn")
    line = ["mvn", "-B", "-q", "package"]
    done = subprocess.run(line, cwd=CLIENTS / "java", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4_000:]


@pytest.mark.parametrize("ingress", INGRESSES)
def test_java_example_predicts_and_reports(ingress: str, tmp_path: Path) -> None:
    """By key, by inputs, several offers, an outcome twice, health, and an error."""
    check_example(ingress, tmp_path, ["java", "-jar", str(PROGRAM)])


@pytest.mark.parametrize("ingress", INGRESSES)
def test_java_example_is_refused_with_another_token(ingress: str, tmp_path: Path) -> None:
    """The token of the file is what is sent."""
    check_wrong_token(ingress, tmp_path, ["java", "-jar", str(PROGRAM)])


def test_java_client_waits_as_the_gateway_says() -> None:
    """It honours grpc-retry-pushback-ms."""
    check_pushback(LOAD)


def test_java_client_repeats_the_calls_of_a_whole_pool() -> None:
    """The bound of retries is for a gateway that is down, and not for connections that end."""
    check_refused_pool(LOAD)


@pytest.mark.parametrize(("calls_open", "connections"), [(30, 1), (200, 1), (200, 8)])
@pytest.mark.parametrize("ingress", INGRESSES)
def test_java_calls_live_through_ageing_connections(
    ingress: str, calls_open: int, connections: int, record_property: Record
) -> None:
    """grpc-java repeats what a connection that closes has refused. No caller sees it."""
    counts = calls_while_connections_age(ingress, LOAD, calls_open, connections)
    record_property("calls", counts)
    assert set(counts) == {"OK"}


def test_first_call_in_java_prints_the_score(tmp_path: Path) -> None:
    """It is launched from its source, outside the package that has a class of its name."""
    program = CLIENTS / "java" / "src" / "main" / "java" / "example" / "First.java"

    def line_for(code: str) -> list[str]:
        source = tmp_path / "First.java"
        source.write_text(code.replace("package example;", "import example.TurnoutChannel;"))
        path = f"{PROGRAM}:{PROGRAM.parent / 'lib'}/*"
        return ["java", "-cp", path, str(source)]

    check_first_call("grpcio", program, "java", line_for)
