"""Outages of a real store or of the network to it. Each restores the store at its end."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager

import redis

from features.online.store_server import StoreServer
from features.online.store_url import parse_store_url
from tests.features.online.network_proxy import NetworkProxy, network_proxy_to
from tests.processor_waits import ProcessorClock
from tests.servers import redis_server
from tests.walks.gateway_with_store import GatewayWithStore, gateway_with_store, write_customer_rows

Outage = Callable[["FailingStore"], AbstractAsyncContextManager[None]]


class FailingStore:
    """A real, filled store behind a network proxy."""

    def __init__(self, server: StoreServer, proxy: NetworkProxy, exit_stack: ExitStack) -> None:
        self.server = server
        self.proxy = proxy
        self.exit_stack = exit_stack

    @property
    def pid(self) -> int:
        """The process id of the store."""
        assert self.server.pid is not None
        return self.server.pid

    async def execute(self, *command: object) -> None:
        """Execute a command on the store itself, not through the proxy."""
        await asyncio.to_thread(_execute, self.server.url, command)


def _execute(url: str, command: tuple[object, ...]) -> None:
    with redis.Redis.from_url(url) as client:
        client.execute_command(*command)


@asynccontextmanager
async def killed(store: FailingStore) -> AsyncIterator[None]:
    """Kill the store; at the end start a filled one on the same port."""
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
    """Stop the store by SIGSTOP; continue it at the end."""
    os.kill(store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pid, signal.SIGCONT)


@asynccontextmanager
async def paused(store: FailingStore) -> AsyncIterator[None]:
    """CLIENT PAUSE for 2 s: connections stay, and no command runs, not even CLIENT UNPAUSE."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + 2.0
    await store.execute("CLIENT", "PAUSE", 2_000, "ALL")
    yield
    await asyncio.sleep(ends - loop.time())


def delayed(seconds: float) -> Outage:
    """Return an outage in which each reply comes *seconds* later."""

    @asynccontextmanager
    async def outage(store: FailingStore) -> AsyncIterator[None]:
        store.proxy.delay_s = seconds
        yield
        store.proxy.delay_s = 0.0
        store.proxy.reset_connections()

    return outage


@asynccontextmanager
async def swallowed_replies(store: FailingStore) -> AsyncIterator[None]:
    """The network drops all bytes and closes no connection."""
    store.proxy.swallow = True
    yield
    store.proxy.swallow = False


@asynccontextmanager
async def cut_replies(store: FailingStore) -> AsyncIterator[None]:
    """The network resets the connection in the middle of every reply."""
    store.proxy.cut_after_bytes = 3
    yield
    store.proxy.cut_after_bytes = 0


@asynccontextmanager
async def password_required(store: FailingStore) -> AsyncIterator[None]:
    """The store requires a password that the reader does not have: -NOAUTH."""
    await store.execute("CONFIG", "SET", "requirepass", "secret")
    store.proxy.reset_connections()
    yield
    with redis.Redis.from_url(store.server.url, password="secret") as client:
        client.config_set("requirepass", "")


@asynccontextmanager
async def reads_forbidden(store: FailingStore) -> AsyncIterator[None]:
    """The reader may connect but not read: -NOPERM."""
    await store.execute("ACL", "SETUSER", "default", "-mget")
    yield
    await store.execute("ACL", "SETUSER", "default", "+mget")


@asynccontextmanager
async def replica_without_master(store: FailingStore) -> AsyncIterator[None]:
    """A replica without its master may not serve stale data: -MASTERDOWN."""
    await store.execute("CONFIG", "SET", "replica-serve-stale-data", "no")
    await store.execute("REPLICAOF", "127.0.0.1", 1)
    yield
    await store.execute("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def too_many_clients(store: FailingStore) -> AsyncIterator[None]:
    """Another client has the only connection that maxclients allows."""
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
    """Run a gateway that reads *store* through a proxy."""
    with ExitStack() as stack:
        async with (
            network_proxy_to(store.url) as proxy,
            gateway_with_store(proxy.url, **policy) as gateway,
        ):
            failing_store = FailingStore(store, proxy, stack)
            gateway.reader.clock = ProcessorClock(failing_store.pid)
            yield failing_store, gateway
