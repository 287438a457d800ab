"""Tests of OnlineReader while a real store is killed, stopped, paused and started again."""

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
"""Extra seconds for a machine with other load."""


@pytest.fixture
def store_to_kill() -> Iterator[StoreServer]:
    """A filled store that one test may kill."""
    with redis_server() as server:
        store_all_keys(server.url)
        yield server


@asynccontextmanager
async def store_started_again(port: int) -> AsyncIterator[None]:
    """A new, filled store on *port*."""
    server = redis_server(port)
    store = await asyncio.to_thread(server.__enter__)
    try:
        await asyncio.to_thread(store_all_keys, store.url)
        yield
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


async def read_until_refused(reader: OnlineReader) -> list[tuple[str, float]]:
    """Read until the breaker refuses; return the reason and the seconds of each read."""
    reads: list[tuple[str, float]] = []
    while not reads or reads[-1][0] != "breaker":
        began = time.perf_counter()
        reason = await read_failure_reason(reader)
        reads.append((reason, time.perf_counter() - began))
        assert len(reads) < 50, reads
    return reads


async def refusal_s(reader: OnlineReader) -> float:
    """Median seconds of 101 refused reads."""
    durations_s = []
    for _ in range(101):
        began = time.perf_counter()
        assert await read_failure_reason(reader) in ("breaker", "connection")
        durations_s.append(time.perf_counter() - began)
    return sorted(durations_s)[50]


def test_reader_refuses_reads_and_reconnects_after_a_killed_store(
    store_to_kill: StoreServer,
) -> None:
    """After SIGKILL reads fail in microseconds. A new store on the port answers within 2 s."""
    assert store_to_kill.process is not None
    port = urlsplit(store_to_kill.url).port
    assert port is not None

    async def walk() -> None:
        async with started_reader(store_to_kill.url) as reader:
            assert await read_failure_reason(reader) == ""
            store_to_kill.process.kill()
            await asyncio.to_thread(store_to_kill.process.wait)
            reads = await read_until_refused(reader)
            assert max(duration_s for _, duration_s in reads) < TIMEOUT_S + SLACK_S
            assert await refusal_s(reader) < 200e-6
            async with store_started_again(port):
                assert await seconds_until_answered(reader) < 2.0
                assert reader.state == "closed"

    asyncio.run(walk())


def test_reader_times_out_then_refuses_while_the_store_is_stopped(
    store_to_kill: StoreServer,
) -> None:
    """After SIGSTOP the kernel still takes bytes. After SIGCONT reads are answered within 2 s."""
    assert store_to_kill.pid is not None

    async def walk() -> None:
        async with started_reader(store_to_kill.url) as reader:
            assert await read_failure_reason(reader) == ""
            os.kill(store_to_kill.pid, signal.SIGSTOP)
            try:
                reads = await read_until_refused(reader)
                assert [reason for reason, _ in reads] == ["timeout"] * 5 + ["breaker"]
                assert max(duration_s for _, duration_s in reads) < TIMEOUT_S + SLACK_S
                assert await refusal_s(reader) < 200e-6
                await seconds_until(lambda: not reader.connected)
                assert len(asyncio.all_tasks()) <= 2
            finally:
                os.kill(store_to_kill.pid, signal.SIGCONT)
            assert await seconds_until_answered(reader) < 2.0

    asyncio.run(walk())


def test_reader_drops_late_replies_after_a_pause(store_to_kill: StoreServer) -> None:
    """CLIENT PAUSE of 50 ms is far below stall_ms_max, so the connection is kept."""

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


def test_reader_finds_a_store_that_starts_after_it(store_to_kill: StoreServer) -> None:
    """Reads are answered within 2 s of the store's start."""
    port = urlsplit(store_to_kill.url).port
    assert port is not None
    store_to_kill.stop()

    async def walk() -> None:
        async with started_reader(store_to_kill.url) as reader:
            assert await read_failure_reason(reader) == "connection"
            async with store_started_again(port):
                assert await seconds_until_answered(reader) < 2.0

    asyncio.run(walk())
