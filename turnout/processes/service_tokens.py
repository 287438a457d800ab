"""Service tokens: with them the system's own processes identify themselves to the registry."""

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from access.identities import (
    CONTROLLER,
    GATEWAY,
    OBSERVER,
    READER,
    IdentitiesFileError,
    read_identities,
)
from host.files import replace_file
from turnout.errors import OperatorError

CONTROLLER_NAME = "rollout"
"""The actor's name of the system's own controller."""
FEATURES_NAME = "features"
"""The actor's name of the system's own server of pushed rows, which reads the registry's views."""


@dataclass(frozen=True, slots=True)
class ServiceTokens:
    """The files that the processes of one system get."""

    identities: tuple[Path, ...]
    """The identities files: that of the people, and that of the service tokens."""
    files: dict[str, Path]
    """By role, the file that holds its token: controller, gateway, reader and observer."""


def make_service_tokens(identities: Path, folder: Path, gateway: str) -> ServiceTokens:
    """Make new service tokens; write them and their own identities file to *folder*.

    identities  the people's identities file. It stays where it is, so that a change of it counts.
    gateway     name of the system's gateway, which is the actor of the gateway's token.

    Only this user can read the files. Raises OperatorError when *identities* is no identities file.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    entries, files = {}, {}
    for role, actor in (
        (CONTROLLER, CONTROLLER_NAME),
        (GATEWAY, gateway),
        (READER, FEATURES_NAME),
    ):
        token = secrets.token_urlsafe(32)
        digest = hashlib.sha256(token.encode()).hexdigest()
        entries[digest] = {"actor": actor, "roles": [role]}
        files[role] = _write_private(folder / f"{role}.token", token)
    # The gateway's supervisor knows the observer by the token itself.
    files[OBSERVER] = _write_private(folder / f"{OBSERVER}.token", secrets.token_urlsafe(32))
    services = _write_private(folder / "services.json", json.dumps(entries, indent=1))
    try:
        read_identities((identities, services))
    except IdentitiesFileError as error:
        raise OperatorError(
            f"{identities} cannot be used ({error}); docs/governance.md says what it holds"
        ) from error
    return ServiceTokens((identities.absolute(), services), files)


def trust_note(identities: Path | None) -> str:
    """Return what a system with this identities file, or without one, means for its callers."""
    if identities is None:
        return (
            "No identities: every name is believed, so whoever reaches these ports on this machine "
            "may approve, deploy and roll back. `turnout up --identities FILE` asks for tokens."
        )
    return (
        f"Identities of {identities.name}: who reads or changes the registry and the rollouts "
        "needs a token of that file, and who reads the metrics that of tokens/observer.token."
    )


def _write_private(file: Path, text: str) -> Path:
    replace_file(file, text + "\n", durable=False)
    return file
