"""Files on disk, whole or not at all: read through one descriptor, written beside and renamed."""

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from host.files import UnreadableFileError, read_regular_file, replace_folder
from registry.types import RegistryFullError, RegistryUnavailableError, VersionRefusedError


def read_version_file(path: Path, bytes_max: int) -> bytes:
    """Read a regular file whole; VersionRefusedError when it is none or has more bytes."""
    try:
        return read_regular_file(path, bytes_max)
    except UnreadableFileError as error:
        raise VersionRefusedError(str(error)) from error


def replace_version_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make *path* hold exactly *files*, durably (host.files.replace_folder).

    Raises RegistryFullError when the disk is full; *path* is then as it was.
    """
    try:
        replace_folder(path, files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RegistryFullError(
                f"no room on the disk for {sum(map(len, files.values()))} bytes of version files; "
                "nothing was kept. Make room and try again"
            ) from error
        raise


class FolderLock:
    """One process owns a folder while this is open; a killed owner's lock falls with it."""

    def __init__(self, path: Path) -> None:
        """Raises RegistryUnavailableError when another process has it."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise RegistryUnavailableError(
                f"another registry serves the folder {path.parent.name!r}, and two would be two "
                "truths; stop that one first"
            ) from error

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._descriptor)
