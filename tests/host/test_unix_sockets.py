"""A socket of another user gets nothing, whatever the rights of its file are."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from host.unix_sockets import ForeignPeerError, check_peer_user, connect_unix_socket

NOBODY = 65_534
LISTEN_AS = """
import os, socket, sys
path, user = sys.argv[1], int(sys.argv[2])
os.setuid(user)
os.umask(0)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    print(len(connection.recv(100)), flush=True)
"""


@contextmanager
def served_by(user: int, path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Let a process of *user* listen at *path*; it prints how many bytes each connection sends."""
    command = [sys.executable, "-c", LISTEN_AS, str(path), str(user)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process
        finally:
            process.kill()


def test_socket_of_this_user_is_connected(tmp_path: Path) -> None:
    """The usual case: the store of `turnout up`."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "own.sock"))
        listener.listen()
        with connect_unix_socket(str(tmp_path / "own.sock"), 1.0) as connection:
            assert connection.gettimeout() == 1.0


def test_only_certain_users_may_serve_a_socket() -> None:
    """They are this process's user, root, and the owner of the folder."""
    me, redis, stranger = os.geteuid(), 4_001, 4_002
    for user, owner in ((me, 0), (0, stranger), (redis, redis)):
        check_peer_user(user, owner, "/run/redis/redis.sock")
    for owner in (me, 0, redis):
        with pytest.raises(ForeignPeerError, match=r"user 4002 listens at /x/s.* Nothing was sent"):
            check_peer_user(stranger, owner, "/x/s")


@pytest.mark.walk
def test_socket_that_another_user_has_bound_gets_no_byte() -> None:
    """Another user binds the name in a folder where everybody may, such as /tmp."""
    if os.geteuid() != 0:
        # Only root can become another user. The kernel's answer is the same for a made-up one.
        with pytest.raises(ForeignPeerError):
            check_peer_user(NOBODY, os.geteuid(), "/x/s")
        return
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        _expect_no_byte(Path(folder) / "store.sock")


def _expect_no_byte(path: Path) -> None:
    with served_by(NOBODY, path) as process:
        with pytest.raises(ForeignPeerError, match=f"user {NOBODY} listens"):
            connect_unix_socket(str(path), 1.0)
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
