"""A server proves itself by its certificate, and a token goes to no other server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from access.peer_tls import (
    PeerError,
    ServerCertificate,
    add_port,
    certificate_for,
    make_certificate,
    open_channel,
)

TOKEN_HEADER = "authorization"


class RecordingHandler(grpc.GenericRpcHandler):
    """Answers every RPC and keeps the tokens that it was sent."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """Keep the call's token."""
        metadata = dict(details.invocation_metadata or ())
        self.tokens.append(str(metadata.get(TOKEN_HEADER, "")))

        async def answer(_request: bytes, _context: object) -> bytes:
            return b"answer"

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def recording_server(
    certificate: ServerCertificate | None,
) -> AsyncIterator[tuple[str, RecordingHandler]]:
    """Serve on a free port of loopback; yields its address and what it was sent."""
    server, handler = grpc.aio.server(), RecordingHandler()
    server.add_generic_rpc_handlers((handler,))
    port = add_port(server, "127.0.0.1:0", certificate)
    await server.start()
    try:
        yield f"127.0.0.1:{port}", handler
    finally:
        await server.stop(None)


async def call(address: str, certificate: Path, token: str) -> bytes:
    """Make one call with *token* to a server that must have *certificate*."""
    async with open_channel(address, certificate, token) as channel:
        method: Callable[..., Awaitable[bytes]] = channel.unary_unary("/some/Method")
        return await method(b"", metadata=[(TOKEN_HEADER, token)], timeout=5.0)


def signed_certificate(folder: Path, *names: str) -> tuple[Path, ServerCertificate]:
    """Write an authority and a certificate that it signed for *names*; return both."""
    now, day = datetime.now(UTC), timedelta(days=1)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = (
        x509.CertificateBuilder(issuer, issuer, authority_key.public_key(), 1, now - day, now + day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    # The certificate of the server.
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), 2, now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        .sign(authority_key, hashes.SHA256())
    )
    # PEM files.
    pem = serialization.Encoding.PEM
    files = ServerCertificate(folder / "own.crt", folder / "own.key")
    files.certificate.write_bytes(certificate.public_bytes(pem))
    files.key.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "authority.crt").write_bytes(authority.public_bytes(pem))
    return folder / "authority.crt", files


def test_server_with_the_pinned_certificate_gets_the_token(tmp_path: Path) -> None:
    """The self-made certificate is accepted at whatever address, and any other is not."""

    async def scenario() -> None:
        own, other = make_certificate(tmp_path / "own"), make_certificate(tmp_path / "other")
        async with recording_server(own) as (address, handler):
            assert await call(address, own.certificate, "secret") == b"answer"
            assert await call(address.replace("127.0.0.1", "localhost"), own.certificate, "x")
            assert handler.tokens == ["secret", "x"]
            with pytest.raises(grpc.aio.AioRpcError, match="CERTIFICATE_VERIFY_FAILED"):
                await call(address, other.certificate, "secret")
            assert len(handler.tokens) == 2

    asyncio.run(scenario())


def test_server_of_an_authority_must_have_the_name_of_its_host(tmp_path: Path) -> None:
    """An operator's own authority is checked with the address, a pinned certificate without it."""

    async def scenario() -> None:
        authority, own = signed_certificate(tmp_path, "control.example", "localhost")
        async with recording_server(own) as (address, _handler):
            by_name = address.replace("127.0.0.1", "localhost")
            assert await call(by_name, authority, "secret") == b"answer"
            assert await call(address, own.certificate, "secret") == b"answer"
            with pytest.raises(grpc.aio.AioRpcError, match="Hostname Verification"):
                await call(address, authority, "secret")

    asyncio.run(scenario())


def test_server_without_tls_gets_no_token_of_a_client_with_a_certificate(tmp_path: Path) -> None:
    """A client that expects TLS never falls back to plain text."""

    async def scenario() -> None:
        own = make_certificate(tmp_path)
        async with recording_server(None) as (address, handler):
            with pytest.raises(grpc.aio.AioRpcError):
                await call(address, own.certificate, "secret")
            assert handler.tokens == []

    asyncio.run(scenario())


def test_client_with_a_token_and_no_certificate_is_refused(tmp_path: Path) -> None:
    """The message names the option; a file that cannot be used is refused too."""
    with pytest.raises(PeerError, match="--registry-certificate"):
        open_channel("127.0.0.1:1", None, "secret")
    with pytest.raises(PeerError, match="cannot be read"):
        open_channel("127.0.0.1:1", tmp_path / "missing.crt")
    (tmp_path / "text.crt").write_text("no certificate")
    with pytest.raises(PeerError, match="no PEM certificate"):
        open_channel("127.0.0.1:1", tmp_path / "text.crt")


def test_certificate_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    """A second start finds the same files, and refuses a key that all users can read."""
    files = make_certificate(tmp_path / "keys")
    before = (files.certificate.read_bytes(), files.key.read_bytes())
    assert make_certificate(tmp_path / "keys") == files
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == before
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    # A certificate whose key is gone is replaced together with it.
    files.key.unlink()
    make_certificate(tmp_path / "keys")
    assert files.certificate.read_bytes() != before[0]
    # The group's rights, as of a volume of Kubernetes, are taken away.
    files.key.chmod(0o660)
    assert make_certificate(tmp_path / "keys") == files
    assert files.key.stat().st_mode & 0o777 == 0o600
    files.key.chmod(0o644)
    with pytest.raises(PeerError, match="must be 600"):
        make_certificate(tmp_path / "keys")
    files.key.chmod(0o600)
    files.key.write_bytes(b"cut")
    with pytest.raises(PeerError, match="is damaged"):
        make_certificate(tmp_path / "keys")


def test_plain_text_is_for_loopback_without_tokens(tmp_path: Path) -> None:
    """Any other server gets a certificate; half a pair of files is refused."""
    assert certificate_for(tmp_path, "127.0.0.1:0", None, None, tokens=False) is None
    assert certificate_for(tmp_path, "127.0.0.1:0", None, None, tokens=True) is not None
    assert certificate_for(tmp_path, "10.0.0.1:7001", None, None, tokens=False) is not None
    files = make_certificate(tmp_path / "operators")
    given = certificate_for(tmp_path, "[::1]:0", files.certificate, files.key, tokens=True)
    assert given == files
    with pytest.raises(PeerError, match="belong together"):
        certificate_for(tmp_path, "127.0.0.1:0", files.certificate, None, tokens=True)
    with pytest.raises(PeerError, match="has no certificate"):
        certificate_for(tmp_path, "[::1]:0", tmp_path / "absent", files.key, tokens=True)
