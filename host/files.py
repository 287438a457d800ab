"""Atomic replacement of files and folders: a reader sees the old content or the new content.

Content is written beside its target, under a name that begins with a dot and that no other process
uses, and is then renamed. After a crash the target is as it was, and a file beside it may be left.
A *durable* replacement also survives a power cut: the content is fsynced before the rename, and
the parent folder after it.
"""

import errno
import fcntl
import json
import logging
import os
import secrets
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<Q")


class UnreadableFileError(Exception):
    """A path is not a regular file that may be read, or it is too large."""


def read_regular_file(path: Path, bytes_max: int) -> bytes:
    """Read all of a file through one descriptor, so that it cannot be replaced in between.

    Raises UnreadableFileError when *path* is a symbolic link, a FIFO, a device or a folder, when
    it cannot be opened, and when it has more than *bytes_max* bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UnreadableFileError(
            f"{path.name} is a link or cannot be opened: {error.strerror}"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > bytes_max:
            raise UnreadableFileError(
                f"{path.name} is no plain file of at most {bytes_max} bytes ({status.st_size})"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(bytes_max + 1)
    finally:
        os.close(descriptor)


def keep_files_private() -> None:
    """Let only this user use the files, folders and Unix sockets that this process makes.

    The processes that it starts inherit this. Each program of a host calls it first.
    """
    os.umask(0o077)


def make_private_folder(path: Path) -> None:
    """Make a folder that only this user may enter. One that is there loses the others' rights.

    Logs a warning when the folder belongs to another user, so that its rights stay.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        try:
            path.chmod(mode & 0o700)
        except PermissionError as error:
            log.warning("%s has mode %o, and others may read it: %s", path, mode, error)


def take_group_rights(path: Path) -> bool:
    """Take the group's rights of a secret file away. False: all users have rights, so it is known.

    Kubernetes (fsGroup) and a restore give group rights. Logs a warning, because members of the
    group could have read the file; when it belongs to another user, the rights stay.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o007:
        return False
    if mode & 0o070:
        left = "they are taken away"
        try:
            path.chmod(mode & 0o700)
        except PermissionError:
            left = "they stay, because the file belongs to another user"
        log.warning("%s has mode %o: its group has rights; %s", path, mode, left)
    return True


def replace_file(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Make the file *path* hold exactly *content*; text is written as UTF-8.

    Only this user may read the new file, whatever the old file's permissions were.

    durable  False for a file that is worthless after a power cut: nothing is fsynced.

    Raises OSError when the disk refuses; *path* is then as it was.
    """
    beside = _path_beside(path, "part")
    data = content.encode() if isinstance(content, str) else content
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            if durable:
                os.fsync(descriptor)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def create_file_once(path: Path, content: bytes) -> None:
    """Make the file *path* with *content*, durably, unless it is there already.

    Of several processes that do this at once, one makes the file and all see its content. Missing
    parents are made for their owner alone.
    """
    make_private_folder(path.parent)
    if path.exists():
        return
    # A lock, because not every file system has hard links or a rename that never replaces.
    with folder_lock(path.parent):
        if not path.exists():
            replace_file(path, content)


@contextmanager
def replacing_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside *path* for a library to write; it replaces *path* when the body returns.

    When the body raises, *path* stays as it was and the file beside it is removed.
    """
    beside = _path_beside(path, "part")
    try:
        yield beside
        if durable:
            _fsync_file(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def write_new_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write *files*, by their paths below *path*, into a folder that is not there yet.

    A crash leaves no folder *path*. Missing parents are made.

    Raises FileExistsError when *path* is there, and OSError when the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _path_beside(path, "new")
    try:
        for name, content in files.items():
            file = beside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        # A rename would replace an empty folder.
        if path.exists():
            raise FileExistsError(path)
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder *path* hold exactly *files* (name to content), durably.

    Several processes may write the same files to the same *path* at once: all of them succeed. A
    folder that already has exactly these files is not touched. Missing parents are made.

    Raises OSError when the disk refuses; *path* is then as it was.
    """
    if _folder_holds(path, files):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _path_beside(path, "new")
    beside.mkdir(mode=0o700)
    try:
        for name, content in files.items():
            descriptor = os.open(
                beside / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
        fsync_folder(beside)
        # A rename replaces an empty folder only, so a full one is moved away first. Another
        # process may put one there in between; if it holds the same files, the work is done.
        while not _rename_folder(beside, path) and not _folder_holds(path, files):
            outgoing = _path_beside(path, "old")
            with suppress(FileNotFoundError):  # another process moved it away
                path.rename(outgoing)
                shutil.rmtree(outgoing)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable: files created, renamed or removed in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of an existing folder (flock), and yield whether it is held.

    The kernel releases it when the process ends, however it ends. It keeps out only processes that
    take it too.

    shared  several processes may hold it at once, while no process holds it alone.
    wait    False yields False at once when another process holds it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        held = True
        try:
            fcntl.flock(descriptor, operation if wait else operation | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(descriptor)


def _path_beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.{suffix}")


def _fsync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _rename_folder(source: Path, target: Path) -> bool:
    """Rename; False when *target* is a folder with something in it."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _folder_holds(path: Path, files: Mapping[str, bytes]) -> bool:
    try:
        return {entry.name for entry in path.iterdir()} == set(files) and all(
            read_regular_file(path / name, len(content)) == content
            for name, content in files.items()
        )
    except (OSError, UnreadableFileError):
        return False


def anonymous_file(name: str) -> int:
    """Return the descriptor of an empty file without a path; the caller closes it.

    It is in memory where the system can do that (Linux), so that no folder for temporary files is
    needed. *name* is for people who look at a process's descriptors.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def pack_files(files: Mapping[str, bytes]) -> int:
    """Return a descriptor of an anonymous file that holds *files*; the caller closes it.

    A child process that is given it gets the bytes that its parent has, and not what the disk holds
    by then. Layout: little-endian u64 length, that many bytes of JSON {name: size}, the files in
    that order.
    """
    names = json.dumps({name: len(content) for name, content in files.items()}).encode()
    descriptor = anonymous_file("turnout-files")
    with os.fdopen(descriptor, "wb", closefd=False) as packed:
        for part in (_LENGTH.pack(len(names)), names, *files.values()):
            packed.write(part)
    return descriptor


def unpack_files(descriptor: int) -> dict[str, bytes]:
    """Return the files that pack_files wrote; *descriptor* stays open."""
    with os.fdopen(os.dup(descriptor), "rb") as packed:
        packed.seek(0)
        (length,) = _LENGTH.unpack(packed.read(_LENGTH.size))
        sizes: dict[str, int] = json.loads(packed.read(length))
        return {name: packed.read(size) for name, size in sizes.items()}
