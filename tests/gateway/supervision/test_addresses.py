"""A gateway listens on IPv4, IPv6 or both; its health knows its services, and when it stops."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.transport.reflection import SERVICES
from host.files import replace_file
from tests.front_doors import INGRESSES
from tests.walks.running_system import poll_system_until

pytestmark = pytest.mark.walk

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health_of(address: str, service: str) -> int:
    """Return the status of *service* as a client at *address* sees it."""
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        request = health_pb2.HealthCheckRequest(service=service)
        answer = stub.Check(request, timeout=10, wait_for_ready=True)
    assert isinstance(answer, health_pb2.HealthCheckResponse)
    return answer.status


def ports_once_ready(announced: Path, page_host: str) -> dict[str, int]:
    """Return the ports of a gateway that starts, once it serves.

    A client that asks before waits longer from try to try.
    """
    poll_system_until(announced.exists, 30.0, "the gateway's ports")
    ports: dict[str, int] = json.loads(announced.read_text())

    def ready() -> bool:
        try:
            page = f"http://{page_host}:{ports['metrics_port']}/readyz"
            with urllib.request.urlopen(page, timeout=5) as answer:
                return bool(answer.read() == b"ready\n")
        except urllib.error.HTTPError:
            return False

    poll_system_until(ready, 60.0, "the gateway serves")
    return ports


@pytest.mark.parametrize("ingress", INGRESSES)
@pytest.mark.parametrize(
    ("host", "reached_at"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["[::1]"]),
        ("::", ["127.0.0.1", "[::1]"]),
        ("localhost", ["127.0.0.1", "[::1]"]),
    ],
)
def test_gateway_answers_at_the_addresses_of_its_host(
    tmp_path: Path, ingress: str, host: str, reached_at: list[str]
) -> None:
    """Its pages listen there too, if observe_host says so and a token protects them."""
    announced, token = tmp_path / "ports.json", tmp_path / "token"
    replace_file(token, "observers-token")
    settings = {"folder": tmp_path / "state", "host": host, "workers": 1, "observe_host": host}
    settings["observe_token_file"] = token
    line = [f"--set={name}={value}" for name, value in settings.items()]
    line += [f"--ingress={ingress}", f"--announce={announced}"]
    with subprocess.Popen([sys.executable, "-m", "gateway", *line]) as gateway:
        try:
            ports = ports_once_ready(announced, reached_at[0])
            for address in reached_at:
                for service in ("", *SERVICES):
                    assert health_of(f"{address}:{ports['port']}", service) == SERVING
                page = f"http://{address}:{ports['metrics_port']}/readyz"
                with urllib.request.urlopen(page, timeout=5) as answer:
                    assert answer.read() == b"ready\n"
        finally:
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(30) == 0


@pytest.mark.parametrize("ingress", INGRESSES)
def test_stopping_gateway_answers_new_clients_that_it_does_not_serve(
    tmp_path: Path, ingress: str
) -> None:
    """A load balancer that learns of the stop by this answer has sent some until then."""
    announced = tmp_path / "ports.json"
    settings = {"folder": tmp_path / "state", "workers": 1, "stop_accept_s": 60.0}
    line = [f"--set={name}={value}" for name, value in settings.items()]
    line += [f"--ingress={ingress}", f"--announce={announced}"]
    with subprocess.Popen([sys.executable, "-m", "gateway", *line]) as gateway:
        address = f"127.0.0.1:{ports_once_ready(announced, '127.0.0.1')['port']}"
        assert health_of(address, "") == SERVING
        gateway.send_signal(signal.SIGTERM)
        # Each look is a connection of its own.
        poll_system_until(lambda: health_of(address, "") == NOT_SERVING, 30.0, "it does not serve")
        assert health_of(address, "turnout.v1.Predictor") == NOT_SERVING
        # A second signal waits no longer.
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 1
