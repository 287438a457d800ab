"""Reads untrusted files safely, replaces folders atomically, and locks a folder for a process."""

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from host.files import UnreadableFileError, read_regular_file, replace_folder
from registry.types import RegistryFullError, RegistryUnavailableError, VersionRefusedError


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
