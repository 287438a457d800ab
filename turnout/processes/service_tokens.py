"""Tokens for the system's own parts, beside the people of an identities file."""

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from host.files import replace_file
from turnout.errors import OperatorError

TOKEN_OWNERS = {"controller": "rollout", "gateway": "gateway"}
"""Role -> actor."""


@dataclass(frozen=True, slots=True)
class ServiceTokens:
    """What is handed to the parts of one system."""

    identities: Path
    """The people's, and the parts' beside them."""
    files: dict[str, Path]
    """Role -> the file that holds its token."""


def make_service_tokens(identities: Path, folder: Path) -> ServiceTokens:
    """Draw a token for each part, and write it and the whole identities file under *folder*.

    Drawn anew at each start; readable by the owner alone. OperatorError when *people* is no
    identities file.
    """
    try:
        told = json.loads(identities.read_bytes())
        if not isinstance(told, dict):
            raise TypeError("it is no object")  # noqa: TRY301  said below, with the way out
    except (OSError, ValueError, TypeError) as error:
        raise OperatorError(
            f"{identities} is no identities file ({error}); docs/governance.md says what it holds"
        ) from error
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = {}
    for role, actor in TOKEN_OWNERS.items():
        token = secrets.token_urlsafe(32)
        digest = hashlib.sha256(token.encode()).hexdigest()
        told[digest] = {"actor": actor, "roles": [role]}
        files[role] = _write_private(folder / f"{role}.token", token)
    return ServiceTokens(
        _write_private(folder / "identities.json", json.dumps(told, indent=1)), files
    )


def _write_private(file: Path, text: str) -> Path:
    replace_file(file, text + "\n", mode=0o600, durable=False)
    return file
