"""Service tokens: the system's own controller and gateway identify themselves with them."""

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from host.files import make_private_folder, replace_file
from turnout.errors import OperatorError

TOKEN_OWNERS = {"controller": "rollout", "gateway": "gateway"}
"""The actor's name for each role that a service token has."""


@dataclass(frozen=True, slots=True)
class ServiceTokens:
    """The files that the processes of one system get."""

    identities: Path
    """The identities file with the people's entries and those of the service tokens."""
    files: dict[str, Path]
    """By role, the file that holds its token."""


def make_service_tokens(identities: Path, folder: Path) -> ServiceTokens:
    """Make new service tokens; write them and an extended identities file to *folder*.

    identities  the people's identities file.

    Only this user can read the files. Raises OperatorError when *identities* is no identities file.
    """
    try:
        entries = json.loads(identities.read_bytes())
        if not isinstance(entries, dict):
            raise TypeError("it is no JSON object")  # noqa: TRY301  becomes an OperatorError below
    except (OSError, ValueError, TypeError) as error:
        raise OperatorError(
            f"{identities} is no identities file ({error}); docs/governance.md says what it holds"
        ) from error
    make_private_folder(folder)
    files = {}
    for role, actor in TOKEN_OWNERS.items():
        token = secrets.token_urlsafe(32)
        digest = hashlib.sha256(token.encode()).hexdigest()
        entries[digest] = {"actor": actor, "roles": [role]}
        files[role] = _write_private(folder / f"{role}.token", token)
    return ServiceTokens(
        _write_private(folder / "identities.json", json.dumps(entries, indent=1)), files
    )


def _write_private(file: Path, text: str) -> Path:
    replace_file(file, text + "\n", durable=False)
    return file
