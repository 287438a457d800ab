"""Access control: identifies callers and checks the one rule of each RPC.

An RPC without a rule is refused.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from registry.manifest import is_name
from registry.types import NotAllowedError, RegistryFaultError, UnknownActorError

AUTHOR = "author"
APPROVER = "approver"
OPERATOR = "operator"
CONTROLLER = "controller"
GATEWAY = "gateway"
ROLES = frozenset({AUTHOR, APPROVER, OPERATOR, CONTROLLER, GATEWAY})


@dataclass(frozen=True, slots=True)
class AccessRule:
    """The roles that may call an RPC. An RPC that changes something also needs an actor's name."""

    roles: frozenset[str]
    changes: bool = False


def _read() -> AccessRule:
    return AccessRule(ROLES)


def _change(*roles: str) -> AccessRule:
    return AccessRule(frozenset(roles), changes=True)


RULES: dict[str, AccessRule] = {
    "RegisterVersion": _change(AUTHOR),
    "ListModels": _read(),
    "ListVersions": _read(),
    "GetVersion": _read(),
    "FetchVersion": _read(),
    "SetStatus": _change(AUTHOR, OPERATOR),
    "Approve": _change(APPROVER),
    "ListApprovals": _read(),
    "GetDeployment": _read(),
    "Deploy": _change(OPERATOR, CONTROLLER),  # service.py lets only operators break the glass
    "WatchDeployments": _read(),
    "ReportState": AccessRule(frozenset({GATEWAY})),
    "WatchStates": _read(),
    "AcquireLease": _change(CONTROLLER),
    "SaveCheckpoint": _change(CONTROLLER),
    "LoadCheckpoint": AccessRule(frozenset({CONTROLLER})),
    "WriteFinding": _change(CONTROLLER, OPERATOR),
    "WatchFindings": _read(),
    "ListHistory": _read(),
    "ReadEntry": _read(),
    "WhoAmI": _change(*ROLES),  # it changes nothing, but needs a name to answer
}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller's actor name and roles. The name is empty for a reader without one."""

    actor: str
    roles: frozenset[str]


class Access:
    """Identifies callers by their call metadata and checks RULES.

    identities  SHA-256 (hex) of a bearer token -> its owner's identity. With None no token is
                needed: every name is believed and has every role.
    """

    def __init__(self, identities: Mapping[str, Identity] | None = None) -> None:
        self._identities = identities

    def authorise(self, rpc: str, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """Return the identity of the caller of *rpc*.

        Raises UnknownActorError without a valid name or token, NotAllowedError without the role.
        """
        texts = {name: value for name, value in metadata if isinstance(value, str)}
        identity = self._identify(texts)
        rule = RULES.get(rpc)
        if rule is None or not identity.roles & rule.roles:
            needed = " or ".join(sorted(rule.roles)) if rule else "a rule, and there is none"
            raise NotAllowedError(
                f"{rpc} needs {needed}; {identity.actor!r} is "
                f"{' and '.join(sorted(identity.roles)) or 'without a role'}"
            )
        if rule.changes and not identity.actor:
            raise UnknownActorError(
                f"{rpc} changes something, so it needs a name: send x-turnout-actor, 1 to 64 "
                "printable characters"
            )
        return identity

    def _identify(self, metadata: Mapping[str, str]) -> Identity:
        if self._identities is None:
            actor = unquote(metadata.get("x-turnout-actor", ""))
            if actor and not is_name(actor):
                raise UnknownActorError(
                    f"x-turnout-actor has {len(actor)} characters; it must have 1 to 64 printable "
                    "characters"
                )
            return Identity(actor, ROLES)
        token = metadata.get("authorization", "").removeprefix("Bearer ")
        # Tokens are compared by their hashes, so that timing reveals nothing about a guess.
        identity = self._identities.get(hashlib.sha256(token.encode()).hexdigest())
        if identity is None:
            raise UnknownActorError(
                "send authorization: Bearer <token> with a token of this registry"
            )
        return identity


def read_identities(path: Path) -> dict[str, Identity]:
    """Read a JSON file of {"<sha256 of token>": {"actor": ..., "roles": [...]}}.

    Raises RegistryFaultError for any other content. Then the registry does not start.
    """
    try:
        content = json.loads(path.read_bytes())
        identities = {
            digest: Identity(item["actor"], frozenset(item["roles"]))
            for digest, item in content.items()
        }
        wrong = [
            digest
            for digest, identity in identities.items()
            if not re.fullmatch(r"[0-9a-f]{64}", digest)
            or not is_name(identity.actor)
            or not identity.roles <= ROLES
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryFaultError(f"{path.name} is not an identities file: {error!r}") from error
    if wrong:
        raise RegistryFaultError(
            f"{path.name}: entry {wrong[0][:16]!r} needs a SHA-256 in hex, a name of 1 to 64 "
            f"printable characters, and roles among {sorted(ROLES)}"
        )
    return identities
