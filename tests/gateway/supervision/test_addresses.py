"""A gateway listens on IPv4, IPv6 or both, and its health knows its services by name."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from http import HTTPStatus
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


def health_of(address: str, service: str) -> int:
    """Return the status of *service* as a client at *address* sees it."""
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        request = health_pb2.HealthCheckRequest(service=service)
        answer = stub.Check(request, timeout=10, wait_for_ready=True)
    assert isinstance(answer, health_pb2.HealthCheckResponse)
    return answer.status


def says_ready(page: str) -> bool:
    """Whether *page*, which is /readyz, answers 200; it is 503 until a worker serves."""
    try:
        with urllib.request.urlopen(page, timeout=5) as answer:
            return bool(answer.read() == b"ready\n")
    except urllib.error.HTTPError as refusal:
        refusal.close()
        if refusal.code != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return False


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
            poll_system_until(announced.exists, 30.0, "the gateway's ports")
            ports = json.loads(announced.read_text())
            for address in reached_at:
                for service in ("", *SERVICES):
                    assert health_of(f"{address}:{ports['port']}", service) == SERVING
                # The worker answers just before its supervisor hears of it.
                page = f"http://{address}:{ports['metrics_port']}/readyz"
                poll_system_until(partial(says_ready, page), 30.0, page)
        finally:
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(30) == 0
