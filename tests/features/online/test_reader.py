"""Tests of OnlineReader with a real store, and with networks and stores that misbehave."""

import asyncio
import random
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop

from features.errors import OnlineStoreError
from features.online.reader import OnlineReader, OnlineSettings
from features.online.store_server import StoreServer
from tests.features.online.fake_store import fake_store
from tests.features.online.network_proxy import network_proxy_to
from tests.features.online.reader_fixture import (
    KEYS,
    TIMEOUT_S,
    read_failure_reason,
    seconds_until,
    seconds_until_answered,
    started_reader,
    store_all_keys,
    stored_value,
)

pytestmark = pytest.mark.walk

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run_with_loop(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on asyncio's loop or on uvloop, which order timers and sockets otherwise."""

    def in_loop(walk: Coroutine[Any, Any, None]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(walk)

    return in_loop


def test_reader_returns_values_in_the_order_of_the_keys(
    store: StoreServer, run_with_loop: Run
) -> None:
    """Absent keys and lists give None. Keys of 2,000 bytes and no keys at all are accepted."""
    store_all_keys(store.url)
    long_key = b"k" * 2_000
    with redis.Redis.from_url(store.url) as client:
        client.rpush("list", 1)
        client.set(long_key, b"long")

    async def walk() -> None:
        async with started_reader(store.url) as reader:
            keys = [KEYS[5], b"list", b"absent", KEYS[5], KEYS[4], long_key]
            fifth_value = stored_value(KEYS[5])
            expected = [fifth_value, None, None, fifth_value, stored_value(KEYS[4]), b"long"]
            assert await reader.mget(keys, 1.0) == expected
            assert await reader.mget([], 1.0) == []
            assert (reader.counts.answered, reader.state, reader.connected) == (1, "closed", True)

    run_with_loop(walk())


def test_reader_gives_each_of_many_concurrent_reads_its_values(
    store: StoreServer, run_with_loop: Run
) -> None:
    """500 reads of random keys run at once over one connection."""
    store_all_keys(store.url)
    generator = random.Random(1)

    async def read(reader: OnlineReader) -> None:
        keys = generator.sample(KEYS, generator.randint(1, 64))
        assert await reader.mget(keys, 5.0) == [stored_value(key) for key in keys]

    async def walk() -> None:
        async with started_reader(store.url) as reader:
            await asyncio.gather(*(read(reader) for _ in range(500)))
            assert reader.counts.answered == 500
            assert reader.counts.connected == 1

    run_with_loop(walk())


def test_reader_joins_replies_that_come_byte_by_byte(
    store: StoreServer, run_with_loop: Run
) -> None:
    """A reply may be cut after any byte."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy:
            proxy.piece_bytes = 1
            async with started_reader(proxy.url) as reader:
                for first in range(0, 32, 8):
                    keys = KEYS[first : first + 8]
                    assert await reader.mget(keys, 5.0) == [stored_value(key) for key in keys]

    run_with_loop(walk())


def test_reader_gives_each_read_its_own_reply_when_others_cancel_or_time_out(
    store: StoreServer, run_with_loop: Run
) -> None:
    """500 reads are cancelled or time out at random moments.

    Every answer has the values of its keys.
    """
    store_all_keys(store.url)
    generator = random.Random(2)
    ends = {"answered": 0, "cancelled": 0, "timeout": 0}

    # One read checks its own values, and counts how it ended.
    async def read(reader: OnlineReader) -> None:
        keys = generator.sample(KEYS, 8)
        timeout_s = generator.choice([0.002, 0.008, 5.0])
        try:
            assert await reader.mget(keys, timeout_s) == [stored_value(key) for key in keys]
        except OnlineStoreError as error:
            ends[error.reason] += 1
        except asyncio.CancelledError:
            ends["cancelled"] += 1
        else:
            ends["answered"] += 1

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            # Half of the reads are cancelled, while replies arrive late and in pieces.
            proxy.delay_s, proxy.piece_bytes = 0.001, 700
            for _ in range(50):
                callers = [asyncio.create_task(read(reader)) for _ in range(10)]
                for caller in callers[:5]:
                    await asyncio.sleep(generator.random() * 0.002)
                    caller.cancel()
                await asyncio.gather(*callers, return_exceptions=False)
            proxy.delay_s = 0.0
            await seconds_until(lambda: reader.outstanding == 0)
            assert await read_failure_reason(reader, 5.0) == ""
            assert reader.counts.connected == 1
            assert reader.counts.dropped_late > 0
        assert min(ends.values()) > 20, ends

    run_with_loop(walk())


def test_reader_fails_reads_at_once_without_a_store(run_with_loop: Run) -> None:
    """`start` returns, and reads fail until the breaker opens."""

    async def walk() -> None:
        async with started_reader("redis://127.0.0.1:1/0") as reader:
            reasons = [await read_failure_reason(reader) for _ in range(8)]
            assert reasons == ["connection"] * 5 + ["breaker"] * 3
            assert not reader.connected

    run_with_loop(walk())


def test_reader_replaces_a_connection_that_swallows_bytes(
    store: StoreServer, run_with_loop: Run
) -> None:
    """The network drops all bytes without closing.

    The reader drops the connection and makes another.
    """
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            assert await read_failure_reason(reader) == ""
            proxy.swallow = True
            reasons = [await read_failure_reason(reader) for _ in range(6)]
            assert reasons == ["timeout"] * 5 + ["breaker"]
            await seconds_until(lambda: not reader.connected)
            assert reader.outstanding == 0
            proxy.swallow = False
            assert await seconds_until_answered(reader) < 2.0
            assert reader.state == "closed"

    run_with_loop(walk())


def test_reader_fails_only_reads_in_flight_after_a_reset(
    store: StoreServer, run_with_loop: Run
) -> None:
    """Reads in flight fail at once. Later reads use a new connection."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            proxy.delay_s = 0.05
            callers = [asyncio.create_task(read_failure_reason(reader, 5.0)) for _ in range(3)]
            await seconds_until(lambda: reader.outstanding == 3)
            proxy.reset_connections()
            assert await asyncio.gather(*callers) == ["connection"] * 3
            proxy.delay_s = 0.0
            assert await seconds_until_answered(reader) < 2.0

    run_with_loop(walk())


def test_reader_keeps_the_breaker_open_after_a_slow_probe(
    store: StoreServer, run_with_loop: Run
) -> None:
    """Replies take 60 ms, so reads of 30 ms are refused instead of waiting for nothing."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            proxy.delay_s = 0.06
            while reader.state == "closed":
                assert await read_failure_reason(reader) == "timeout"
            timeouts, states = reader.counts.timeout, set()
            for _ in range(100):
                states.add(reader.state)
                assert await read_failure_reason(reader) == "breaker"
                await asyncio.sleep(0.005)
            assert states == {"open", "half_open"}
            assert reader.counts.timeout == timeouts
            proxy.delay_s = 0.0
            assert await seconds_until_answered(reader) < 2.0

    run_with_loop(walk())


def test_reader_does_not_count_timeouts_of_impatient_callers(
    store: StoreServer, run_with_loop: Run
) -> None:
    """A timeout of 1 ms shows nothing about a store whose replies take 20 ms."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            proxy.delay_s = 0.02
            for _ in range(20):
                assert await read_failure_reason(reader, 0.001) == "timeout"
            assert reader.state == "closed"
            assert await read_failure_reason(reader, 5.0) == ""

    run_with_loop(walk())


def test_reader_reads_replies_before_timeouts_after_a_busy_loop(
    store: StoreServer, run_with_loop: Run
) -> None:
    """The reply arrives while the event loop is busy, and is read before the timeout is judged."""
    store_all_keys(store.url)

    async def walk() -> None:
        loop = asyncio.get_running_loop()
        receiving, sending = socket.socketpair()

        def busy() -> None:
            receiving.recv(1)
            until = loop.time() + 0.06
            while loop.time() < until:
                pass

        async with started_reader(store.url) as reader:
            loop.add_reader(receiving, busy)
            for _ in range(5):
                read = asyncio.create_task(read_failure_reason(reader))
                await asyncio.sleep(0)
                sending.send(b"x")
                assert await read == ""
            loop.remove_reader(receiving)
        receiving.close()
        sending.close()

    run_with_loop(walk())


ERRORS = [
    b"-LOADING loading",
    b"-READONLY no",
    b"-MASTERDOWN link",
    b"-NOAUTH no",
    b"-MOVED 1 x",
]


@pytest.mark.parametrize("error", ERRORS)
def test_reader_keeps_the_connection_after_an_error_reply(error: bytes) -> None:
    """The reason is "reply", the message has the store's text, and the read is not retried."""
    commands: list[list[bytes]] = []

    def answer(command: list[bytes]) -> bytes:
        commands.append(command)
        return error + b"\r\n"

    async def walk() -> None:
        async with fake_store(answer) as url, started_reader(url) as reader:
            for _ in range(10):
                with pytest.raises(OnlineStoreError, match=error[1:].decode()) as refused:
                    await reader.mget([b"a"], 1.0)
                assert refused.value.reason == "reply"
            assert (reader.state, reader.counts.connected, len(commands)) == ("closed", 1, 10)

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"*1\r\n$1\r\na\r\n", "connection"),
        (b"$1\r\na\r\n", "connection"),
        (b"*2147483647\r\n", "connection"),
        (b"*2\r\n$2\r\nok\r\n$99999999999999\r\n", "timeout"),
        (b"*2\r\n$2000000\r\n" + b"x" * 2_000_000 + b"\r\n$1\r\na\r\n", "connection"),
        (b"*2\r\n" + b"*1\r\n" * 10_000, "connection"),
        (b"\x00\xff junk\r\n", "connection"),
        (b"*2\r\n$1\r\na\r\n$1\r\nb\r\n+extra\r\n", ""),
        (b"", "connection"),
    ],
    ids=["count", "kind", "many", "endless", "oversized", "nested", "junk", "extra", "closed"],
)
def test_reader_drops_the_connection_after_an_invalid_reply(reply: bytes, reason: str) -> None:
    """The reader makes another connection, even without further reads."""
    answers = [reply]

    def answer(_command: list[bytes]) -> bytes:
        return answers.pop() if answers else b"*1\r\n$2\r\nok\r\n"

    async def walk() -> None:
        async with fake_store(answer) as url, started_reader(url) as reader:
            failure = ""
            try:
                assert await reader.mget([b"a", b"b"], 1.0) == [b"a", b"b"]
            except OnlineStoreError as error:
                failure = error.reason
            assert failure == reason
            await seconds_until(lambda: reader.counts.connected == 2)
            assert await reader.mget([b"a"], 1.0) == [b"ok"]

    asyncio.run(walk())


def test_reader_gives_none_for_elements_that_are_no_strings() -> None:
    """Numbers, errors and arrays inside the reply are no rows."""
    reply = b"*5\r\n$1\r\na\r\n:7\r\n-ERR x\r\n*1\r\n:1\r\n$-1\r\n"

    async def walk() -> None:
        async with fake_store(lambda _command: reply) as url, started_reader(url) as reader:
            assert await reader.mget([b"k"] * 5, 1.0) == [b"a", None, None, None, None]

    asyncio.run(walk())


def test_reader_connects_through_a_unix_socket(tmp_path: Path) -> None:
    """The URL is unix:///path."""

    async def walk() -> None:
        store = fake_store(lambda _command: b"*1\r\n$1\r\na\r\n", tmp_path / "s")
        async with store as url, started_reader(url) as reader:
            assert await reader.mget([b"k"], 1.0) == [b"a"]

    asyncio.run(walk())


def test_reader_authenticates_and_selects_the_database(store: StoreServer) -> None:
    """AUTH takes a user or none.

    A wrong password gives reason "reply", and the reader tries again.
    """
    address = store.url.removeprefix("redis://").removesuffix("/0")
    with redis.Redis.from_url(store.url) as client:

        def allow(password: str) -> None:
            client.acl_setuser(
                "reader", enabled=True, passwords=[password], keys="*", commands=["+@all"]
            )

        # A row in database 3, and a user whose password has characters that a URL escapes.
        allow("+p@w")
        with redis.Redis.from_url(f"redis://{address}/3") as database_3:
            database_3.set("k", b"three")

        async def walk() -> None:
            async with started_reader(f"redis://reader:p%40w@{address}/3") as reader:
                assert await reader.mget([b"k"], 1.0) == [b"three"]
            # A wrong password is refused until the store allows it.
            async with started_reader(f"redis://reader:wrong@{address}/3") as reader:
                with pytest.raises(OnlineStoreError, match="WRONGPASS") as refused:
                    await reader.mget([b"k"], 1.0)
                assert refused.value.reason == "reply"
                assert "wrong@" not in str(refused.value)
                allow("+wrong")
                await seconds_until(lambda: reader.connected)
                assert await reader.mget([b"k"], 1.0) == [b"three"]

        asyncio.run(walk())
        client.acl_deluser("reader")


def test_reader_close_ends_waiting_reads(store: StoreServer, run_with_loop: Run) -> None:
    """Waiting reads fail with "connection", and no task is left."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy:
            reader = OnlineReader(proxy.url, settings=OnlineSettings(probe_ms=5))
            await reader.start()
            proxy.swallow = True
            callers = [asyncio.create_task(read_failure_reason(reader, 5.0)) for _ in range(3)]
            assert await read_failure_reason(reader, TIMEOUT_S) == "timeout"
            await reader.close()
            assert await asyncio.gather(*callers) == ["connection"] * 3
            assert await read_failure_reason(reader) in ("connection", "breaker")
            other_tasks = asyncio.all_tasks() - {asyncio.current_task()}
            assert not [task for task in other_tasks if task.get_name() == "online store"]

    run_with_loop(walk())
