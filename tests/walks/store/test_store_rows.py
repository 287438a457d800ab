"""A value under a customer's key that is not the customer's row is never scored."""

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
from gateway.settings import Settings
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
VICTIM_STORE_KEY = ROWS.store_key(customer_key(VICTIM).encode())


@pytest.fixture(scope="module")
def running_redis() -> Iterator[StoreServer]:
    """One Redis for this file."""
    with redis_server() as server:
        yield server


@pytest.fixture
def store(running_redis: StoreServer) -> StoreServer:
    """The Redis, with every customer's row and nothing else."""
    with redis.Redis.from_url(running_redis.url) as client:
        client.flushall()
    write_customer_rows(running_redis.url)
    return running_redis


def row_of_another_view() -> bytes:
    """Return the customer's row of a view that was redefined since."""
    other = View(
        name=VIEW.name,
        entities=VIEW.entities,
        features=(Feature(name="number", default=0.0), Feature(name="half", default=0.0)),
        ttl_ms=VIEW.ttl_ms,
        transform=VIEW.transform,
    )
    return packed_row(ViewRows(other), VICTIM, float(VICTIM))


def packed_row(rows: ViewRows, number: int, value: float) -> bytes:
    """Return a customer's row with event time now."""
    return rows.pack(
        [customer_key(number).encode()],
        np.array([time.time_ns() // 1_000_000], dtype=np.int64),
        np.array([[value, 0.0]], dtype=np.float32),
        np.ones((1, 2), dtype=np.bool_),
    )[0]


def own_row(number: int) -> bytes:
    """Return a customer's own row."""
    return next(iter(stored_rows([number]).values()))


FOREIGN_VALUES = {
    "another customer's": lambda: own_row(NEIGHBOUR),
    "another view's": row_of_another_view,
    "garbage": lambda: b"\xff\x00" * 30,
    "bad UTF-8 of the right length": lambda: b"\xc3\x28" * (ROWS.row_bytes // 2),
    "a byte short": lambda: own_row(VICTIM)[:-1],
    "a byte long": lambda: own_row(VICTIM) + b"\x00",
    "two rows": lambda: own_row(VICTIM) * 2,
    "empty": lambda: b"",
}


async def scores(gateway: GatewayWithStore) -> list[tuple[float, int]]:
    """Return (score, flags) of victim and neighbour, from one call."""
    request = PredictRequest(
        model="churn", rows=[Row(keys=[customer_key(n)]) for n in (VICTIM, NEIGHBOUR)]
    )
    reply = await gateway.gateway.predict(request)
    return list(zip(reply.scores, list(reply.row_flags) or [0, 0], strict=True))


@pytest.mark.parametrize("kind", FOREIGN_VALUES)
def test_gateway_counts_a_foreign_value_as_broken_and_uses_the_default(
    kind: str, store: StoreServer
) -> None:
    """The customer gets the default, the next customer its own row."""
    with redis.Redis.from_url(store.url) as client:
        client.set(VICTIM_STORE_KEY, FOREIGN_VALUES[kind]())

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            results = await scores(gateway)
            assert results == [(DEFAULT_SCORE, MISSING | DEFAULTED), (score_of(NEIGHBOUR), 0)]
            gateway.gateway.recorder.fold()
            samples = gateway.gateway.metrics.snapshot()["turnout_feature_rows"]
            assert [["churn", "broken"], 1] in samples

    asyncio.run(walk())


def test_gateway_treats_a_key_of_another_redis_type_as_missing(store: StoreServer) -> None:
    """A list in place of a row is WRONGTYPE to a GET and nil to an MGET."""
    with redis.Redis.from_url(store.url) as client:
        client.delete(VICTIM_STORE_KEY)
        client.rpush(VICTIM_STORE_KEY, "1")

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            results = await scores(gateway)
            assert results == [(DEFAULT_SCORE, MISSING | DEFAULTED), (score_of(NEIGHBOUR), 0)]

    asyncio.run(walk())


def test_gateway_reads_the_rows_of_its_namespace(store: StoreServer) -> None:
    """The neighbour has a row in the gateway's namespace, and the victim only outside it."""
    rows = ViewRows(VIEW, "shop-dev")
    with redis.Redis.from_url(store.url) as client:
        key = rows.store_key(customer_key(NEIGHBOUR).encode())
        client.set(key, packed_row(rows, NEIGHBOUR, 7.0))

    async def walk() -> None:
        url = f"{store.url}?namespace=shop-dev"
        settings = Settings(redis_url=url)
        async with gateway_with_store(url, settings=settings) as gateway:
            assert await scores(gateway) == [(DEFAULT_SCORE, MISSING | DEFAULTED), (7.0, 0)]

    asyncio.run(walk())


def test_gateway_does_not_use_a_stale_row(store: StoreServer) -> None:
    """A row older than the view's TTL gives the default and the flag STALE."""
    with redis.Redis.from_url(store.url) as client:
        client.mset(stored_rows([VICTIM], age_ms=DAY_MS + 60_000))

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            results = await scores(gateway)
            assert results == [(DEFAULT_SCORE, STALE | DEFAULTED), (score_of(NEIGHBOUR), 0)]
            gateway.gateway.recorder.fold()
            samples = gateway.gateway.metrics.snapshot()["turnout_feature_rows"]
            assert [["churn", "stale"], 1] in samples

    asyncio.run(walk())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gateway_fails_only_the_caller_whose_row_makes_the_score_nan(
    value: float, store: StoreServer
) -> None:
    """A stored NaN gives INTERNAL to that caller. Other callers get their scores."""
    with redis.Redis.from_url(store.url) as client:
        client.set(VICTIM_STORE_KEY, packed_row(ROWS, VICTIM, value))

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            calls = [gateway.predict(number) for number in range(VICTIM - 20, VICTIM + 20)]
            await asyncio.gather(*calls)
            codes = sorted(result.code for result in gateway.results)
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


def test_gateway_closes_the_store_connection_at_a_value_of_50_mb(store: StoreServer) -> None:
    """The reader stops at 1.5 MB and reconnects. The calls of that batch get defaults."""
    with redis.Redis.from_url(store.url) as client:
        client.set(VICTIM_STORE_KEY, bytes(50_000_000))

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
            assert {result.code for result in gateway.results} == {"OK"}
            results = gateway.results[50:]
            # Reconnecting takes 20 ms, ten times in two seconds; a busy machine adds some.
            assert sum(result.degraded for result in results) < 0.3 * len(results)

    asyncio.run(walk())


def test_gateway_answers_for_an_unknown_customer_with_a_flagged_default(store: StoreServer) -> None:
    """The store has no row of this id."""

    async def walk() -> None:
        async with gateway_with_store(store.url) as gateway:
            request = PredictRequest(model="churn", rows=[Row(keys=[customer_key(CUSTOMERS + 5)])])
            reply = await gateway.gateway.predict(request)
            assert list(reply.scores) == [DEFAULT_SCORE]
            assert list(reply.row_flags) == [MISSING | DEFAULTED]
            with pytest.raises(grpc.aio.AioRpcError):
                await gateway.gateway.predict(PredictRequest(model="churn", rows=[Row(keys=[""])]))

    asyncio.run(walk())
