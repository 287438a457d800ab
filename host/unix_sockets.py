"""The kernel says who listens at a Unix socket (SO_PEERCRED), before anything is sent to it."""

import hashlib
import os
import socket
import struct
import tempfile
from pathlib import Path

from host.files import make_private_folder

SOCKET_PATH_BYTES_MAX = 100
"""A Unix socket's path has at most 107 bytes on Linux, and 103 on macOS."""
_CREDENTIALS = struct.Struct("3i")
"""Process id, user id and group id of the peer: Linux's struct ucred."""


class ForeignPeerError(ConnectionError):
    """A Unix socket is served by a user who has no business there."""


def connect_unix_socket(path: str, timeout_s: float | None = None) -> socket.socket:
    """Connect to the Unix socket at *path*, and check who listens there.

    timeout_s  for the connection and for what is read and written; None: for ever. A socket of this
               machine is connected at once or not at all, so the caller may be an event loop.

    Raises ForeignPeerError, or OSError when nobody listens.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(path)
        check_peer(connection, path)
    except OSError:
        connection.close()
        raise
    return connection


def check_peer(connection: socket.socket, path: str) -> None:
    """Check the user who listens at the other end of *connection*, which is connected to *path*.

    Raises ForeignPeerError. On other systems than Linux the rights of the folder have to do.
    """
    if hasattr(socket, "SO_PEERCRED"):
        content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(content)
        check_peer_user(user, Path(path).parent.stat().st_uid, path)


def check_peer_user(user: int, folder_owner: int, path: str) -> None:
    """Check that *user* may serve the socket at *path*, in a folder of *folder_owner*.

    These may: this process's user, root, and the owner of the folder, who decides what is in it. In
    a folder where everybody may make files, such as /tmp, only the first two. Raises
    ForeignPeerError.
    """
    allowed = {os.geteuid(), 0, folder_owner}
    if user not in allowed:
        raise ForeignPeerError(
            f"user {user} listens at {path}, and only {', '.join(map(str, sorted(allowed)))} may: "
            "this process's user, root, and the owner of the folder. Nothing was sent. Put the "
            "socket in a folder of the user who serves it"
        )


def private_socket_path(folder: Path) -> Path:
    """Return the path of `store.sock`, in a folder that only this user can enter.

    It is in *folder*, or in a folder of the temporary files where the path of *folder* is too long.
    """
    path = folder.absolute() / "store.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        make_private_folder(folder)
        return path
    # The same state folder gets the same socket, so that restarts need no clearing up.
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"turnout-{os.getuid()}-{digest}"
    short.mkdir(exist_ok=True, mode=0o700)
    status = short.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or short.is_symlink():
        raise PermissionError(f"{short} must be a folder of this user with mode 700; remove it")
    return short / "store.sock"
