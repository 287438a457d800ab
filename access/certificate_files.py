"""Looks at a server's certificate, key and authority once, before anything listens with them."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

RSA_BITS_MIN = 2_048


class CertificateFilesError(ValueError):
    """A server cannot prove itself with these files."""


def check_certificate_files(certificate: Path, key: Path, authority: Path | None = None) -> None:
    """Check that both servers can use these files, so that neither takes what the other refuses.

    certificate  PEM file: the server's certificate of version 3, then its chain.
    key          PEM file with the private key of the first certificate, without a password.
    authority    PEM file with what signs client certificates; None: clients need none.

    Raises CertificateFilesError, which names the file and what is wrong with it.
    """
    own = _certificates(certificate)[0]
    if own.version is not x509.Version.v3:
        raise CertificateFilesError(
            f"{certificate}: the first certificate has version {own.version.name[1:]}; TLS needs "
            "version 3 (openssl req -x509 makes it)"
        )
    private = _private_key(key)
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < RSA_BITS_MIN:
        raise CertificateFilesError(
            f"{key}: an RSA key of {private.key_size} bits; it has at least {RSA_BITS_MIN}"
        )
    if private.public_key() != own.public_key():
        raise CertificateFilesError(
            f"{key} is not the key of the first certificate in {certificate}. The server's own "
            "certificate comes first, and its authorities after it"
        )
    if authority is not None:
        _certificates(authority)


def _certificates(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion) as error:
        raise CertificateFilesError(
            f"{file} has no certificate that can be read: {error}"
        ) from error


def _private_key(file: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(file.read_bytes(), None)
    except TypeError as error:  # what cryptography raises for a missing password
        raise CertificateFilesError(
            f"{file} has a password; a server starts without a person. Remove it (openssl pkey)"
        ) from error
    except (OSError, ValueError) as error:
        raise CertificateFilesError(
            f"{file} has no private key that can be read: {error}"
        ) from error
