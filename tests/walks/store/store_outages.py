"""Ways in which a real store, or the network to it, fails; each ends as it began."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager

import redis

from features.online.store_server import StoreServer
from features.online.store_url import parse
from tests.features.online.network_proxy import Proxy, proxy_to
from tests.servers import redis_server
from tests.walks.gateway_with_store import Stored, fill, stored

Harm = Callable[["Place"], AbstractAsyncContextManager[None]]


class Place:
    """A real, filled store behind a proxy."""

    def __init__(self, server: StoreServer, proxy: Proxy, until_the_end: ExitStack) -> None:
        self.server = server
        self.proxy = proxy
        self.until_the_end = until_the_end

    @property
    def pid(self) -> int:
        """The store's."""
        assert self.server.pid is not None
        return self.server.pid

    async def do(self, *command: object) -> None:
        """Say something to the store itself, past the proxy."""
        await asyncio.to_thread(_say, self.server.url, command)


def _say(url: str, command: tuple[object, ...]) -> None:
    with redis.Redis.from_url(url) as client:
        client.execute_command(*command)


@asynccontextmanager
async def killed(place: Place) -> AsyncIterator[None]:
    """Kill -9; a new one on the same port, filled, at the end."""
    child = place.server.child
    assert child is not None
    port = parse(place.server.url).port
    child.kill()
    await asyncio.to_thread(child.wait)
    yield
    await asyncio.to_thread(place.until_the_end.enter_context, redis_server(port))
    await asyncio.to_thread(fill, place.server.url)


@asynccontextmanager
async def stopped(place: Place) -> AsyncIterator[None]:
    """SIGSTOP."""
    os.kill(place.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(place.pid, signal.SIGCONT)


@asynccontextmanager
async def paused(place: Place) -> AsyncIterator[None]:
    """CLIENT PAUSE: connections stand, nothing is executed, not even CLIENT UNPAUSE."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + 2.0
    await place.do("CLIENT", "PAUSE", 2_000, "ALL")
    yield
    await asyncio.sleep(ends - loop.time())


def delayed(seconds: float) -> Harm:
    """Each reply that much later."""

    @asynccontextmanager
    async def harm(place: Place) -> AsyncIterator[None]:
        place.proxy.delay_s = seconds
        yield
        place.proxy.delay_s = 0.0
        place.proxy.reset()

    return harm


@asynccontextmanager
async def half_open(place: Place) -> AsyncIterator[None]:
    """The network swallows everything and closes nothing."""
    place.proxy.swallow = True
    yield
    place.proxy.swallow = False


@asynccontextmanager
async def cut(place: Place) -> AsyncIterator[None]:
    """RST in the middle of every reply."""
    place.proxy.cut_after_bytes = 3
    yield
    place.proxy.cut_after_bytes = 0


@asynccontextmanager
async def locked(place: Place) -> AsyncIterator[None]:
    """A password that we do not have, and our connection closed: -NOAUTH."""
    await place.do("CONFIG", "SET", "requirepass", "secret")
    place.proxy.reset()
    yield
    with redis.Redis.from_url(place.server.url, password="secret") as client:
        client.config_set("requirepass", "")


@asynccontextmanager
async def forbidden(place: Place) -> AsyncIterator[None]:
    """-NOPERM: we may connect and not read."""
    await place.do("ACL", "SETUSER", "default", "-mget")
    yield
    await place.do("ACL", "SETUSER", "default", "+mget")


@asynccontextmanager
async def orphaned(place: Place) -> AsyncIterator[None]:
    """-MASTERDOWN: a replica without its master that may not serve what it has."""
    await place.do("CONFIG", "SET", "replica-serve-stale-data", "no")
    await place.do("REPLICAOF", "127.0.0.1", 1)
    yield
    await place.do("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def crowded(place: Place) -> AsyncIterator[None]:
    """Maxclients: somebody else took our connection."""
    with redis.Redis.from_url(place.server.url) as other:
        other.config_set("maxclients", 1)
        place.proxy.reset()
        other.ping()
        yield
        other.config_set("maxclients", 100)


OUTAGES: dict[str, Harm] = {
    "killed": killed,
    "stopped": stopped,
    "paused": paused,
    "100 ms late": delayed(0.1),
    "5 s late": delayed(5.0),
    "half open": half_open,
    "cut": cut,
    "NOAUTH": locked,
    "NOPERM": forbidden,
    "MASTERDOWN": orphaned,
    "maxclients": crowded,
}


@asynccontextmanager
async def through_proxy(
    store: StoreServer, **policy: object
) -> AsyncIterator[tuple[Place, Stored]]:
    """A gateway that reads *store* through a proxy."""
    with ExitStack() as stack:
        async with proxy_to(store.url) as proxy, stored(proxy.url, **policy) as gateway:
            yield Place(store, proxy, stack), gateway
