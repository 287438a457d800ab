"""The callers file: TOML with each caller's credentials, models and quotas, and JWT issuers."""

import re
import tomllib
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.caller import Caller
from gateway.errors import SettingsError
from host.addresses import is_loopback

CALLERS_MAX = 1_000
"""Callers of one file: each has metrics and a place in every worker's tables."""
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
CERTIFICATE_NAME = re.compile(
    r"[a-z][a-z0-9+.-]*://[!-~]+|([a-z0-9-]+\.)*[a-z0-9-]*[a-z][a-z0-9-]*"
)
"""A URI, or a DNS name whose last label is no number."""
TOKEN_DIGEST = re.compile(r"[0-9a-f]{64}")
RESERVED_NAMES = ("anonymous", "unknown")
"""What windows and metrics call callers without an identity."""
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
"""Signatures with a public key. A secret shared with the issuer could be used to forge tokens."""
LIMIT_FIELDS = ("calls_s", "rows_s", "bytes_s", "connections", "streams")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A service that signs JWTs of callers."""

    issuer: str
    """The claim `iss`."""
    audience: str
    """What the claim `aud` must have."""
    algorithm: str
    """The only algorithm of its signatures, one of ALGORITHMS."""
    keys: str
    """Its JWKS: a file, an https:// address, or an http:// address of this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerEntry:
    """A caller of the file with its credentials."""

    caller: Caller
    token_sha256: tuple[str, ...] = ()
    """Hex SHA-256 of its bearer tokens."""
    expires_unix_ns: int | None = None
    """When those tokens expire."""
    certificates: tuple[str, ...] = ()
    """DNS or URI names of its client certificates."""
    subject: tuple[str, str] | None = None
    """Issuer and claim `sub` of its JWTs."""


@dataclass(frozen=True, slots=True)
class CallersFile:
    """What a callers file says."""

    entries: tuple[CallerEntry, ...]
    issuers: tuple[Issuer, ...]


def read_callers_file(path: Path) -> CallersFile:
    """Read and check a callers file; SettingsError says what is wrong with it."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"callers_file {path} cannot be read: {error}") from error
    where = f"callers_file {path}"
    _check_fields(tables, ("callers", "issuers"), where)
    issuers = tuple(
        _issuer(table, f"{where}, issuer {at}", path.parent)
        for at, table in enumerate(_tables(tables, "issuers", where), 1)
    )
    callers = _tables(tables, "callers", where)
    if not 0 < len(callers) <= CALLERS_MAX:
        raise SettingsError(f"{where} has {len(callers)} callers; it has 1 to {CALLERS_MAX}")
    known = {issuer.issuer for issuer in issuers}
    entries = tuple(
        _entry(table, f"{where}, caller {at}", known) for at, table in enumerate(callers, 1)
    )
    _refuse_repeated(entries, where)
    return CallersFile(entries, issuers)


def _entry(table: dict[str, Any], where: str, issuers: set[str]) -> CallerEntry:
    """Return one caller, with the checks of each field."""
    # Its name.
    names = [field.name for field in fields(Caller) if field.name != "number"]
    names += ["token_sha256", "expires", "certificates", "issuer", "subject"]
    _check_fields(table, names, where)
    name = table.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise SettingsError(
            f"{where}: name is 1 to 64 letters, digits, '.', '_' and '-', and not "
            f"{' or '.join(RESERVED_NAMES)}"
        )
    where = f"{where} ({name})"
    # What it may do.
    limits = {field: table[field] for field in LIMIT_FIELDS if field in table}
    for field, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise SettingsError(
                f"{where}: {field} is a whole number above 0; leave it out for none"
            )
    models = frozenset(_texts(table, "models", where)) if "models" in table else None
    pins = frozenset(_texts(table, "pins", where))
    if models is not None and not pins <= models:
        raise SettingsError(f"{where}: pins has {min(pins - models)!r}, which is not among models")
    caller = Caller(name=name, models=models, pins=pins, **limits)
    # Its credentials.
    digests, certificates = (
        _texts(table, "token_sha256", where),
        _texts(table, "certificates", where),
    )
    for texts, pattern, form in (
        (digests, TOKEN_DIGEST, "token_sha256 are SHA-256 digests, 64 hex digits in lower case"),
        (certificates, CERTIFICATE_NAME, "certificates are DNS names or URIs in lower case"),
    ):
        if not all(pattern.fullmatch(text) for text in texts):
            raise SettingsError(f"{where}: {form}")
    subject: tuple[str, str] | None = None
    if "issuer" in table or "subject" in table:
        issuer, name_there = table.get("issuer"), table.get("subject")
        if issuer not in issuers or not isinstance(name_there, str):
            raise SettingsError(f"{where}: issuer is one of [[issuers]], and subject is a text")
        subject = (issuer, name_there)
    if not (digests or certificates or subject):
        raise SettingsError(f"{where} has no token_sha256, certificates, or issuer and subject")
    return CallerEntry(
        caller=caller,
        token_sha256=digests,
        expires_unix_ns=_expiry(table, where),
        certificates=certificates,
        subject=subject,
    )


def _expiry(table: dict[str, Any], where: str) -> int | None:
    expires = table.get("expires")
    if expires is None:
        return None
    if not isinstance(expires, datetime):
        raise SettingsError(f"{where}: expires is a date and time, such as 2027-01-31T00:00:00Z")
    at = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
    return int(at.timestamp()) * 1_000_000_000


def _issuer(table: dict[str, Any], where: str, folder: Path) -> Issuer:
    names = [field.name for field in fields(Issuer)]
    _check_fields(table, names, where)
    if not all(isinstance(table.get(name), str) and table[name] for name in names):
        raise SettingsError(f"{where} needs the texts {', '.join(names)}")
    if table["algorithm"] not in ALGORITHMS:
        raise SettingsError(f"{where}: algorithm is one of {', '.join(ALGORITHMS)}")
    keys = table["keys"]
    if keys.startswith("http://") and not is_loopback(f"{urlsplit(keys).hostname}:0"):
        raise SettingsError(
            f"{where}: keys of {keys} could be exchanged on the way; use https://, or http:// of "
            "this machine"
        )
    if not keys.startswith(("https://", "http://")):
        keys = str(folder / keys)
    return Issuer(**{**table, "keys": keys})


def _refuse_repeated(entries: tuple[CallerEntry, ...], where: str) -> None:
    """Refuse a name or credential that stands twice, also in other upper and lower case."""
    for what, values in (
        ("name", [entry.caller.name.casefold() for entry in entries]),
        ("token", [digest for entry in entries for digest in entry.token_sha256]),
        ("certificate name", [name for entry in entries for name in entry.certificates]),
        ("subject", [str(entry.subject) for entry in entries if entry.subject]),
    ):
        if len(set(values)) < len(values):
            raise SettingsError(f"{where}: a {what} stands twice; each belongs to one caller")


def _tables(table: dict[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    tables = table.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise SettingsError(f"{where}: {name} are tables, [[{name}]]")
    return tables


def _texts(table: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    texts = table.get(name, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise SettingsError(f"{where}: {name} is a list of texts")
    return tuple(texts)


def _check_fields(table: dict[str, Any], known: "list[str] | tuple[str, ...]", where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise SettingsError(
            f"{where}: {unknown[0]!r} is no field; its fields are {', '.join(known)}"
        )
