"""Callers leave at every moment of a call; nothing stays behind, and nobody gets another's row."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import grpc
import numpy as np
import pytest
import uvloop
from numpy.typing import NDArray

from features.online.store_server import StoreServer
from gateway.models.executor import Scorer
from gateway.settings import Settings
from protos.predict_pb2 import PredictRequest, Row
from tests.features.online.network_proxy import NetworkProxy, network_proxy_to
from tests.features.online.reader_fixture import started_reader
from tests.gateway.gateway_fixture import gateway_fixture
from tests.servers import redis_server
from tests.walks.gateway_with_store import (
    CUSTOMERS,
    GatewayWithStore,
    TimedReader,
    customer_key,
    customer_model_files,
    gateway_with_store,
    open_descriptors,
    resident_mb,
    task_count,
    wait_until_at_most,
    with_half_canary,
    write_customer_rows,
)

pytestmark = pytest.mark.walk

PREDICT = "/turnout.v1.Predictor/Predict"
CALLS = 10_000
AT_ONCE = 50
CHECKS = 100_000
ROWS = 64


@pytest.fixture(scope="module")
def store() -> Iterator[StoreServer]:
    """One filled store."""
    with redis_server() as server:
        write_customer_rows(server.url)
        yield server


class DelayingScorer:
    """A version that takes a few milliseconds, so that callers can leave meanwhile."""

    def __init__(self, scorer: Scorer, seconds: float) -> None:
        self._scorer = scorer
        self._seconds = seconds

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sleep, then score."""
        time.sleep(self._seconds)
        return self._scorer.run(matrix)


async def cancel_after(gateway: GatewayWithStore, message: bytes | None, after_s: float) -> None:
    """One call whose caller leaves *after_s*; a call without a message never sends its body."""
    if message is None:
        streaming = gateway.gateway.channel.stream_unary(PREDICT)(timeout=5.0)
        await asyncio.sleep(after_s)
        streaming.cancel()
        return
    call = gateway.gateway.channel.unary_unary(PREDICT)(message, timeout=5.0)
    await asyncio.sleep(after_s)
    call.cancel()
    with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await call


def message_for(chance: random.Random) -> bytes:
    """A call for one random customer."""
    row = Row(keys=[customer_key(chance.randrange(CUSTOMERS))])
    return PredictRequest(model="churn", rows=[row]).SerializeToString()


PHASES = {
    "before the body": (None, 0.0, 0.02),
    "queued": (message_for, 0.0, 0.004),
    "in the store": (message_for, 0.002, 0.010),
    "being scored": (message_for, 0.0, 0.030),
    "any": (message_for, 0.0, 0.060),
}
"""Where a caller leaves: the message, and the seconds between which he does."""


@asynccontextmanager
async def slowed(store: StoreServer) -> AsyncIterator[tuple[GatewayWithStore, NetworkProxy]]:
    """Store replies take 5 ms, production and canary 2 ms on threads of their own."""
    settings = Settings(batch_rows_max=32, batches_in_flight_max=2, rows_inside_max=1_024)
    versions = {"1": customer_model_files(), "2": customer_model_files()}
    async with (
        network_proxy_to(store.url) as proxy,
        started_reader(proxy.url) as reader,
        gateway_fixture(versions, with_half_canary(), settings=settings, store=reader) as served,
    ):
        for routes in served.routes.all():
            for participant in (routes.production, routes.canary):
                assert participant is not None
                lane = participant.version.executor
                lane.scorer = DelayingScorer(lane.scorer, 0.002)
        proxy.delay_s = 0.005
        yield GatewayWithStore(served, reader, TimedReader(reader)), proxy
        proxy.delay_s = 0.0


async def cancel_everywhere(gateway: GatewayWithStore, calls: int) -> None:
    """*calls* callers, the phases in turn, AT_ONCE at a time, among callers who stay."""
    chance = random.Random(4)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        make, earliest, latest = list(PHASES.values())[number % len(PHASES)]
        async with gate:
            message = make(chance) if make is not None else None
            await cancel_after(gateway, message, chance.uniform(earliest, latest))

    async with gateway.traffic():
        await asyncio.gather(*(one(number) for number in range(calls)))


def test_ten_thousand_callers_who_left_leave_nothing(store: StoreServer) -> None:
    """No task, descriptor, slot, waiting row or stray reply; the callers who stayed were right."""

    async def walk() -> None:
        async with slowed(store) as (gateway, proxy):
            await cancel_everywhere(gateway, 200)
            await asyncio.sleep(0.2)
            tasks, descriptors, before_mb = task_count(), open_descriptors(), resident_mb()
            await cancel_everywhere(gateway, CALLS)
            door = gateway.gateway.ingress_server
            await wait_until_at_most(lambda: door.rows_inside, 0)
            await wait_until_at_most(lambda: gateway.reader.outstanding, 0)
            await wait_until_at_most(task_count, tasks)
            await wait_until_at_most(open_descriptors, descriptors)
            assert resident_mb() - before_mb < 64
            proxy.delay_s = 0.0
            first = len(gateway.results)
            for number in range(200):
                await gateway.predict(number % CUSTOMERS)
            after = gateway.results[first:]
            assert [one.code for one in after] == ["OK"] * 200
            assert sum(one.degraded for one in after) <= 5
            assert gateway.wrong_answers == []
            assert gateway.reader.counts.connected <= 3
            assert gateway.gateway.faults == []

    uvloop.run(walk())


async def check_identity(url: str, checks: int) -> int:
    """Ask until *checks* rows were compared with their customers' own; return how many left."""
    chance = random.Random(5)
    compared = gone = 0
    # A budget of a second: what a busy machine delays is compared too, not defaulted.
    async with gateway_with_store(url, feature_budget_ms=1_000) as gateway:

        async def stays() -> None:
            nonlocal compared
            while compared < checks:
                await gateway.predict(chance.randrange(CUSTOMERS), within_s=20.0, rows=ROWS)
                mine = gateway.results[-1]
                compared += ROWS * (mine.code == "OK" and not mine.defaulted)
                assert len(gateway.results) < 2 * checks // ROWS, gateway.results[-3:]

        async def leaves() -> None:
            nonlocal gone
            while compared < checks:
                await cancel_after(gateway, message_for(chance), chance.uniform(0.0, 0.01))
                gone += 1

        await asyncio.gather(*(stays() for _ in range(8)), *(leaves() for _ in range(8)))
        assert gateway.wrong_answers == []
    return gone


def test_nobody_gets_anothers_features(store: StoreServer) -> None:
    """100,000 rows compared with their customers' own, while other callers leave."""
    assert uvloop.run(check_identity(store.url, CHECKS)) > 100


@pytest.mark.nightly
def test_nobody_gets_anothers_features_in_a_million(store: StoreServer) -> None:
    """The same, ten times as long, through a network that delays and cuts replies."""

    async def walk() -> int:
        async with network_proxy_to(store.url) as proxy:
            proxy.piece_bytes = 1_400
            return await check_identity(proxy.url, 10 * CHECKS)

    assert uvloop.run(walk()) > 1_000
