"""Asking the store now and waiting for it later, over uvloop, as gateways run."""

import asyncio
import time
from typing import Any

import pytest
import redis
import uvloop

from features.online.store_server import StoreServer
from tests.features.online.network_proxy import network_proxy_to
from tests.features.online.reader_fixture import (
    KEYS,
    read_failure_reason,
    seconds_until,
    started_reader,
    store_all_keys,
    stored_value,
)

pytestmark = pytest.mark.walk


def test_the_store_is_asked_before_anybody_waits(store: StoreServer) -> None:
    """What a caller does between asking and waiting is done while the store answers."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with started_reader(store.url) as reader:
            with redis.Redis.from_url(store.url) as client:
                client.config_resetstat()
                answer = reader.mget(KEYS[:4], 1.0)
                ends = time.monotonic() + 5.0
                while "cmdstat_mget" not in client.info("commandstats"):  # the loop stands still
                    assert time.monotonic() < ends, "it was not asked"
            assert await answer == [stored_value(key) for key in KEYS[:4]]

    uvloop.run(walk())


def test_nobody_need_wait_for_what_was_asked(store: StoreServer) -> None:
    """A caller who goes away between leaves no error behind, and the next one its own answer."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            complaints: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _, what: complaints.append(what)
            )
            proxy.delay_s = 0.05
            reader.mget(KEYS[:4], 0.01).close()
            await seconds_until(lambda: reader.counts.timeout == 1)
            proxy.delay_s = 0.0
            assert await read_failure_reason(reader, 5.0) == ""
            assert (reader.outstanding, complaints) == (0, [])

    uvloop.run(walk())
