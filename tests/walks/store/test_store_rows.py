"""What lies under a customer's key is not the customer's row: nobody is scored on it."""

import asyncio
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import redis

from features.online.store_server import StoreServer
from features.rows import ViewRows
from features.views import Feature, View
from protos.predict_pb2 import DEFAULTED, DEGRADED, MISSING, STALE, PredictRequest, Row
from tests.servers import redis_server
from tests.walks.gateway_with_store import (
    CUSTOMERS,
    DAY_MS,
    DEFAULT_SCORE,
    ROWS,
    VIEW,
    GatewayWithStore,
    customer_key,
    gateway_with_store,
    open_descriptors,
    resident_mb,
    score_of,
    stored_rows,
    wait_until_at_most,
    write_customer_rows,
)

pytestmark = pytest.mark.walk

VICTIM, NEIGHBOUR = 100, 101
PLACE = ROWS.store_key(customer_key(VICTIM).encode())


@pytest.fixture(scope="module")
def running_redis() -> Iterator[StoreServer]:
    """One store for this file."""
    with redis_server() as server:
        yield server


@pytest.fixture
def store(running_redis: StoreServer) -> StoreServer:
    """The same, every customer's row in it."""
    with redis.Redis.from_url(running_redis.url) as client:
        client.flushall()
    write_customer_rows(running_redis.url)
    return running_redis


def of_another_view() -> bytes:
    """The same customer and numbers under a view that was redefined since."""
    other = View(
        name=VIEW.name,
        entities=VIEW.entities,
        features=(Feature(name="number", default=0.0), Feature(name="half", default=0.0)),
        ttl_ms=VIEW.ttl_ms,
        transform=VIEW.transform,
    )
    return packed_row(ViewRows(other), VICTIM, float(VICTIM))


def packed_row(rows: ViewRows, number: int, value: float) -> bytes:
    """One row, now."""
    return rows.pack(
        [customer_key(number).encode()],
        np.array([time.time_ns() // 1_000_000], dtype=np.int64),
        np.array([[value, 0.0]], dtype=np.float32),
        np.ones((1, 2), dtype=np.bool_),
    )[0]


def own_row(number: int) -> bytes:
    """A customer's true row."""
    return next(iter(stored_rows([number]).values()))


FOREIGN = {
    "another customer's": lambda: own_row(NEIGHBOUR),
    "another view's": of_another_view,
    "garbage": lambda: b"\xff\x00" * 30,
    "bad UTF-8 of the right length": lambda: b"\xc3\x28" * (ROWS.row_bytes // 2),
    "a byte short": lambda: own_row(VICTIM)[:-1],
    "a byte long": lambda: own_row(VICTIM) + b"\x00",
    "two rows": lambda: own_row(VICTIM) * 2,
    "empty": lambda: b"",
}


async def scores(gateway: GatewayWithStore) -> list[tuple[float, int]]:
    """What victim and neighbour are told, in one call: (score, flags) each."""
    request = PredictRequest(
        model="churn", rows=[Row(keys=[customer_key(n)]) for n in (VICTIM, NEIGHBOUR)]
    )
    reply = await gateway.gateway.predict(request)
    return list(zip(reply.scores, list(reply.row_flags) or [0, 0], strict=True))


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_value_that_is_not_the_customers_row_is_missing_and_counted(
    kind: str, store: StoreServer
) -> None:
    """Defaults for that customer, his own row for the next; counted as broken."""
    with redis.Redis.from_url(store.url) as client:
        client.set(PLACE, FOREIGN[kind]())

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            told = await scores(gateway)
            assert told == [(DEFAULT_SCORE, MISSING | DEFAULTED), (score_of(NEIGHBOUR), 0)]
            counted = gateway.gateway.metrics.snapshot()["turnout_feature_rows"]
            assert [["churn", "broken"], 1] in counted

    asyncio.run(walk())


def test_a_key_of_another_type_is_missing(store: StoreServer) -> None:
    """A list where a row should be: WRONGTYPE to a GET, nothing to an MGET."""
    with redis.Redis.from_url(store.url) as client:
        client.delete(PLACE)
        client.rpush(PLACE, "1")

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            told = await scores(gateway)
            assert told == [(DEFAULT_SCORE, MISSING | DEFAULTED), (score_of(NEIGHBOUR), 0)]

    asyncio.run(walk())


def test_a_stale_row_is_not_used(store: StoreServer) -> None:
    """Older than the view's TTL: the default, flagged STALE; the next row is fresh."""
    with redis.Redis.from_url(store.url) as client:
        client.mset(stored_rows([VICTIM], age_ms=DAY_MS + 60_000))

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            told = await scores(gateway)
            assert told == [(DEFAULT_SCORE, STALE | DEFAULTED), (score_of(NEIGHBOUR), 0)]
            counted = gateway.gateway.metrics.snapshot()["turnout_feature_rows"]
            assert [["churn", "stale"], 1] in counted

    asyncio.run(walk())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_makes_the_score_nan_fails_its_caller_alone(
    value: float, store: StoreServer
) -> None:
    """NaN that a writer stored as valid: INTERNAL for that caller, never OK; others are right."""
    with redis.Redis.from_url(store.url) as client:
        client.set(PLACE, packed_row(ROWS, VICTIM, value))

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            asked = [gateway.predict(number) for number in range(VICTIM - 20, VICTIM + 20)]
            await asyncio.gather(*asked)
            codes = sorted(one.code for one in gateway.results)
            assert codes == ["INTERNAL"] + ["OK"] * 39
            assert gateway.wrong_answers == []
        async with gateway_with_store(
            store.url, nan_scores_defaulted=True, default_score=0.25
        ) as gateway:
            request = PredictRequest(model="churn", rows=[Row(keys=[customer_key(VICTIM)])])
            reply = await gateway.gateway.predict(request)
            assert list(reply.scores) == [0.25]
            assert reply.row_flags[0] & DEFAULTED

    asyncio.run(walk())


def test_50_mb_under_one_key_cost_no_memory_and_the_others_little(store: StoreServer) -> None:
    """The connection is left at 1.5 MB and made anew: that batch's calls take defaults."""
    with redis.Redis.from_url(store.url) as client:
        client.set(PLACE, bytes(50_000_000))

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            for number in range(50):
                await gateway.predict(number)
            before_mb, descriptors = resident_mb(), open_descriptors()
            async with gateway.traffic():
                for _ in range(10):
                    request = PredictRequest(model="churn", rows=[Row(keys=[customer_key(VICTIM)])])
                    reply = await gateway.gateway.predict(request)
                    assert reply.row_flags[0] & DEGRADED
                    await asyncio.sleep(0.2)
            assert resident_mb() - before_mb < 32
            await wait_until_at_most(open_descriptors, descriptors)
            assert gateway.wrong_answers == []
            assert {one.code for one in gateway.results} == {"OK"}
            told = gateway.results[50:]
            # 20 ms until the next connection, ten times in two seconds; and other tests' load.
            assert sum(one.degraded for one in told) < 0.3 * len(told)

    asyncio.run(walk())


def test_a_call_for_nobody_known_is_flagged_and_answered(store: StoreServer) -> None:
    """An id the store has never seen."""

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            request = PredictRequest(model="churn", rows=[Row(keys=[customer_key(CUSTOMERS + 5)])])
            reply = await gateway.gateway.predict(request)
            assert list(reply.scores) == [DEFAULT_SCORE]
            assert list(reply.row_flags) == [MISSING | DEFAULTED]
            with pytest.raises(grpc.aio.AioRpcError):
                await gateway.gateway.predict(PredictRequest(model="churn", rows=[Row(keys=[""])]))

    asyncio.run(walk())
