"""Tests of OnlineReader.mget called early and awaited later, on uvloop, as gateways do."""

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


def test_reader_sends_the_command_before_it_is_awaited(store: StoreServer) -> None:
    """The store has run the MGET while the caller's event loop stands still."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with started_reader(store.url) as reader:
            with redis.Redis.from_url(store.url) as client:
                client.config_resetstat()
                values = reader.mget(KEYS[:4], 1.0)
                deadline = time.monotonic() + 5.0
                # This loop blocks the event loop.
                while "cmdstat_mget" not in client.info("commandstats"):
                    assert time.monotonic() < deadline, "the command was not sent"
            assert await values == [stored_value(key) for key in KEYS[:4]]

    uvloop.run(walk())


def test_reader_survives_a_read_that_is_never_awaited(store: StoreServer) -> None:
    """The event loop reports no error for it, and the next read gets its own values."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            loop_errors: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: loop_errors.append(context)
            )
            proxy.delay_s = 0.05
            reader.mget(KEYS[:4], 0.01).close()
            await seconds_until(lambda: reader.counts.timeout == 1)
            proxy.delay_s = 0.0
            assert await read_failure_reason(reader, 5.0) == ""
            assert (reader.outstanding, loop_errors) == (0, [])

    uvloop.run(walk())
