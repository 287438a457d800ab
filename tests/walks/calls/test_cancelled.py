"""Callers cancel at every moment of a call: nothing is left, and no caller gets a foreign row."""

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
from tests.gateway.gateway_fixture import gateway_fixture
from tests.servers import redis_server
from tests.walks.gateway_with_store import (
    CUSTOMERS,
    GatewayWithStore,
    customer_key,
    customer_model_files,
    gateway_with_store,
    open_descriptors,
    resident_mb,
    task_count,
    timed_reader,
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
CANCELS_A_CALL = 2


@pytest.fixture(scope="module")
def store() -> Iterator[StoreServer]:
    """A store with every customer's row, for this file."""
    with redis_server() as server:
        write_customer_rows(server.url)
        yield server


class DelayingScorer:
    """A scorer that takes some milliseconds longer, so that callers can cancel meanwhile."""

    def __init__(self, scorer: Scorer, seconds: float) -> None:
        self._scorer = scorer
        self._seconds = seconds

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sleep, then score."""
        time.sleep(self._seconds)
        return self._scorer.run(matrix)


async def cancel_after(gateway: GatewayWithStore, message: bytes | None, after_s: float) -> None:
    """Call once and cancel after *after_s*; without a message the call's body is never sent."""
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


def message_for(rng: random.Random) -> bytes:
    """Return the message of a call for one random customer."""
    row = Row(keys=[customer_key(rng.randrange(CUSTOMERS))])
    return PredictRequest(model="churn", rows=[row]).SerializeToString()


PHASES = {
    "before the body": (None, 0.0, 0.02),
    "queued": (message_for, 0.0, 0.004),
    "in the store": (message_for, 0.002, 0.010),
    "being scored": (message_for, 0.0, 0.030),
    "any": (message_for, 0.0, 0.060),
}
"""Phase in which a caller cancels -> (the message, earliest and latest second)."""


@asynccontextmanager
async def slowed_gateway(
    store: StoreServer,
) -> AsyncIterator[tuple[GatewayWithStore, NetworkProxy]]:
    """Run a gateway whose store takes 5 ms and whose versions take 2 ms on their own threads."""
    settings = Settings(batch_rows_max=32, batches_in_flight_max=2, rows_inside_max=1_024)
    versions = {"1": customer_model_files(), "2": customer_model_files()}
    async with (
        network_proxy_to(store.url) as proxy,
        timed_reader(proxy.url) as reader,
        gateway_fixture(versions, with_half_canary(), settings=settings, store=reader) as gateway,
    ):
        for routes in gateway.routes.all():
            for participant in (routes.production, routes.canary):
                assert participant is not None
                executor = participant.version.executor
                executor.scorer = DelayingScorer(executor.scorer, 0.002)
        proxy.delay_s = 0.005
        yield GatewayWithStore(gateway, reader), proxy
        proxy.delay_s = 0.0


async def cancel_everywhere(gateway: GatewayWithStore, calls: int) -> None:
    """Cancel *calls* calls, AT_ONCE at a time and in all phases, beside callers that stay."""
    rng = random.Random(4)
    slots = asyncio.Semaphore(AT_ONCE)

    async def cancel_one(number: int) -> None:
        make_message, earliest_s, latest_s = list(PHASES.values())[number % len(PHASES)]
        async with slots:
            message = make_message(rng) if make_message is not None else None
            await cancel_after(gateway, message, rng.uniform(earliest_s, latest_s))

    async with gateway.traffic():
        await asyncio.gather(*(cancel_one(number) for number in range(calls)))


def test_gateway_keeps_nothing_of_ten_thousand_cancelled_calls(store: StoreServer) -> None:
    """No task, descriptor, slot, row or stray reply is left; other callers got their scores."""

    async def walk() -> None:
        async with slowed_gateway(store) as (gateway, proxy):
            await cancel_everywhere(gateway, 200)
            await asyncio.sleep(0.2)
            tasks, descriptors, before_mb = task_count(), open_descriptors(), resident_mb()
            await cancel_everywhere(gateway, CALLS)
            ingress = gateway.gateway.ingress_server
            await wait_until_at_most(lambda: ingress.rows_inside, 0)
            await wait_until_at_most(lambda: gateway.reader.outstanding, 0)
            await wait_until_at_most(task_count, tasks)
            await wait_until_at_most(open_descriptors, descriptors)
            assert resident_mb() - before_mb < 64
            proxy.delay_s = 0.0
            first = len(gateway.results)
            for number in range(200):
                await gateway.predict(number % CUSTOMERS)
            after = gateway.results[first:]
            assert [result.code for result in after] == ["OK"] * 200
            assert sum(result.degraded for result in after) <= 5
            assert gateway.wrong_answers == []
            assert gateway.reader.counts.connected <= 3
            assert gateway.gateway.faults == []

    uvloop.run(walk())


async def check_identity(url: str, checks: int) -> int:
    """Call until *checks* rows were compared with their customers'; return how many cancelled."""
    rng = random.Random(5)
    compared = cancelled = 0
    # The budget of 1 s lets rows that a busy machine delays be compared too.
    async with gateway_with_store(url, feature_budget_ms=1_000) as gateway:

        async def call() -> None:
            nonlocal compared
            await gateway.predict(rng.randrange(CUSTOMERS), within_s=20.0, rows=ROWS)
            result = gateway.results[-1]
            compared += ROWS * (result.code == "OK" and not result.defaulted)
            assert len(gateway.results) < 2 * checks // ROWS, gateway.results[-3:]

        async def call_beside_cancelled() -> None:
            # A caller that cancels as fast as it can would, on a slow machine, have hundreds of
            # ended streams for each call, and the server would refuse more on this connection.
            nonlocal cancelled
            while compared < checks:
                cancels = [
                    cancel_after(gateway, message_for(rng), rng.uniform(0.0, 0.01))
                    for _ in range(CANCELS_A_CALL)
                ]
                await asyncio.gather(call(), *cancels)
                cancelled += len(cancels)

        await asyncio.gather(*(call_beside_cancelled() for _ in range(8)))
        assert gateway.wrong_answers == []
    return cancelled


def test_gateway_gives_each_caller_its_own_features(store: StoreServer) -> None:
    """100,000 rows are compared with their customers' own, while other callers cancel."""
    assert uvloop.run(check_identity(store.url, CHECKS)) > CHECKS // ROWS


@pytest.mark.nightly
def test_gateway_gives_each_caller_its_own_features_in_a_million_rows(store: StoreServer) -> None:
    """Ten times as many rows, through a network that splits replies."""

    async def walk() -> int:
        async with network_proxy_to(store.url) as proxy:
            proxy.piece_bytes = 1_400
            return await check_identity(proxy.url, 10 * CHECKS)

    assert uvloop.run(walk()) > 10 * CHECKS // ROWS
