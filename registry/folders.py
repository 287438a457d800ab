"""Reads untrusted files safely, replaces folders atomically, and locks a folder for a process."""

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from host.files import UnreadableFileError, read_regular_file, replace_folder
from registry.types import (
    RegistryFaultError,
    RegistryFullError,
    RegistryUnavailableError,
    VersionRefusedError,
)


def read_version_file(path: Path, bytes_max: int) -> bytes:
    """Return the content of a regular file of at most *bytes_max* bytes.

    Raises VersionRefusedError for a symlink, FIFO, device or larger file.
    """
    try:
        return read_regular_file(path, bytes_max)
    except UnreadableFileError as error:
        raise VersionRefusedError(str(error)) from error


def replace_version_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder *path* hold exactly *files*, durably and atomically.

    Raises RegistryFullError when the disk is full. Then *path* is unchanged.
    """
    try:
        replace_folder(path, files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RegistryFullError(
                f"the disk has no room for {sum(map(len, files.values()))} bytes of version files; "
                "nothing was written. Make room and try again"
            ) from error
        raise


DATABASE = "registry.sqlite"
SNAPSHOT = "history.snapshot"
KEY_FILES = ("keys/registry.ed25519", "keys/prediction_id.key")


def check_registry_folder(folder: Path) -> None:
    """Refuse a registry's folder of which a part is missing. A new folder has none.

    Raises RegistryFaultError. To make the part anew would hide that it is missing: a new key
    cannot prove what the old one signed, and makes every prediction id invalid.
    """
    database = folder / DATABASE
    has_database = database.is_file() and database.stat().st_size > 0
    versions = folder / "versions"
    has_versions = versions.is_dir() and any(versions.iterdir())
    if not has_database:
        if has_versions or (folder / SNAPSHOT).exists():
            raise RegistryFaultError(
                f"the folder {folder.name!r} has versions or {SNAPSHOT}, and {DATABASE} is missing "
                "or empty. Put the database back from a copy; or move what is left away, and "
                "begin a new registry"
            )
        return
    missing = [name for name in KEY_FILES if not (folder / name).exists()]
    if missing:
        raise RegistryFaultError(
            f"{missing[0]} is missing beside {DATABASE}. Put it back from a copy. If it is lost, "
            "this history cannot be continued: move the folder away, begin a new registry, and "
            "register and approve the versions again"
        )
    if not versions.is_dir():
        raise RegistryFaultError(
            f"the folder versions is missing beside {DATABASE}. Put it back from a copy, or make "
            "an empty one if the registry has no versions"
        )


class FolderLock:
    """A lock file that one process holds. The kernel releases it when the process ends.

    Raises RegistryUnavailableError when another process holds the lock.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise RegistryUnavailableError(
                f"another registry serves the folder {path.parent.name!r}, and only one process "
                "may write to it; stop that registry first"
            ) from error

    def release(self) -> None:
        """Release the lock for other processes."""
        os.close(self._descriptor)
