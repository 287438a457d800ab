"""Ways in which a real store, or the network to it, fails; each ends as it began."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager

import redis

from features.online.store_server import StoreServer
from features.online.store_url import parse_store_url
from tests.features.online.network_proxy import NetworkProxy, network_proxy_to
from tests.servers import redis_server
from tests.walks.gateway_with_store import GatewayWithStore, gateway_with_store, write_customer_rows

Outage = Callable[["FailingStore"], AbstractAsyncContextManager[None]]


class FailingStore:
    """A real, filled store behind a proxy."""

    def __init__(self, server: StoreServer, proxy: NetworkProxy, until_the_end: ExitStack) -> None:
        self.server = server
        self.proxy = proxy
        self.exit_stack = until_the_end

    @property
    def pid(self) -> int:
        """The store's."""
        assert self.server.pid is not None
        return self.server.pid

    async def execute(self, *command: object) -> None:
        """Say something to the store itself, past the proxy."""
        await asyncio.to_thread(_execute, self.server.url, command)


def _execute(url: str, command: tuple[object, ...]) -> None:
    with redis.Redis.from_url(url) as client:
        client.execute_command(*command)


@asynccontextmanager
async def killed(store: FailingStore) -> AsyncIterator[None]:
    """Kill -9; a new one on the same port, filled, at the end."""
    child = store.server.process
    assert child is not None
    port = parse_store_url(store.server.url).port
    child.kill()
    await asyncio.to_thread(child.wait)
    yield
    await asyncio.to_thread(store.exit_stack.enter_context, redis_server(port))
    await asyncio.to_thread(write_customer_rows, store.server.url)


@asynccontextmanager
async def stopped(store: FailingStore) -> AsyncIterator[None]:
    """SIGSTOP."""
    os.kill(store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pid, signal.SIGCONT)


@asynccontextmanager
async def paused(store: FailingStore) -> AsyncIterator[None]:
    """CLIENT PAUSE: connections stand, nothing is executed, not even CLIENT UNPAUSE."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + 2.0
    await store.execute("CLIENT", "PAUSE", 2_000, "ALL")
    yield
    await asyncio.sleep(ends - loop.time())


def delayed(seconds: float) -> Outage:
    """Each reply that much later."""

    @asynccontextmanager
    async def harm(place: FailingStore) -> AsyncIterator[None]:
        place.proxy.delay_s = seconds
        yield
        place.proxy.delay_s = 0.0
        place.proxy.reset_connections()

    return harm


@asynccontextmanager
async def swallowed_replies(store: FailingStore) -> AsyncIterator[None]:
    """The network swallows everything and closes nothing."""
    store.proxy.swallow = True
    yield
    store.proxy.swallow = False


@asynccontextmanager
async def cut_replies(store: FailingStore) -> AsyncIterator[None]:
    """RST in the middle of every reply."""
    store.proxy.cut_after_bytes = 3
    yield
    store.proxy.cut_after_bytes = 0


@asynccontextmanager
async def password_required(store: FailingStore) -> AsyncIterator[None]:
    """A password that we do not have, and our connection closed: -NOAUTH."""
    await store.execute("CONFIG", "SET", "requirepass", "secret")
    store.proxy.reset_connections()
    yield
    with redis.Redis.from_url(store.server.url, password="secret") as client:
        client.config_set("requirepass", "")


@asynccontextmanager
async def reads_forbidden(store: FailingStore) -> AsyncIterator[None]:
    """-NOPERM: we may connect and not read."""
    await store.execute("ACL", "SETUSER", "default", "-mget")
    yield
    await store.execute("ACL", "SETUSER", "default", "+mget")


@asynccontextmanager
async def replica_without_master(store: FailingStore) -> AsyncIterator[None]:
    """-MASTERDOWN: a replica without its master that may not serve what it has."""
    await store.execute("CONFIG", "SET", "replica-serve-stale-data", "no")
    await store.execute("REPLICAOF", "127.0.0.1", 1)
    yield
    await store.execute("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def too_many_clients(store: FailingStore) -> AsyncIterator[None]:
    """Maxclients: somebody else took our connection."""
    with redis.Redis.from_url(store.server.url) as other:
        other.config_set("maxclients", 1)
        store.proxy.reset_connections()
        other.ping()
        yield
        other.config_set("maxclients", 100)


OUTAGES: dict[str, Outage] = {
    "killed": killed,
    "stopped": stopped,
    "paused": paused,
    "100 ms late": delayed(0.1),
    "5 s late": delayed(5.0),
    "half open": swallowed_replies,
    "cut": cut_replies,
    "NOAUTH": password_required,
    "NOPERM": reads_forbidden,
    "MASTERDOWN": replica_without_master,
    "maxclients": too_many_clients,
}


@asynccontextmanager
async def gateway_through_proxy(
    store: StoreServer, **policy: object
) -> AsyncIterator[tuple[FailingStore, GatewayWithStore]]:
    """A gateway that reads *store* through a proxy."""
    with ExitStack() as stack:
        async with (
            network_proxy_to(store.url) as proxy,
            gateway_with_store(proxy.url, **policy) as gateway,
        ):
            yield FailingStore(store, proxy, stack), gateway
