"""A failover, decided by real sentinels: the gateway finds the new master by itself."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
import redis

from features.errors import OnlineStoreError
from features.online.reader import OnlineReader
from features.online.store_client import store_client
from features.online.store_server import find_or_start
from tests.walks.gateway_with_store import (
    CUSTOMERS,
    gateway_with_store,
    median_call_s,
    stored_rows,
    write_customer_rows,
)
from tests.walks.store.sentinel_servers import (
    SentinelSetup,
    poll_store_until,
    port_of,
    sentinel_setup,
)

pytestmark = pytest.mark.walk

FAILOVER_S_MAX = 15.0
"""Sentinel's own: down-after, a vote, a promotion, on a machine that others use too."""


def replicated(house: SentinelSetup) -> None:
    """Return when the replica has every row."""
    with redis.Redis.from_url(house.replica.url) as client:
        poll_store_until(lambda: client.dbsize() == CUSTOMERS, 10.0, "the replica has the rows")


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_failover_is_followed_while_calls_are_answered(harm: signal.Signals) -> None:
    """The master dies or hangs: defaults, in time, then the new master's rows, each its own."""

    async def walk(house: SentinelSetup) -> None:
        pid = house.master.pid
        assert pid is not None
        async with gateway_with_store(house.url) as gateway, gateway.traffic():
            usual = await gateway.results_during(0.3)
            assert sum(one.degraded for one in usual) < 0.2 * len(usual)
            os.kill(pid, harm)
            try:
                suffered = await gateway.results_during(0.6)
                assert any(one.degraded for one in suffered)
                new = port_of(house.replica)
                await asyncio.to_thread(
                    poll_store_until,
                    lambda: house.master_port() == new,
                    FAILOVER_S_MAX,
                    "the failover",
                )
                assert await gateway.wait_for_result(lambda one: not one.degraded, 4.0) < 2.0 + 1.0
                assert {one.code for one in gateway.results} == {"OK"}
                assert gateway.wrong_answers == []
                assert median_call_s(suffered) < 0.05
            finally:
                os.kill(pid, signal.SIGCONT)

    with sentinel_setup() as house:
        write_customer_rows(house.master.url)
        replicated(house)
        asyncio.run(walk(house))


def test_a_switched_master_is_left_though_it_answers() -> None:
    """SENTINEL FAILOVER: the old master lives on as a replica, and is read from no more."""

    async def walk(house: SentinelSetup) -> None:
        async with gateway_with_store(house.url) as gateway, gateway.traffic():
            await gateway.results_during(0.1)
            with redis.Redis(port=house.sentinels[0]) as sentinel:
                sentinel.execute_command("SENTINEL", "FAILOVER", "rows")
            new = port_of(house.replica)
            await asyncio.to_thread(
                poll_store_until, lambda: house.master_port() == new, FAILOVER_S_MAX, "the failover"
            )
            with store_client(house.url) as client:  # what is written now reaches the readers
                await asyncio.to_thread(client.mset, stored_rows([CUSTOMERS - 1]))
            await gateway.wait_for_result(lambda one: not one.degraded, 5.0)
            await asyncio.to_thread(
                poll_store_until,
                lambda: gateway.reader._master[1] == new,
                5.0,
                "the reader has moved",
            )
            assert gateway.wrong_answers == []
            assert {one.code for one in gateway.results} == {"OK"}

    with sentinel_setup() as house:
        write_customer_rows(house.master.url)
        replicated(house)
        assert find_or_start(house.url, Path()).kind == "given"
        asyncio.run(walk(house))


def test_sentinels_that_know_nothing_are_said_so_in_words() -> None:
    """No such service, and nobody there: "connection", with what each sentinel said."""

    async def reason(url: str) -> str:
        reader = OnlineReader(url)
        await reader.start()
        try:
            await reader.mget([b"a"], 0.03)
        except OnlineStoreError as error:
            return str(error)
        finally:
            await reader.close()
        raise AssertionError("it was answered")

    said = asyncio.run(reason("redis+sentinel://127.0.0.1:1/rows"))
    assert "no sentinel names it" in said
    assert "'rows' of 127.0.0.1:1" in said
