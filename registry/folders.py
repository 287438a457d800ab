"""Reads untrusted files safely, replaces folders atomically, and locks a folder for a process."""

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from registry.types import RegistryFullError, RegistryUnavailableError, VersionRefusedError


def read_regular_file(path: Path, bytes_max: int) -> bytes:
    """Return the content of a regular file of at most *bytes_max* bytes.

    The file is checked and read through one descriptor, so that it cannot be exchanged meanwhile.
    Raises VersionRefusedError for a symlink, FIFO, device or larger file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise VersionRefusedError(
            f"{path.name} is a link or cannot be opened: {error.strerror}"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > bytes_max:
            raise VersionRefusedError(
                f"{path.name} is no plain file of at most {bytes_max} bytes; it has "
                f"{status.st_size}"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(bytes_max + 1)
    finally:
        os.close(descriptor)


def replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder *path* hold exactly *files*, durably and atomically.

    Raises RegistryFullError when the disk is full. Then *path* is unchanged.
    """
    try:
        _replace_folder(path, files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RegistryFullError(
                f"the disk has no room for {sum(map(len, files.values()))} bytes of version files; "
                "nothing was written. Make room and try again"
            ) from error
        raise


def _replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    if _has_files(path, files):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Write a folder beside the old one.
    new_folder = path.parent / f".{path.name}.{secrets.token_hex(8)}.new"
    new_folder.mkdir(mode=0o755)
    try:
        for name, content in files.items():
            with (new_folder / name).open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        fsync_folder(new_folder)
        # Move the old folder away, until the new one gets the name or another process wrote it.
        while not _rename(new_folder, path) and not _has_files(path, files):
            old_folder = path.parent / f".{path.name}.{secrets.token_hex(8)}.old"
            with suppress(FileNotFoundError):
                path.rename(old_folder)
                shutil.rmtree(old_folder)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(new_folder, ignore_errors=True)


def _rename(folder: Path, path: Path) -> bool:
    """Rename *folder* to *path*; return False when *path* is a folder that is not empty."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _has_files(path: Path, files: Mapping[str, bytes]) -> bool:
    """Return True if *path* holds exactly *files*. Another worker may have written them."""
    try:
        return {entry.name for entry in path.iterdir()} == set(files) and all(
            read_regular_file(path / name, len(content)) == content
            for name, content in files.items()
        )
    except (OSError, VersionRefusedError):
        return False


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


def fsync_folder(path: Path) -> None:
    """Write the folder's list of names to disk, so that renames survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
