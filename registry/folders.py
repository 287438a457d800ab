"""Files on disk, whole or not at all: read through one descriptor, written beside and renamed."""

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
    """Read a regular file through one descriptor: no symlink, FIFO or device, not too large."""
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
                f"{path.name} is no plain file of at most {bytes_max} bytes ({status.st_size})"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(bytes_max + 1)
    finally:
        os.close(descriptor)


def replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make *path* hold exactly *files*: written beside it, fsynced, renamed, parent fsynced.

    Raises RegistryFullError when the disk is full; *path* is then as it was.
    """
    try:
        _replace_folder(path, files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RegistryFullError(
                f"no room on the disk for {sum(map(len, files.values()))} bytes of version files; "
                "nothing was kept. Make room and try again"
            ) from error
        raise


def _replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    if _has_files(path, files):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(8)
    beside = path.parent / f".{path.name}.{mark}.new"
    beside.mkdir(mode=0o755)
    try:
        for name, content in files.items():
            with (beside / name).open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        fsync_folder(beside)
        while not _rename(beside, path) and not _has_files(path, files):
            outgoing = path.parent / f".{path.name}.{secrets.token_hex(8)}.old"
            with suppress(FileNotFoundError):  # another process was faster; look again
                path.rename(outgoing)
                shutil.rmtree(outgoing)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _rename(beside: Path, path: Path) -> bool:
    """Rename; False when a folder with something in it has the name already."""
    try:
        beside.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _has_files(path: Path, files: Mapping[str, bytes]) -> bool:
    """Whether *path* holds exactly these files: several workers may bring the same version."""
    try:
        return {entry.name for entry in path.iterdir()} == set(files) and all(
            read_regular_file(path / name, len(content)) == content
            for name, content in files.items()
        )
    except (OSError, VersionRefusedError):
        return False


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


def fsync_folder(path: Path) -> None:
    """Make a folder's names durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
