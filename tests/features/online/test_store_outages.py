"""A real store killed, stopped, paused and started again, under the reader and its callers."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import redis

from features.online.reader import OnlineReader
from features.online.store_server import StoreServer
from tests.features.online.reader_fixture import (
    TIMEOUT_S,
    read_failure_reason,
    seconds_until,
    seconds_until_answered,
    started_reader,
    store_all_keys,
)
from tests.servers import redis_server

pytestmark = pytest.mark.walk

SLACK_S = 0.05
"""For a machine that others use too."""


@pytest.fixture
def store_to_kill() -> Iterator[StoreServer]:
    """A filled store of one's own."""
    with redis_server() as server:
        store_all_keys(server.url)
        yield server


@asynccontextmanager
async def started_again(port: int) -> AsyncIterator[None]:
    """A new, filled store on *port*."""
    server = redis_server(port)
    again = await asyncio.to_thread(server.__enter__)
    try:
        await asyncio.to_thread(store_all_keys, again.url)
        yield
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


async def read_until_failure(reader: OnlineReader) -> list[tuple[str, float]]:
    """Call until the breaker refuses; return each call's reason and seconds."""
    suffered: list[tuple[str, float]] = []
    while not suffered or suffered[-1][0] != "breaker":
        began = time.perf_counter()
        reason = await read_failure_reason(reader)
        suffered.append((reason, time.perf_counter() - began))
        assert len(suffered) < 50, suffered
    return suffered


async def refusal_s(reader: OnlineReader) -> float:
    """Median seconds that a refused call takes."""
    taken = []
    for _ in range(101):
        began = time.perf_counter()
        assert await read_failure_reason(reader) in ("breaker", "connection")
        taken.append(time.perf_counter() - began)
    return sorted(taken)[50]


def test_a_killed_store_costs_little_and_is_found_again(store_to_kill: StoreServer) -> None:
    """Kill -9; refused in microseconds; on the same port again, answers within 2 s."""
    assert store_to_kill.process is not None
    port = urlsplit(store_to_kill.url).port
    assert port is not None

    async def walk() -> None:
        async with started_reader(store_to_kill.url) as reader:
            assert await read_failure_reason(reader) == ""
            store_to_kill.process.kill()
            await asyncio.to_thread(store_to_kill.process.wait)
            suffered = await read_until_failure(reader)
            assert max(taken for _, taken in suffered) < TIMEOUT_S + SLACK_S
            assert await refusal_s(reader) < 200e-6
            async with started_again(port):
                assert await seconds_until_answered(reader) < 2.0
                assert reader.state == "closed"

    asyncio.run(walk())


def test_a_stopped_store_costs_each_caller_its_timeout_then_nothing(
    store_to_kill: StoreServer,
) -> None:
    """SIGSTOP: bytes are taken, nothing answers. After SIGCONT, answers within 2 s, and right."""
    assert store_to_kill.pid is not None

    async def walk() -> None:
        async with started_reader(store_to_kill.url) as reader:
            assert await read_failure_reason(reader) == ""
            os.kill(store_to_kill.pid, signal.SIGSTOP)
            try:
                suffered = await read_until_failure(reader)
                assert [reason for reason, _ in suffered] == ["timeout"] * 5 + ["breaker"]
                assert max(taken for _, taken in suffered) < TIMEOUT_S + SLACK_S
                assert await refusal_s(reader) < 200e-6
                await seconds_until(lambda: not reader.connected)
                assert len(asyncio.all_tasks()) <= 2
            finally:
                os.kill(store_to_kill.pid, signal.SIGCONT)
            assert await seconds_until_answered(reader) < 2.0

    asyncio.run(walk())


def test_a_pause_is_a_timeout_and_its_replies_are_dropped(store_to_kill: StoreServer) -> None:
    """CLIENT PAUSE for 50 ms, far below stall_ms_max: the same connection goes on."""

    async def walk() -> None:
        async with started_reader(store_to_kill.url) as reader:
            with redis.Redis.from_url(store_to_kill.url) as client:
                client.client_pause(50, all=True)
            assert await read_failure_reason(reader) == "timeout"
            await seconds_until(lambda: reader.outstanding == 0)
            assert await read_failure_reason(reader) == ""
            assert reader.counts.connected == 1
            assert reader.counts.dropped_late == 1

    asyncio.run(walk())


def test_a_reader_that_starts_before_its_store_finds_it(store_to_kill: StoreServer) -> None:
    """Started while nothing listens; answers within 2 s of the store's start."""
    port = urlsplit(store_to_kill.url).port
    assert port is not None
    store_to_kill.stop()

    async def walk() -> None:
        async with started_reader(store_to_kill.url) as reader:
            assert await read_failure_reason(reader) == "connection"
            async with started_again(port):
                assert await seconds_until_answered(reader) < 2.0

    asyncio.run(walk())
