"""The Rust generator, built with TLS, against grpcio's own: encrypted, and known by certificate."""

import asyncio
import datetime
import ipaddress
import json
import subprocess
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.load.rust_generator import CRATE, cargo_works

pytestmark = [
    pytest.mark.walk,
    pytest.mark.nightly,  # rustls and ring take 40 s of CPU to build
    pytest.mark.skipif(not cargo_works(), reason="cargo is not there"),
]


def certificate(folder: Path) -> tuple[bytes, bytes]:
    """Make a certificate for 127.0.0.1 that signs itself; (key, certificate) in PEM, and files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "turnout")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    (folder / "key.pem").write_bytes(private)
    (folder / "cert.pem").write_bytes(public)
    return private, public


async def ask(binary: Path, *options: str) -> tuple[int, str]:
    """Run the generator; (exit code, what it printed)."""
    program = await asyncio.create_subprocess_exec(
        *(str(binary), "--json", "--quiet", "--model", "m", "--warm", "0", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(program.communicate(), 30.0)
    assert program.returncode is not None
    return program.returncode, said.decode()


def test_calls_are_encrypted_and_both_sides_known(tmp_path: Path) -> None:
    """mTLS: with the certificate every call is answered, without one none; large bodies too."""
    target = CRATE / "target" / "tls"
    build = ["cargo", "build", "--release", "--quiet", "--features", "tls"]
    subprocess.run([*build, "--target-dir", str(target)], cwd=CRATE, check=True)
    binary = target / "release" / "turnout-loadgen"
    key, cert = certificate(tmp_path)

    async def predict(message: bytes, context: object) -> bytes:
        del message, context
        return b"x" * 100_000

    async def run() -> None:
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(predict)
        service = grpc.method_handlers_generic_handler("a.B", {"C": method})
        server.add_generic_rpc_handlers((service,))
        known = grpc.ssl_server_credentials([(key, cert)], cert, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", known)
        await server.start()
        bodies = tmp_path / "bodies"
        bodies.write_bytes((50_000).to_bytes(4, "little") + bytes(50_000))
        what = (f"127.0.0.1:{port}", "--bodies", str(bodies), "--method", "a.B/C", "--calls", "300")
        trusted = ("--tls", "--ca", str(tmp_path / "cert.pem"))
        own = ("--cert", str(tmp_path / "cert.pem"), "--cert-key", str(tmp_path / "key.pem"))
        code, said = await ask(binary, *what, *trusted, *own)
        assert (code, json.loads(said)["statuses"]) == (0, {"OK": 300}), said
        assert (await ask(binary, *what, *trusted))[0] == 3
        assert (await ask(binary, *what))[0] == 3
        await server.stop(0)

    asyncio.run(run())
