"""TLS, mTLS, certificates that change, and Unix sockets, on either server."""

import asyncio
import datetime
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.settings import Settings
from protos.predict_pb2 import PredictReply
from registry.types import Deployment
from tests.gateway.gateway_fixture import SALT, gateway_fixture, predict_request
from tests.poll import wait_until
from tests.tiny_models import tiny_files
from tests.walks.wire.http2_frames import (
    RawConnection,
    call_header_block,
    grpc_status_and_message,
    raw_call,
    raw_header,
)

pytestmark = pytest.mark.walk

DEPLOYMENT = Deployment(
    model="churn", revision=1, production="1", split_salt=SALT, holdout_salt=SALT
)
PREDICT = "/turnout.v1.Predictor/Predict"
CALL = predict_request(1, 2, 3).SerializeToString()
DAY = datetime.timedelta(days=1)


class Certificate:
    """A certificate and its key in PEM, signed by *signer* or by itself."""

    def __init__(
        self,
        name: str,
        signer: "Certificate | None" = None,
        dns_name: str = "localhost",
        uri: str = "",
    ) -> None:
        # A client has a URI, a server a DNS name.
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(uri) if uri else x509.DNSName(dns_name)
        ]
        self.secret = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        # Without a signer it is an authority of its own.
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer.certificate.subject if signer else subject)
            .public_key(self.secret.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName(names), False)
            .sign(signer.secret if signer else self.secret, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.key = self.secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def write_files(folder: Path, server: Certificate, clients: Certificate | None) -> Settings:
    """Write the certificate files; return settings that name them."""
    (folder / "server.pem").write_bytes(server.pem)
    (folder / "server.key").write_bytes(server.key)
    authority = folder / "clients.pem"
    if clients is not None:
        authority.write_bytes(clients.pem)
    return Settings(
        tls_certificate=str(folder / "server.pem"),
        tls_key=str(folder / "server.key"),
        tls_client_authority=str(authority) if clients else "",
    )


def tls_channel(
    port: int,
    authority: Certificate,
    client: Certificate | None = None,
    address: str = "127.0.0.1",
) -> grpc.aio.Channel:
    """Open a channel that trusts *authority*, with or without a client certificate."""
    credentials = grpc.ssl_channel_credentials(
        authority.pem, client.key if client else None, client.pem if client else None
    )
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.ssl_target_name_override", "localhost"),
    ]
    return grpc.aio.secure_channel(f"{address}:{port}", credentials, options)


async def answered(channel: grpc.aio.Channel) -> bool:
    """Return whether a call over *channel* is answered."""
    try:
        raw = await channel.unary_unary(PREDICT)(CALL, timeout=5.0)
    except grpc.aio.AioRpcError:
        return False
    return PredictReply.FromString(raw).version == "1"


def test_mtls_accepts_only_clients_with_a_certificate_of_the_authority(tmp_path: Path) -> None:
    """No certificate, one of another authority, and a connection without TLS are refused."""
    authority = Certificate("authority")
    server, known_client = Certificate("localhost", authority), Certificate("crm", authority)
    unknown_client = Certificate("unknown_client")

    async def walk() -> None:
        settings = write_files(tmp_path, server, authority)
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway:
            expected = {known_client: True, unknown_client: False, None: False}
            for client, allowed in expected.items():
                async with tls_channel(gateway.port, authority, client) as channel:
                    assert await answered(channel) == allowed
            async with grpc.aio.insecure_channel(f"localhost:{gateway.port}") as channel:
                assert not await answered(channel)

    asyncio.run(walk())


def test_tls_uses_a_new_certificate_for_new_connections_and_keeps_open_ones(tmp_path: Path) -> None:
    """Unreadable files change nothing; an open connection goes on after the change."""
    old, new = Certificate("old"), Certificate("new")

    async def walk() -> None:
        settings = replace(
            write_files(tmp_path, Certificate("localhost", old), None), host="localhost"
        )
        async with (
            gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway,
            tls_channel(gateway.port, old) as before,
        ):
            assert await answered(before)
            (tmp_path / "server.pem").write_bytes(b"half a certifi")
            write_files(tmp_path, Certificate("localhost", new), None)

            async def changed(address: str) -> bool:
                async with tls_channel(gateway.port, new, address=address) as channel:
                    return await answered(channel)

            async with asyncio.timeout(20.0):
                for address in ("127.0.0.1", "[::1]"):
                    while not await changed(address):  # noqa: ASYNC110  no event announces the reload
                        await asyncio.sleep(0.1)
            assert await answered(before)
            async with tls_channel(gateway.port, old) as late:
                assert not await answered(late)

    asyncio.run(walk())


def test_tls_carries_large_messages(tmp_path: Path) -> None:
    """Calls of 1,000 rows, 5 at the same time, are answered in full."""
    authority = Certificate("localhost")
    call = predict_request(1, 2, 3, rows=1_000).SerializeToString()

    async def walk() -> None:
        settings = write_files(tmp_path, authority, None)
        async with (
            gateway_fixture({"1": tiny_files()}, DEPLOYMENT, settings=settings) as gateway,
            tls_channel(gateway.port, authority) as channel,
        ):
            predict = channel.unary_unary(PREDICT)
            for _ in range(3):
                replies = await asyncio.gather(*(predict(call, timeout=10.0) for _ in range(5)))
                counts = {len(PredictReply.FromString(reply).scores) for reply in replies}
                assert counts == {1_000}

    asyncio.run(walk())


def test_unix_socket_answers_as_the_port_does(tmp_path: Path) -> None:
    """A call over the socket and a call over the port are answered."""

    async def walk() -> None:
        path = tmp_path / "worker-0.sock"
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, unix=str(path)) as gateway:
            await wait_until(path.exists)
            async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
                assert await answered(channel)
            assert await answered(gateway.channel)

    asyncio.run(walk())


def test_unix_socket_takes_any_authority(tmp_path: Path) -> None:
    """grpc-java sends the path of the socket as authority, which is no host."""
    block = call_header_block().replace(
        raw_header(b":authority", b"test"), raw_header(b":authority", b"/run/worker-0.sock")
    )

    def ask(path: Path) -> int | None:
        connection = RawConnection(path)
        connection.send(raw_call(1, CALL, block))
        while not connection.ended_streams:
            assert connection.read(10.0), connection.goaway
        connection.close()
        return grpc_status_and_message(connection.ended_streams[1])[0]

    async def walk() -> None:
        path = tmp_path / "worker-0.sock"
        async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, unix=str(path)):
            await wait_until(path.exists)
            assert await asyncio.to_thread(ask, path) == 0

    asyncio.run(walk())


CALL_AS = """
import os, socket, sys
path, user = sys.argv[1], int(sys.argv[2])
os.setuid(user)
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(10.0)
try:
    connection.connect(path)
    connection.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(3) + b"\\4" + bytes(5))
    print(len(connection.recv(1)))
except ConnectionError:
    print(0)
"""
"""Calls as another user and prints whether a byte of an answer came."""


def open_to_everybody(path: Path) -> None:
    """Let every user of the machine connect to the socket at *path*."""
    path.parent.chmod(0o777)
    path.chmod(0o777)


def test_unix_socket_of_the_native_server_answers_its_own_user_and_root_alone(
    tmp_path: Path, ingress: str
) -> None:
    """Another user calls, to whom somebody has opened the socket's file."""
    if ingress != "native" or os.geteuid() != 0:
        pytest.skip("the grpcio server does not see who calls, and only root becomes another user")

    async def answers(path: Path, user: int) -> bytes:
        caller = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CALL_AS, str(path), str(user), stdout=subprocess.PIPE
        )
        printed, _ = await caller.communicate()
        return printed.strip()

    async def walk() -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "worker-0.sock"
            async with gateway_fixture({"1": tiny_files()}, DEPLOYMENT, unix=str(path)):
                await wait_until(path.exists)
                open_to_everybody(path)
                assert await answers(path, 0) == b"1"
                assert await answers(path, 65_534) == b"0"

    asyncio.run(walk())
