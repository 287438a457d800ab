"""The example in Node calls a real gateway, with each server."""

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

pytestmark = pytest.mark.nightly  # npm fetches the packages

NODE = CLIENTS / "node"
EXAMPLE, LOAD = ["node", str(NODE / "example.js")], ["node", str(NODE / "load.js")]


@pytest.fixture(scope="module", autouse=True)
def example_in_node() -> None:
    """Install the packages of the lock file beside the example, as its README says."""
    if shutil.which("npm") is None:
        pytest.skip("Node is not installed: there is no npm")
    line = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(line, cwd=NODE, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ingress", INGRESSES)
def test_node_example_predicts_and_reports(ingress: str, tmp_path: Path) -> None:
    """By key, by inputs, several offers, an outcome twice, health, and an error."""
    check_example(ingress, tmp_path, EXAMPLE)


@pytest.mark.parametrize("ingress", INGRESSES)
def test_node_example_is_refused_with_another_token(ingress: str, tmp_path: Path) -> None:
    """The token of the file is what is sent."""
    check_wrong_token(ingress, tmp_path, EXAMPLE)


def test_node_client_waits_as_the_gateway_says() -> None:
    """It honours grpc-retry-pushback-ms."""
    check_pushback(LOAD)


def test_node_client_repeats_the_calls_of_a_whole_pool() -> None:
    """The bound of retries is for a gateway that is down, and not for connections that end."""
    check_refused_pool(LOAD)


@pytest.mark.parametrize(("calls_open", "connections"), [(30, 1), (200, 1), (200, 8)])
@pytest.mark.parametrize("ingress", INGRESSES)
def test_node_calls_live_through_ageing_connections(
    ingress: str, calls_open: int, connections: int, record_property: Record
) -> None:
    """The client holds calls above 32 back; grpc-js alone would send them, to be refused."""
    counts = calls_while_connections_age(ingress, LOAD, calls_open, connections)
    record_property("calls", counts)
    assert set(counts) == {"OK"}


def test_first_call_in_node_prints_the_score() -> None:
    """It imports the client that lies beside it."""

    def line_for(code: str) -> list[str]:
        code = code.replace("./client.js", (NODE / "client.js").as_uri())
        return ["node", "--input-type=module", "-e", code]

    check_first_call("grpcio", NODE / "first.js", "javascript", line_for)
