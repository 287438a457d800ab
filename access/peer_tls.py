"""TLS between the parts of a system: who proves itself, and how.

A server has a key and a certificate. Its clients have a copy of the certificate (or of the
authority that signed it), accept no other server, and send their tokens only after that proof.
"""

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from access.certificate_files import CertificateFilesError, check_certificate_files
from host.addresses import is_loopback
from host.files import create_file_once, replace_file, take_group_rights

CONTROL_NAME = "turnout-control"
"""The first name in a certificate that is made here, so the one that clients expect."""
CERTIFICATE_FILE = "control.crt"
KEY_FILE = "control.key"
NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The end of a certificate without one (RFC 5280). It ends when its files are deleted."""
CLOCK_SKEW = timedelta(days=1)


class PeerError(Exception):
    """A certificate cannot be used, or a token would go to a server that has proven nothing."""


WITHOUT_PROXY = ("grpc.enable_http_proxy", 0)
"""gRPC would send what the parts of one system say to each other through `http_proxy`."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The two PEM files with which a server proves itself."""

    certificate: Path
    """The certificate with its chain. Clients get a copy of it, or of its authority's."""
    key: Path
    """The private key, which stays here."""


def make_certificate(folder: Path) -> ServerCertificate:
    """Return the certificate and key in *folder*; make them at first use, for the owner alone.

    docs/operating.md says how to change to new ones without a stop.

    Raises PeerError when others can read the key, or when a file is damaged.
    """
    files = ServerCertificate(folder / CERTIFICATE_FILE, folder / KEY_FILE)
    new_key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    create_file_once(files.key, new_key)
    # A key that others could read proves nothing.
    if not take_group_rights(files.key):
        raise PeerError(
            f"{files.key} has mode {files.key.stat().st_mode & 0o777:o}, so all users could read "
            f"it; it must be 600. Delete it and {files.certificate.name}, and start again: new "
            "ones are made"
        )
    try:
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("it is no EC key")  # noqa: TRY301  becomes a PeerError below
        create_file_once(files.certificate, _self_signed(key))
        # A certificate of another key is of no use: somebody has deleted the key alone.
        (certificate,) = x509.load_pem_x509_certificates(files.certificate.read_bytes())
        if certificate.public_key() != key.public_key():
            replace_file(files.certificate, _self_signed(key))
    except (ValueError, TypeError) as error:
        raise PeerError(
            f"{files.key} or {files.certificate.name} is damaged ({error}); delete both and start "
            "again: new ones are made"
        ) from error
    return files


def certificate_for(
    folder: Path,
    address: str,
    certificate: Path | None,
    key: Path | None,
    *,
    tokens: bool,
) -> ServerCertificate | None:
    """Return the certificate of a server that listens on *address*; None for plain text.

    certificate, key  the operator's own files; None: a certificate is made in *folder*.
    tokens            whether callers send tokens. Without them, plain text is for loopback only.

    Raises PeerError when one file of two is given, or when a server cannot use them.
    """
    if certificate is not None and key is not None:
        try:
            check_certificate_files(certificate, key)
        except CertificateFilesError as error:
            raise PeerError(str(error)) from error
        return ServerCertificate(certificate, key)
    if certificate is not None or key is not None:
        raise PeerError("--tls-certificate and --tls-key belong together; give both or none")
    return make_certificate(folder) if tokens or not is_loopback(address) else None


def add_port(server: Any, address: str, certificate: ServerCertificate | None) -> int:  # noqa: ANN401  grpc and grpc.aio
    """Let *server* listen on *address* with TLS, or in plain text without a certificate.

    Returns the port. Raises PeerError when a file cannot be read, RuntimeError when the address
    cannot be used.
    """
    if certificate is None:
        port: int = server.add_insecure_port(address)
        return port
    pair = (_read(certificate.key), _read(certificate.certificate))
    secure_port: int = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    return secure_port


def open_channel(
    address: str,
    certificate: Path | None,
    token: str | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Channel:
    """Return a channel to *address* whose server must prove itself by *certificate*.

    certificate  PEM file. If its first certificate is a server's, the server must have that name,
                 at whatever address; if it is an authority's, the server must have the name of the
                 host in *address*. None: plain text, for servers without identities on the same
                 machine.
    token        what the caller will send; None: it has no token.

    Raises PeerError when there is a token and no certificate, or when the file cannot be used.
    """
    refuse_token_in_clear(address, certificate, token)
    options = [*options, WITHOUT_PROXY]
    if certificate is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials, name = pinned_credentials(certificate)
    expected = [("grpc.ssl_target_name_override", name)] if name else []
    return grpc.aio.secure_channel(address, credentials, options=[*options, *expected])


def pinned_credentials(certificate: Path) -> tuple[grpc.ChannelCredentials, str]:
    """Return credentials that accept the server of this PEM file alone, and the name to expect.

    The name is that in a server's certificate. It is empty for an authority's: then the server must
    have the name of its host. Raises PeerError when the file cannot be used.
    """
    content = _read(certificate)
    credentials = grpc.ssl_channel_credentials(root_certificates=content)
    return credentials, _expected_name(certificate, content)


def refuse_token_in_clear(address: str, certificate: Path | None, token: str | None) -> None:
    """Raise PeerError when a token would go to a server that has not proven itself."""
    if token is not None and certificate is None:
        raise PeerError(
            f"the token is not sent to {address}: whoever listens there would have it. Give the "
            "file of the server's certificate, which is keys/control.crt in the registry's folder: "
            "--registry-certificate FILE, TURNOUT_REGISTRY_CERTIFICATE, or registry_certificate "
            "in the settings of a gateway"
        )


def _expected_name(file: Path, content: bytes) -> str:
    """Return the name in a server's certificate; empty for an authority's."""
    try:
        extensions = x509.load_pem_x509_certificates(content)[0].extensions
    except ValueError as error:
        raise PeerError(f"{file} holds no PEM certificate: {error}") from error
    with suppress(x509.ExtensionNotFound):
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return ""
    with suppress(x509.ExtensionNotFound):
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for name in names.get_values_for_type(x509.DNSName):
            if not name.startswith("*"):
                return str(name)
    return ""


def _self_signed(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a new certificate of *key* in PEM."""
    # A client looks its pinned certificates up by their subjects, and takes the first that fits. So
    # that two can be pinned during a change, each has a subject of its own.
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, CONTROL_NAME),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, key_id),
        ]
    )
    host = socket.gethostname()
    names: list[x509.GeneralName] = [
        x509.DNSName(text)
        for text in dict.fromkeys((CONTROL_NAME, "localhost", host))
        if text.isascii() and text
    ]
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - CLOCK_SKEW)
        .not_valid_after(NO_END)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # It signs no other certificate: the key proves this server and nothing else.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise PeerError(f"{file} cannot be read: {error.strerror}") from error
