"""The keys of an issuer, from a file or an address: cached, rotated, and read again when needed."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from gateway.callers.callers_file import Issuer
from gateway.callers.tokens import (
    KEYS_BYTES_MAX,
    KEYS_REFRESH_S,
    KEYS_UNKNOWN_S,
    TokenVerifier,
)
from tests.gateway.callers.test_jwt import AUDIENCE, ISSUER, SUBJECT, token

NOW_S = time.time()


def new_key() -> ECKey:
    """Return a key whose id is its thumbprint."""
    return ECKey.generate_key("P-256", auto_kid=True)


def jwks(*keys: Any) -> bytes:  # noqa: ANN401  keys of joserfc
    """Return the public keys as an issuer shows them."""
    return json.dumps(KeySet(list(keys)).as_dict(private=False)).encode()


class Issuance(ThreadingHTTPServer):
    """An issuer's address, with its keys and the number of its readers."""

    content = b""
    reads = 0
    status = 200
    location = ""


class _Answer(BaseHTTPRequestHandler):
    server: Issuance

    def do_GET(self) -> None:
        """Count the reader and send the keys."""
        self.server.reads += 1
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        """Keep the test's output free of requests."""


@contextmanager
def served(content: bytes) -> Iterator[tuple[Issuance, str]]:
    """Serve *content* on loopback; yield the server and its address."""
    with Issuance(("127.0.0.1", 0), _Answer) as server:
        server.content = content
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}/jwks"
        finally:
            server.shutdown()


def verifier_of(keys: str, algorithm: str = "ES256") -> TokenVerifier:
    """Return a verifier of one issuer, which has read nothing so far."""
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, algorithm=algorithm, keys=keys)
    return TokenVerifier([issuer])


def accepts(verifier: TokenVerifier, text: str) -> bool:
    """Whether the verifier believes a token."""
    return verifier.verify(text, time.time()) is not None


def test_keys_of_a_file_are_read_each_time_and_of_an_address_once_in_five_minutes(
    tmp_path: Path,
) -> None:
    """Reading a file costs nothing; an issuer is not asked once a second by each worker."""
    old, new = new_key(), new_key()
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(old))
    with served(jwks(old)) as (server, address):
        by_file, by_address = verifier_of(str(file)), verifier_of(address)
        for verifier in (by_file, by_address):
            assert verifier.refresh_keys(100.0)
            assert accepts(verifier, token(old))
        file.write_bytes(jwks(new))
        server.content = jwks(new)
        assert by_file.refresh_keys(101.0)
        assert not by_address.refresh_keys(100.0 + KEYS_REFRESH_S - 1)
        assert server.reads == 1
        assert by_address.refresh_keys(100.0 + KEYS_REFRESH_S)
        for verifier in (by_file, by_address):
            assert accepts(verifier, token(new))
            assert not accepts(verifier, token(old))


def test_unknown_key_id_makes_the_address_be_read_sooner() -> None:
    """An issuer signs with a new key at once; strangers cannot make every worker ask it often."""
    old, new, stranger = new_key(), new_key(), new_key()
    with served(jwks(old)) as (server, address):
        verifier = verifier_of(address)
        verifier.refresh_keys(100.0)
        server.content = jwks(old, new)
        assert not accepts(verifier, token(new))
        assert not verifier.refresh_keys(100.0 + KEYS_UNKNOWN_S - 1)
        assert verifier.refresh_keys(100.0 + KEYS_UNKNOWN_S)
        assert accepts(verifier, token(new))
        assert accepts(verifier, token(old))
        # A key that the issuer does not have is asked for once, and the time counts anew.
        for _ in range(50):
            assert not accepts(verifier, token(stranger))
            assert not verifier.refresh_keys(101.0 + KEYS_UNKNOWN_S)
        assert not verifier.refresh_keys(100.0 + 2 * KEYS_UNKNOWN_S)
        assert server.reads == 3
        assert not verifier.refresh_keys(101.0 + 3 * KEYS_UNKNOWN_S)
        assert server.reads == 3


def test_last_good_keys_stay_when_the_address_fails() -> None:
    """An error, a redirect, text that is no JWKS, and too many bytes change nothing."""
    key = new_key()
    with served(jwks(key)) as (server, address), served(jwks(new_key())) as (_, elsewhere):
        verifier = verifier_of(address)
        assert verifier.refresh_keys(0.0)
        faults: list[tuple[int, str, bytes]] = [
            (500, "", b"broken"),
            (302, elsewhere, b""),
            (200, "", b'{"keys": ['),
            (200, "", b'{"no": "keys"}'),
            (200, "", jwks(new_key()) + b" " * KEYS_BYTES_MAX),
        ]
        for number, (status, location, content) in enumerate(faults, start=1):
            server.status, server.location, server.content = status, location, content
            assert not verifier.refresh_keys(number * KEYS_REFRESH_S)
            assert server.reads == number + 1
            assert accepts(verifier, token(key))


def test_only_the_algorithm_of_the_issuer_is_believed() -> None:
    """Also where the issuer's key set has a key that fits another algorithm."""
    key, rsa = new_key(), RSAKey.generate_key(2048, auto_kid=True)
    public = json.dumps(key.as_dict(private=False)).encode()
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "exp": int(time.time()) + 60}
    signed = token(key)
    with served(jwks(key, rsa)) as (_, address):
        verifier = verifier_of(address)
        verifier.refresh_keys(0.0)
        assert accepts(verifier, token(key))
        for name, text in {
            "RS256": token(rsa, "RS256"),
            "PS256": token(rsa, "PS256"),
            "HS256 with the public key": token(OctKey.import_key(public), "HS256"),
            "none": f"{_part({'alg': 'none'})}.{_part(claims)}.",
            "None": f"{_part({'alg': 'None', 'kid': key.kid})}.{_part(claims)}.",
            "another signature": signed.rpartition(".")[0] + ".AAAA",
        }.items():
            assert not accepts(verifier, text), name


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": int(NOW_S) - 1}, "expired"),
        ({"exp": None}, "without an end"),
        ({"exp": "tomorrow"}, "an end that is no number"),
        ({"exp": True}, "an end that is no number"),
        ({"aud": "other"}, "another audience"),
        ({"aud": ["other", "turnouts"]}, "other audiences"),
        ({"aud": None}, "no audience"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"sub": None}, "no subject"),
        ({"sub": 7}, "a subject that is no text"),
        ({"nbf": int(NOW_S) + 3_600}, "not yet valid"),
    ],
)
def test_token_with_a_wrong_claim_is_not_believed(claims: dict[str, object], why: str) -> None:
    """Each claim alone makes it wrong."""
    key = new_key()
    with served(jwks(key)) as (_, address):
        verifier = verifier_of(address)
        verifier.refresh_keys(0.0)
        assert accepts(verifier, token(key))
        assert not accepts(verifier, token(key, **claims)), why


def test_key_without_an_id_verifies_tokens_without_one() -> None:
    """A small issuer has one key and names it nowhere."""
    key = ECKey.generate_key("P-256")
    with served(jwks(key)) as (server, address):
        verifier = verifier_of(address)
        verifier.refresh_keys(0.0)
        assert accepts(verifier, token(key))
        assert not accepts(verifier, token(ECKey.generate_key("P-256")))
        assert server.reads == 1


def _part(content: dict[str, object]) -> str:
    """Return one part of a token that nobody signs."""
    encoded = json.dumps(content).encode()
    return base64.urlsafe_b64encode(encoded).rstrip(b"=").decode()


def test_unreadable_file_of_keys_is_logged_once_for_each_cause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file is read each second."""
    file = tmp_path / "keys.json"
    verifier = TokenVerifier(
        [Issuer(issuer=ISSUER, audience=AUDIENCE, algorithm="ES256", keys=str(file))]
    )
    for content in (b"", b"{}", jwks(new_key()), b"{}"):
        if content:
            file.write_bytes(content)
        for second in range(3):
            verifier.refresh_keys(NOW_S + second)
    lines = [record.getMessage() for record in caplog.records]
    names = [line.split()[0] for line in lines]
    assert names == ["issuer_keys_unreadable", "issuer_keys_invalid", "issuer_keys_invalid"]
    assert "No such file" in lines[0]
