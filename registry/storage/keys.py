"""The registry's two secrets, each a file only its owner may read, made once and never changed."""

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.files import fsync_folder
from registry.types import RegistryFaultError

KEY_BYTES = 32


def signing_key(folder: Path) -> Ed25519PrivateKey:
    """The Ed25519 key that signs versions and the history's head; made at first use."""
    return Ed25519PrivateKey.from_private_bytes(_read_or_make_secret(folder / "registry.ed25519"))


def prediction_id_key(folder: Path) -> bytes:
    """The 32 bytes that gateways MAC prediction ids with; made at first use."""
    return _read_or_make_secret(folder / "prediction_id.key")


def _read_or_make_secret(path: Path) -> bytes:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        beside = path.with_suffix(f".{secrets.token_hex(4)}.new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(descriptor)
        try:
            # A link fails where the file exists: of two processes at first start, one wins.
            path.hardlink_to(beside)
        except FileExistsError:
            pass
        finally:
            beside.unlink()
        fsync_folder(path.parent)
    mode = path.stat().st_mode & 0o777
    content = path.read_bytes()
    if mode & 0o077 or len(content) != KEY_BYTES:
        raise RegistryFaultError(
            f"{path.name} has mode {mode:o} and {len(content)} bytes; it must be 600 and "
            f"{KEY_BYTES}. If others could read it, make a new key and sign again"
        )
    return content
