"""Identities: who a bearer token belongs to, what roles its owner has, and until when.

An identities file is JSON: {"<SHA-256 of the token, hex>": {"actor": "bob", "roles": ["approver"],
"expires": "2027-01-31"}}. "expires" may be left out.
"""

import hashlib
import json
import logging
import math
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

log = logging.getLogger(__name__)

AUTHOR = "author"
APPROVER = "approver"
OPERATOR = "operator"
CONTROLLER = "controller"
GATEWAY = "gateway"
READER = "reader"
PUSHER = "pusher"
MONITORING = "monitoring"
AUDITOR = "auditor"
ROLES = frozenset(
    {AUTHOR, APPROVER, OPERATOR, CONTROLLER, GATEWAY, READER, PUSHER, MONITORING, AUDITOR}
)
"""The roles that an identities file may give."""
CALLER = "caller"
"""The role of a program that asks a gateway for predictions. The gateway gives it."""
OBSERVER = "observer"
"""The role of a reader of the supervisor's pages."""

ACTOR_CHARS_MAX = 64
REREAD_S = 1.0
"""Shortest time between two looks at whether an identities file has changed."""


class UnidentifiedError(Exception):
    """The caller gave no name or no valid token."""


class ForbiddenError(Exception):
    """The caller does not have the role that the method needs, or speaks for another gateway."""


class IdentitiesFileError(Exception):
    """A file is not an identities file. The message names the file and the entry."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller's actor name and roles. The name is empty for a reader without one."""

    actor: str
    roles: frozenset[str]
    proven: bool = False
    """Whether a token proves the actor. Without an identities file every name is believed."""
    expires_unix_s: float = math.inf

    def check_speaks_for(self, gateway: str) -> None:
        """Raise ForbiddenError unless the caller is *gateway*, whose name its token has as actor.

        Without an identities file every caller speaks for every gateway.
        """
        if self.proven and (GATEWAY not in self.roles or self.actor != gateway):
            raise ForbiddenError(
                f"{self.actor!r} is {' and '.join(sorted(self.roles))}; only a token with the role "
                f"{GATEWAY} and the actor {gateway[:ACTOR_CHARS_MAX]!r} speaks for that gateway"
            )


BELIEVED_ROLES = ROLES | {CALLER, OBSERVER}
"""What a caller may do where there is no identities file."""


class IdentitiesFiles:
    """The identities of one or more files, which are read again when they change.

    A change that cannot be read is logged, and the last good content stays.

    unix_s       clock for the end of a token's time.
    monotonic_s  clock for the looks at the files.

    Raises IdentitiesFileError when a file cannot be read at the start.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        unix_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = tuple(files)
        self._unix_s = unix_s
        self._monotonic_s = monotonic_s
        self._signatures = [_signature(file) for file in self._files]
        self._identities = read_identities(self._files)
        self._looked_s = monotonic_s()

    def identify(self, token: str) -> Identity:
        """Return the owner of *token*. Raises UnidentifiedError if it is unknown or expired."""
        self._read_again_if_changed()
        # Tokens are compared by their hashes, so that timing reveals nothing about a guess.
        identity = self._identities.get(hashlib.sha256(token.encode()).hexdigest())
        if identity is None:
            raise UnidentifiedError(
                "this token is not known here; send authorization: Bearer <token> with a token of "
                "the identities file"
            )
        if identity.expires_unix_s <= self._unix_s():
            expired = datetime.fromtimestamp(identity.expires_unix_s, UTC).isoformat()
            raise UnidentifiedError(
                f"the token of {identity.actor!r} expired at {expired}; ask for a new one"
            )
        return identity

    def _read_again_if_changed(self) -> None:
        now_s = self._monotonic_s()
        if now_s - self._looked_s < REREAD_S:
            return
        self._looked_s = now_s
        signatures = [_signature(file) for file in self._files]
        if signatures == self._signatures:
            return
        self._signatures = signatures
        try:
            self._identities = read_identities(self._files)
        except IdentitiesFileError as error:
            log.warning("IDENTITIES NOT READ, the last good ones stay in force: %s", error)
        else:
            log.info("identities read again: %d tokens", len(self._identities))


def _signature(file: Path) -> tuple[int, int, int] | None:
    """Return what changes when the file is written; None: there is no such file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_identities(files: Iterable[Path]) -> dict[str, Identity]:
    """Read identities files and return SHA-256 of a token (hex) -> its owner.

    Raises IdentitiesFileError for any other content, for one token in two files, and for two
    actors whose names look alike.
    """
    identities: dict[str, Identity] = {}
    names: dict[str, str] = {}
    for file in files:
        for digest, item in _read_entries(file).items():
            identity = _identity(file, digest, item)
            if digest in identities:
                raise IdentitiesFileError(f"{file.name}: token {digest[:16]!r} is in another file")
            # Two spellings of one name could approve each other's versions.
            folded = unicodedata.normalize("NFKC", identity.actor).casefold()
            other = names.setdefault(folded, identity.actor)
            if other != identity.actor:
                raise IdentitiesFileError(
                    f"{file.name}: the actors {other!r} and {identity.actor!r} look alike; write "
                    "one person's name in one way, and give two people different names"
                )
            identities[digest] = identity
    return identities


def _read_entries(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise IdentitiesFileError(f"{file.name} is not an identities file: {error!r}") from error
    if not isinstance(content, dict):
        raise IdentitiesFileError(f"{file.name} is not an identities file: it is no JSON object")
    return content


def _identity(file: Path, digest: str, item: Any) -> Identity:  # noqa: ANN401  any JSON
    try:
        identity = Identity(
            item["actor"],
            frozenset(item["roles"]),
            proven=True,
            expires_unix_s=_expiry(item.get("expires")),
        )
        right = (
            re.fullmatch(r"[0-9a-f]{64}", digest) is not None
            and is_actor(identity.actor)
            and isinstance(item["roles"], list)
            and identity.roles <= ROLES
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise IdentitiesFileError(f"{file.name}: entry {digest[:16]!r}: {error!r}") from error
    if not right:
        raise IdentitiesFileError(
            f"{file.name}: entry {digest[:16]!r} needs a SHA-256 in hex, a name of 1 to "
            f"{ACTOR_CHARS_MAX} printable characters, and a list of roles among {sorted(ROLES)}"
        )
    return identity


def _expiry(text: str | None) -> float:
    """Return the Unix time of an ISO date (its first instant) or time; without a zone it is UTC."""
    if text is None:
        return math.inf
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_actor(name: str) -> bool:
    """Return True if *name* is a valid actor name: 1 to 64 printable characters, not padded."""
    return 0 < len(name) <= ACTOR_CHARS_MAX and name.isprintable() and name == name.strip()


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the token in the metadata of a call. Raises UnidentifiedError if there is none."""
    values = [value for name, value in metadata if name == "authorization"]
    if len(values) > 1:
        raise UnidentifiedError(
            f"authorization was sent {len(values)} times; send authorization: Bearer <token> once"
        )
    value = values[0] if values else ""
    if not isinstance(value, str) or not value.startswith("Bearer ") or value == "Bearer ":
        raise UnidentifiedError(
            "send authorization: Bearer <token> with a token of the identities file"
        )
    return value.removeprefix("Bearer ")


def believed_identity(metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
    """Return the identity that a caller claims, where there is no identities file.

    Raises UnidentifiedError if x-turnout-actor is no name.
    """
    claims = [str(value) for name, value in metadata if name == "x-turnout-actor"]
    actor = unquote(claims[-1]) if claims else ""
    if actor and not is_actor(actor):
        raise UnidentifiedError(
            f"x-turnout-actor has {len(actor)} characters; it must have 1 to {ACTOR_CHARS_MAX} "
            "printable characters"
        )
    return Identity(actor, BELIEVED_ROLES)
