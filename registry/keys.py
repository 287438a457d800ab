"""The registry's two secret keys. Each is a file that only its owner may read, made once."""

import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.files import create_file_once, take_group_rights
from registry.types import RegistryFaultError

KEY_BYTES = 32


def signing_key(folder: Path) -> Ed25519PrivateKey:
    """Return the Ed25519 key that signs versions and the history's head; make it at first use.

    Raises RegistryFaultError when all users can read the file, or when it was cut.
    """
    return Ed25519PrivateKey.from_private_bytes(_read_or_make_secret(folder / "registry.ed25519"))


def prediction_id_key(folder: Path) -> bytes:
    """Return the 32-byte key with which gateways seal prediction ids; make it at first use.

    Raises RegistryFaultError when all users can read the file, or when it was cut.
    """
    return _read_or_make_secret(folder / "prediction_id.key")


def _read_or_make_secret(path: Path) -> bytes:
    create_file_once(path, secrets.token_bytes(KEY_BYTES))
    # A key that all could read, or that was cut, must not be used.
    if not take_group_rights(path):
        raise RegistryFaultError(
            f"{path} has mode {path.stat().st_mode & 0o777:o}, so all users could read it; it must "
            "be 600. Make a new key and sign again"
        )
    content = path.read_bytes()
    if len(content) != KEY_BYTES:
        raise RegistryFaultError(
            f"{path} has {len(content)} bytes; a key has {KEY_BYTES}. Put the key of a backup back"
        )
    return content
