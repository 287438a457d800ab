"""The gateway finds the new master by itself after a failover of real sentinels."""

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
from tests.poll import wait_until
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
"""Seconds that Sentinel itself takes (down-after, vote, promotion) on a busy machine."""


def wait_replicated(setup: SentinelSetup) -> None:
    """Wait until the replica has every row."""
    with redis.Redis.from_url(setup.replica.url) as client:
        poll_store_until(lambda: client.dbsize() == CUSTOMERS, 10.0, "the replica has the rows")


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_reader_follows_a_failover_while_calls_are_answered(harm: signal.Signals) -> None:
    """The master dies or hangs: callers get defaults in time, then the new master's rows."""

    async def walk(setup: SentinelSetup) -> None:
        pid = setup.master.pid
        assert pid is not None
        async with gateway_with_store(setup.url) as gateway, gateway.traffic():
            # Before the failure almost no reply has defaults.
            usual = await gateway.results_during(0.3)
            assert sum(result.degraded for result in usual) < 0.2 * len(usual)
            # The master fails, and the sentinels promote the replica.
            os.kill(pid, harm)
            try:
                during_outage = await gateway.results_during(0.6)
                assert any(result.degraded for result in during_outage)
                new = port_of(setup.replica)
                await asyncio.to_thread(
                    poll_store_until,
                    lambda: setup.master_port() == new,
                    FAILOVER_S_MAX,
                    "the failover",
                )
                assert (
                    await gateway.wait_for_result(lambda result: not result.degraded, 4.0)
                    < 2.0 + 1.0
                )
                assert {result.code for result in gateway.results} == {"OK"}
                assert gateway.wrong_answers == []
                assert median_call_s(during_outage) < 0.05
            finally:
                os.kill(pid, signal.SIGCONT)

    with sentinel_setup() as setup:
        write_customer_rows(setup.master.url)
        wait_replicated(setup)
        asyncio.run(walk(setup))


def test_reader_leaves_a_demoted_master_though_it_still_answers() -> None:
    """After SENTINEL FAILOVER the old master is a replica, and the reader moves to the new one."""

    async def walk(setup: SentinelSetup) -> None:
        async with gateway_with_store(setup.url) as gateway, gateway.traffic():
            # A failover while calls are answered.
            await gateway.results_during(0.1)
            with redis.Redis(port=setup.sentinels[0]) as sentinel:
                sentinel.execute_command("SENTINEL", "FAILOVER", "rows")
            new = port_of(setup.replica)
            await asyncio.to_thread(
                poll_store_until, lambda: setup.master_port() == new, FAILOVER_S_MAX, "the failover"
            )
            # The reader and the I/O thread read the new master.
            with store_client(setup.url) as client:
                await asyncio.to_thread(client.mset, stored_rows([CUSTOMERS - 1]))
            await gateway.wait_for_result(lambda result: not result.degraded, 5.0)
            await asyncio.to_thread(
                poll_store_until,
                lambda: gateway.reader._master[1] == new,
                5.0,
                "the reader has moved",
            )
            thread = gateway.gateway.parts.io_thread_store
            await wait_until(lambda: thread is None or thread.connections > 1)
            assert gateway.wrong_answers == []
            assert {result.code for result in gateway.results} == {"OK"}

    with sentinel_setup() as setup:
        write_customer_rows(setup.master.url)
        wait_replicated(setup)
        assert find_or_start(setup.url, Path()).kind == "given"
        asyncio.run(walk(setup))


def test_reader_reports_sentinels_that_do_not_know_the_service() -> None:
    """The error names the service and the sentinels."""

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

    message = asyncio.run(reason("redis+sentinel://127.0.0.1:1/rows"))
    assert "no sentinel names it" in message
    assert "'rows' of 127.0.0.1:1" in message
