"""Certificates and keys that a server cannot use are refused before anything listens."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from access.certificate_files import CertificateFilesError, check_certificate_files
from access.peer_tls import ServerCertificate, make_certificate
from gateway.__main__ import main

VERSION_1 = """\
-----BEGIN CERTIFICATE-----
MIIBFzCBvwIUC237fksD4OcnZoYbTyeKWAN027QwCgYIKoZIzj0EAwIwDjEMMAoG
A1UEAwwDb2xkMCAXDTI2MTEzMDE1MzUxN1oYDzIxMjYxMTA2MTUzNTE3WjAOMQww
CgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASZzhvcfIH797jY
L24xtbXuXUqdRYyuMgUD+x79rKa7eoWnLxTPGn/s/uik728st5Tb+9cIzkAxcqZX
3MnQyKnHMAoGCCqGSM49BAMCA0cAMEQCICp75vGziEz0sSESF8Ur/XeDRewCNtf7
J6v5vwIk5CLJAiB3/7IfC+QsKU/P7tjqhIIYDyBybFwEo4ZJ7kzckV2omw==
-----END CERTIFICATE-----
"""
"""openssl x509 -req makes such a certificate unless it is given extensions."""


@pytest.fixture
def good(tmp_path: Path) -> ServerCertificate:
    """Give a certificate and its key, which any server can use."""
    return make_certificate(tmp_path / "good")


def pem_of(key: rsa.RSAPrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    """Return *key* as PKCS#8 in PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def test_certificate_with_its_key_and_an_authority_are_taken(good: ServerCertificate) -> None:
    """The authority may be any certificate, also the server's own."""
    check_certificate_files(good.certificate, good.key)
    check_certificate_files(good.certificate, good.key, good.certificate)


def test_each_file_that_a_server_cannot_use_is_named(
    good: ServerCertificate, tmp_path: Path
) -> None:
    """The message has the file, what is wrong with it, and the way out."""
    other = make_certificate(tmp_path / "other")
    chain = tmp_path / "authority-first.pem"
    chain.write_bytes(other.certificate.read_bytes() + good.certificate.read_bytes())
    old, cut, small, locked = (tmp_path / name for name in ("old", "cut", "small", "locked"))
    old.write_text(VERSION_1)
    cut.write_text("-----BEGIN CERTIFICATE-----\nMIIB")
    key = rsa.generate_private_key(65_537, 1_024)
    small.write_bytes(pem_of(key, serialization.NoEncryption()))
    locked.write_bytes(pem_of(key, serialization.BestAvailableEncryption(b"secret")))
    refused = [
        ((old, good.key, None), "old: the first certificate has version 1"),
        ((cut, good.key, None), "cut has no certificate"),
        ((tmp_path / "absent", good.key, None), "absent has no certificate"),
        ((good.certificate, other.key, None), "is not the key of the first certificate"),
        ((chain, good.key, None), "certificate comes first, and its authorities after it"),
        ((good.certificate, small, None), "an RSA key of 1024 bits"),
        ((good.certificate, locked, None), "locked has a password"),
        ((good.certificate, cut, None), "cut has no private key"),
        ((good.certificate, good.key, cut), "cut has no certificate"),
    ]
    for files, words in refused:
        with pytest.raises(CertificateFilesError, match=words):
            check_certificate_files(*files)


def test_gateway_with_a_wrong_key_ends_with_2(
    good: ServerCertificate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends before a worker is started, with one sentence."""
    other = make_certificate(tmp_path / "other")
    settings = {
        "folder": tmp_path / "gateway",
        "tls_certificate": good.certificate,
        "tls_key": other.key,
    }
    assert main([f"--set={name}={value}" for name, value in settings.items()]) == 2
    assert "is not the key of the first certificate" in capsys.readouterr().err
    assert not (tmp_path / "gateway").exists()
