"""Identities files for tests, and the metadata of their owners' calls."""

import hashlib
import json
from pathlib import Path


def write_identities(
    path: Path, expires: dict[str, str] | None = None, /, **roles: list[str]
) -> Path:
    """Write an identities file in which each person's token is the name and `-token`.

    expires  person -> the end of the token's time, as the file has it.
    """
    entries: dict[str, dict[str, object]] = {}
    for actor, names in roles.items():
        entry: dict[str, object] = {"actor": actor, "roles": names}
        if expires and actor in expires:
            entry["expires"] = expires[actor]
        entries[hashlib.sha256(f"{actor}-token".encode()).hexdigest()] = entry
    path.write_text(json.dumps(entries))
    return path


def bearer_metadata(actor: str) -> list[tuple[str, str | bytes]]:
    """Metadata with the person's token, and another name that must be ignored."""
    return [("authorization", f"Bearer {actor}-token"), ("x-turnout-actor", "root")]
