"""JWTs of callers: one algorithm an issuer, audience and expiry required, keys cached.

joserfc checks signatures and claims. It is imported only where the callers file has issuers (extra
`jwt`).
"""

import base64
import json
import logging
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.callers.callers_file import Issuer
from gateway.errors import SettingsError

log = logging.getLogger("gateway")

KEYS_BYTES_MAX = 256 * 1024
KEYS_TIMEOUT_S = 3.0
KEYS_REFRESH_S = 300.0
"""Time between two readings of an issuer's address. What was read last is kept if a reading fails.
"""
KEYS_UNKNOWN_S = 10.0
"""The issuer may have a new key: this is the time after a token with the id of a key that is not
there."""
TOKEN_BYTES_MAX = 8_192


class VerifiedToken(NamedTuple):
    """What a token says whose signature, issuer, audience and time are right."""

    issuer: str
    subject: str
    expires_unix_s: int


class TokenVerifier:
    """Verifies the JWTs of all issuers of a callers file."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._keys: dict[str, Any] = {}
        self._read_s: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        """Issuer -> why its keys cannot be used, as it was logged; empty without a problem."""
        self._lacking: set[str] = set()
        """Issuers of tokens whose key is not there."""
        if issuers:
            try:
                import joserfc  # noqa: F401  only where the file has issuers
            except ImportError:
                raise SettingsError(
                    "the callers file has issuers, and joserfc is not installed: pip install "
                    "'turnout[jwt]'"
                ) from None

    def refresh_keys(self, now_s: float) -> bool:
        """Read the keys of each issuer that are due. Return whether any changed. It blocks."""
        changed = False
        for issuer in self._issuers.values():
            last_s = self._read_s.get(issuer.issuer)
            remote = issuer.keys.startswith(("https://", "http://"))
            pause_s = KEYS_UNKNOWN_S if issuer.issuer in self._lacking else KEYS_REFRESH_S
            if remote and last_s is not None and now_s - last_s < pause_s:
                continue
            self._read_s[issuer.issuer] = now_s
            self._lacking.discard(issuer.issuer)
            problem = ""
            try:
                keys = _read_keys(issuer.keys)
                if self._keys.get(issuer.issuer, (None,))[0] != keys:
                    problem = "issuer_keys_invalid"
                    self._keys[issuer.issuer] = (keys, _import_keys(keys))
                    changed, problem = True, ""
            except (OSError, ValueError) as error:
                problem = f"{problem or 'issuer_keys_unreadable'} issuer={issuer.issuer} {error=!s}"
            # A file is read each second, and the same problem is worth one line.
            if problem and problem != self._problems.get(issuer.issuer):
                log.warning(problem)
            self._problems[issuer.issuer] = problem
        return changed

    def verify(self, token: str, now_s: float) -> VerifiedToken | None:
        """Return what a JWT says; None if anything about it is wrong."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        issuer = self._issuers.get(_claimed_issuer(token))
        if issuer is None or issuer.issuer not in self._keys:
            return None
        keys = self._keys[issuer.issuer][1]
        claims_rules = jwt.JWTClaimsRegistry(
            now=int(now_s),
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            decoded = jwt.decode(token, keys, algorithms=[issuer.algorithm])
            claims_rules.validate(decoded.claims)
            subject, expires = decoded.claims["sub"], decoded.claims["exp"]
        except (JoseError, ValueError, TypeError, KeyError):
            if _key_id(token) not in {key.kid for key in keys.keys}:
                self._lacking.add(issuer.issuer)
            return None
        if not isinstance(subject, str) or type(expires) is not int or expires <= now_s:
            return None
        return VerifiedToken(issuer.issuer, subject, expires)


def _claimed_issuer(token: str) -> str:
    """Return the issuer that an unverified token names; empty if it cannot be read."""
    if len(token) > TOKEN_BYTES_MAX or token.count(".") != 2:
        return ""
    issuer = _unverified(token, 1).get("iss")
    return issuer if isinstance(issuer, str) else ""


def _key_id(token: str) -> object:
    """Return the id of the key with which a token says that it is signed; None: it does not say."""
    return _unverified(token, 0).get("kid")


def _unverified(token: str, part: int) -> dict[str, Any]:
    """Return header (0) or claims (1) of a token; empty if they cannot be read."""
    text = token.split(".")[part]
    try:
        content = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The keys come from the address that the operator wrote, and from no other."""

    def redirect_request(self, *_: object) -> None:
        """Refuse every redirect, which then is an HTTPError."""


def _read_keys(source: str) -> bytes:
    if source.startswith(("https://", "http://")):
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(source, timeout=KEYS_TIMEOUT_S) as answer:
            keys: bytes = answer.read(KEYS_BYTES_MAX + 1)
    else:
        with Path(source).open("rb") as file:
            keys = file.read(KEYS_BYTES_MAX + 1)
    if len(keys) > KEYS_BYTES_MAX:
        raise ValueError(f"a JWKS has at most {KEYS_BYTES_MAX} bytes")
    return keys


def _import_keys(keys: bytes) -> Any:  # noqa: ANN401  joserfc.jwk.KeySet
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    try:
        return KeySet.import_key_set(json.loads(keys))
    except (JoseError, KeyError, TypeError) as error:
        raise ValueError(f"it is no JWKS: {error!r}") from error
