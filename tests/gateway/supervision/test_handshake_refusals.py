"""A TLS handshake that is refused is counted with its reason, at both servers."""

import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.transport.grpcio.handshake_log import HandshakeLog
from tests.front_doors import INGRESSES
from tests.gateway.transport.test_tls import Certificate, write_files
from tests.walks.running_system import poll_system_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5)
START_OF_FRAME = b"\0"
"""The first byte of the length of its SETTINGS. An alert of TLS begins with 21."""
COUNTED = re.compile(r'turnout_handshake_refusals_total\{reason="(\w+)",worker="0"\} (\d+)\.0')


@contextmanager
def gateway_with_tls(
    folder: Path, ingress: str, server: Certificate, authority: Certificate
) -> Iterator[tuple[int, int]]:
    """Run a gateway of one worker with mTLS; yield its port and the port of its pages."""
    files = write_files(folder, server, authority)
    announced = folder / "ports.json"
    settings = {"folder": folder / "state", "workers": 1, "tls_certificate": files.tls_certificate}
    settings |= {"tls_key": files.tls_key, "tls_client_authority": files.tls_client_authority}
    line = [f"--set={name}={value}" for name, value in settings.items()]
    line += [f"--ingress={ingress}", f"--announce={announced}"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([sys.executable, "-m", "gateway", *line], stderr=log) as gateway,
    ):
        try:
            poll_system_until(announced.exists, 30.0, "the gateway's ports")
            ports = json.loads(announced.read_text())
            poll_system_until(
                lambda: page(ports["metrics_port"], "readyz") == "ready\n", 30.0, "it serves"
            )
            yield ports["port"], ports["metrics_port"]
        finally:
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(30) == 0


def page(port: int, name: str) -> str:
    """Return a page of the supervisor; empty while it is not ready."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}") as answer:
        text: str = answer.read().decode()
        return text
    return ""


def answers(port: int, context: ssl.SSLContext | None) -> bool:
    """Connect and say HTTP/2's first words; return whether a frame of HTTP/2 comes back."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10.0) as plain:
        if context is None:
            plain.sendall(PREFACE)
            return plain.recv(1) == START_OF_FRAME
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(PREFACE)
            return secure.recv(1) == START_OF_FRAME
    return False


def client_context(
    folder: Path, client: Certificate | None, authority: Certificate
) -> ssl.SSLContext:
    """Return what a client with this certificate, who trusts *authority*, connects with."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    if client is not None:
        (folder / "client.pem").write_bytes(client.pem + client.key)
        context.load_cert_chain(folder / "client.pem")
    return context


@pytest.mark.walk
@pytest.mark.parametrize("ingress", INGRESSES)
def test_refused_handshakes_are_counted_by_reason(tmp_path: Path, ingress: str) -> None:
    """Each kind of client once, or twice; one that is accepted or only connects is not counted."""
    # A client for each reason.
    authority, stranger = Certificate("authority"), Certificate("stranger")
    server, known = Certificate("localhost", authority), Certificate("crm", authority)
    contexts = {
        "no_certificate": client_context(tmp_path, None, authority),
        "certificate_refused": client_context(tmp_path, stranger, authority),
        "client_refused": client_context(tmp_path, known, stranger),
        "no_common_protocol": client_context(tmp_path, known, authority),
        "not_tls": None,
    }
    contexts["no_common_protocol"].set_alpn_protocols(["http/1.1"])
    # All of them call; the page has what the worker has sent within a second or two.
    with gateway_with_tls(tmp_path, ingress, server, authority) as (port, metrics_port):
        for context in contexts.values():
            assert not answers(port, context)
        assert not answers(port, contexts["no_certificate"])
        assert answers(port, client_context(tmp_path, known, authority))
        socket.create_connection(("127.0.0.1", port), 5.0).close()

        def counted() -> dict[str, int]:
            return {
                reason: int(number)
                for reason, number in COUNTED.findall(page(metrics_port, "metrics"))
            }

        expected = dict.fromkeys(contexts, 1) | {"no_certificate": 2}
        with suppress(AssertionError):  # the assertion below says what was counted
            poll_system_until(lambda: counted() == expected, 10.0, "six are counted")
        assert counted() == expected
    log = (tmp_path / "log").read_text()
    assert "tls_refused reason=certificate_refused handshakes=1" in log
    assert "CallNextHandshakerLocked" not in log
    assert "Handshake failed" not in log


FAILED_SERVER = b"""\
I1130 18:58:17.599853   23135 handshaker.cc:155] CallNextHandshakerLocked: error=UNKNOWN: Ssl \
handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:100000c0:SSL routines:\
OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE: Invalid certificate verification context: OK
=== Source Location Trace: ===
src/core/util/status_helper.cc:68
 shutdown=false index=2, args={endpoint=0x7fd500001bc0, args={grpc.internal.\
endpoint_peer_address=ipv4:127.0.0.1:50166, grpc.internal.server_credentials=0x7f}}
"""
FAILED_CLIENT = FAILED_SERVER.replace(b"server_credentials", b"channel_credentials")
HANDSHAKE_OF_CLIENT_THAT_LEFT = b"""\
I1130 18:58:18.530670   23136 handshaker.cc:155] CallNextHandshakerLocked: error=UNAVAILABLE: read
=== Source Location Trace: ===
src/core/lib/event_engine/posix_engine/posix_engine.cc:309

"""
OTHER_LINES = b"""\
W1130 18:57:57.305627   22259 other.cc:102] a warning of gRPC
2026-11-30 19:00:00,000 gateway opened port=85
terminate called after throwing an instance
"""


def test_handshake_log_counts_those_of_the_server_and_passes_on_the_rest() -> None:
    """A handshake with the registry, where this process is the client, is counted elsewhere."""
    log = HandshakeLog()
    lines = (
        FAILED_SERVER + HANDSHAKE_OF_CLIENT_THAT_LEFT + OTHER_LINES + FAILED_CLIENT + FAILED_SERVER
    ).splitlines()
    assert list(log.pass_on(lines)) == OTHER_LINES.splitlines()
    (refusal,) = log.take()
    assert (refusal.reason, refusal.handshakes) == ("no_certificate", 2)
    assert refusal.detail.endswith("from ipv4:127.0.0.1:50166")
    assert log.take() == []
