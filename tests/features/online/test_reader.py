"""The online reader against a real store and a network that misbehaves."""

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
    """Both loops: their order of timers and sockets differs."""

    def in_loop(walk: Coroutine[Any, Any, None]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(walk)

    return in_loop


def test_values_come_in_the_order_asked(store: StoreServer, run_with_loop: Run) -> None:
    """Absent keys and lists are None; long keys and none at all are fine."""
    store_all_keys(store.url)
    long_key = b"k" * 2_000
    with redis.Redis.from_url(store.url) as client:
        client.rpush("list", 1)
        client.set(long_key, b"long")

    async def walk() -> None:
        async with started_reader(store.url) as reader:
            asked = [KEYS[5], b"list", b"absent", KEYS[5], KEYS[4], long_key]
            five = stored_value(KEYS[5])
            expected = [five, None, None, five, stored_value(KEYS[4]), b"long"]
            assert await reader.mget(asked, 1.0) == expected
            assert await reader.mget([], 1.0) == []
            assert (reader.counts.answered, reader.state, reader.connected) == (1, "closed", True)

    run_with_loop(walk())


def test_many_in_flight_are_answered_each_its_own(store: StoreServer, run_with_loop: Run) -> None:
    """500 reads of random keys at once over one connection."""
    store_all_keys(store.url)
    chance = random.Random(1)

    async def ask(reader: OnlineReader) -> None:
        keys = chance.sample(KEYS, chance.randint(1, 64))
        assert await reader.mget(keys, 5.0) == [stored_value(key) for key in keys]

    async def walk() -> None:
        async with started_reader(store.url) as reader:
            await asyncio.gather(*(ask(reader) for _ in range(500)))
            assert reader.counts.answered == 500
            assert reader.counts.connected == 1

    run_with_loop(walk())


def test_replies_in_pieces_of_one_byte_are_put_together(
    store: StoreServer, run_with_loop: Run
) -> None:
    """A reply may be cut anywhere."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy:
            proxy.piece_bytes = 1
            async with started_reader(proxy.url) as reader:
                for first in range(0, 32, 8):
                    keys = KEYS[first : first + 8]
                    assert await reader.mget(keys, 5.0) == [stored_value(key) for key in keys]

    run_with_loop(walk())


def test_cancelled_and_late_callers_never_shift_an_answer(
    store: StoreServer, run_with_loop: Run
) -> None:
    """500 callers cancelled or timed out at random moments; all answers belong to their askers."""
    store_all_keys(store.url)
    chance = random.Random(2)
    seen = {"answered": 0, "cancelled": 0, "timeout": 0}

    async def ask(reader: OnlineReader) -> None:
        keys = chance.sample(KEYS, 8)
        timeout_s = chance.choice([0.002, 0.008, 5.0])
        try:
            assert await reader.mget(keys, timeout_s) == [stored_value(key) for key in keys]
        except OnlineStoreError as error:
            seen[error.reason] += 1
        except asyncio.CancelledError:
            seen["cancelled"] += 1
        else:
            seen["answered"] += 1

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            proxy.delay_s, proxy.piece_bytes = 0.001, 700
            for _ in range(50):
                callers = [asyncio.create_task(ask(reader)) for _ in range(10)]
                for caller in callers[:5]:
                    await asyncio.sleep(chance.random() * 0.002)
                    caller.cancel()
                await asyncio.gather(*callers, return_exceptions=False)
            proxy.delay_s = 0.0
            await seconds_until(lambda: reader.outstanding == 0)
            assert await read_failure_reason(reader, 5.0) == ""
            assert reader.counts.connected == 1
            assert reader.counts.dropped_late > 0
        assert min(seen.values()) > 20, seen

    run_with_loop(walk())


def test_a_store_that_is_not_there_stops_nobody(run_with_loop: Run) -> None:
    """Start returns; calls fail at once; the store is found when it comes."""

    async def walk() -> None:
        async with started_reader("redis://127.0.0.1:1/0") as reader:
            reasons = [await read_failure_reason(reader) for _ in range(8)]
            assert reasons == ["connection"] * 5 + ["breaker"] * 3
            assert not reader.connected

    run_with_loop(walk())


def test_a_swallowing_network_is_noticed_and_left(store: StoreServer, run_with_loop: Run) -> None:
    """Bytes go nowhere, nothing is closed: the connection is given up, then made anew."""
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


def test_a_reset_fails_those_in_flight_only(store: StoreServer, run_with_loop: Run) -> None:
    """Calls under way learn at once; the next find a new connection."""
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


def test_a_slow_probe_keeps_the_breaker_open(store: StoreServer, run_with_loop: Run) -> None:
    """A store that is 60 ms away has no answer for callers of 30 ms: they are spared the wait."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            proxy.delay_s = 0.06
            while reader.state == "closed":
                assert await read_failure_reason(reader) == "timeout"
            opened, states = reader.counts.timeout, set()
            for _ in range(100):
                states.add(reader.state)
                assert await read_failure_reason(reader) == "breaker"
                await asyncio.sleep(0.005)
            assert states == {"open", "half_open"}
            assert reader.counts.timeout == opened
            proxy.delay_s = 0.0
            assert await seconds_until_answered(reader) < 2.0

    run_with_loop(walk())


def test_a_caller_in_a_hurry_opens_nothing(store: StoreServer, run_with_loop: Run) -> None:
    """1 ms says nothing about a store that is 20 ms away."""
    store_all_keys(store.url)

    async def walk() -> None:
        async with network_proxy_to(store.url) as proxy, started_reader(proxy.url) as reader:
            proxy.delay_s = 0.02
            for _ in range(20):
                assert await read_failure_reason(reader, 0.001) == "timeout"
            assert reader.state == "closed"
            assert await read_failure_reason(reader, 5.0) == ""

    run_with_loop(walk())


def test_a_busy_loop_is_not_taken_for_a_slow_store(store: StoreServer, run_with_loop: Run) -> None:
    """The reply came while this process was busy: it is read before the timer judges."""
    store_all_keys(store.url)

    async def walk() -> None:
        loop = asyncio.get_running_loop()
        ear, mouth = socket.socketpair()

        def busy() -> None:
            ear.recv(1)
            until = loop.time() + 0.06
            while loop.time() < until:
                pass

        async with started_reader(store.url) as reader:
            loop.add_reader(ear, busy)
            for _ in range(5):
                call = asyncio.create_task(read_failure_reason(reader))
                await asyncio.sleep(0)
                mouth.send(b"x")
                assert await call == ""
            loop.remove_reader(ear)
        ear.close()
        mouth.close()

    run_with_loop(walk())


ERRORS = [b"-LOADING loading", b"-READONLY no", b"-MASTERDOWN link", b"-NOAUTH who", b"-MOVED 1 x"]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_reply_keeps_the_connection(error: bytes) -> None:
    """The reason is "reply", the words are the store's; nothing is retried."""
    asked: list[list[bytes]] = []

    def answer(command: list[bytes]) -> bytes:
        asked.append(command)
        return error + b"\r\n"

    async def walk() -> None:
        async with fake_store(answer) as url, started_reader(url) as reader:
            for _ in range(10):
                with pytest.raises(OnlineStoreError, match=error[1:].decode()) as refused:
                    await reader.mget([b"a"], 1.0)
                assert refused.value.reason == "reply"
            assert (reader.state, reader.counts.connected, len(asked)) == ("closed", 1, 10)

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
def test_what_is_no_answer_costs_the_connection(reply: bytes, reason: str) -> None:
    """It is dropped and made anew, whether or not anybody calls again."""
    answers = [reply]

    def answer(_command: list[bytes]) -> bytes:
        return answers.pop() if answers else b"*1\r\n$2\r\nok\r\n"

    async def walk() -> None:
        async with fake_store(answer) as url, started_reader(url) as reader:
            seen = ""
            try:
                assert await reader.mget([b"a", b"b"], 1.0) == [b"a", b"b"]
            except OnlineStoreError as error:
                seen = error.reason
            assert seen == reason
            await seconds_until(lambda: reader.counts.connected == 2)
            assert await reader.mget([b"a"], 1.0) == [b"ok"]

    asyncio.run(walk())


def test_elements_that_are_no_strings_are_none() -> None:
    """Numbers, errors and arrays inside the reply are no rows."""
    reply = b"*5\r\n$1\r\na\r\n:7\r\n-ERR x\r\n*1\r\n:1\r\n$-1\r\n"

    async def walk() -> None:
        async with fake_store(lambda _command: reply) as url, started_reader(url) as reader:
            assert await reader.mget([b"k"] * 5, 1.0) == [b"a", None, None, None, None]

    asyncio.run(walk())


def test_a_unix_socket_is_a_way_too(tmp_path: Path) -> None:
    """unix:///path."""

    async def walk() -> None:
        way = fake_store(lambda _command: b"*1\r\n$1\r\na\r\n", tmp_path / "s")
        async with way as url, started_reader(url) as reader:
            assert await reader.mget([b"k"], 1.0) == [b"a"]

    asyncio.run(walk())


def test_a_connection_says_who_it_is_and_where_it_reads(store: StoreServer) -> None:
    """AUTH with and without a user, SELECT; a wrong password is "reply" and is tried again."""
    place = store.url.removeprefix("redis://").removesuffix("/0")
    with redis.Redis.from_url(store.url) as client:

        def allow(password: str) -> None:
            client.acl_setuser(
                "reader", enabled=True, passwords=[password], keys="*", commands=["+@all"]
            )

        allow("+p@w")
        with redis.Redis.from_url(f"redis://{place}/3") as third:
            third.set("k", b"three")

        async def walk() -> None:
            async with started_reader(f"redis://reader:p%40w@{place}/3") as reader:
                assert await reader.mget([b"k"], 1.0) == [b"three"]
            async with started_reader(f"redis://reader:wrong@{place}/3") as reader:
                with pytest.raises(OnlineStoreError, match="WRONGPASS") as refused:
                    await reader.mget([b"k"], 1.0)
                assert refused.value.reason == "reply"
                assert "wrong@" not in str(refused.value)
                allow("+wrong")
                await seconds_until(lambda: reader.connected)
                assert await reader.mget([b"k"], 1.0) == [b"three"]

        asyncio.run(walk())
        client.acl_deluser("reader")


def test_closing_ends_every_wait(store: StoreServer, run_with_loop: Run) -> None:
    """Nobody hangs on a reader that is closed; nothing is left behind."""
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
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not [task for task in others if task.get_name() == "online store"]

    run_with_loop(walk())
