"""Calls whose deadline passes in the queue are dropped before they cost a read or a run."""

import asyncio

import grpc
import pytest

from gateway.settings import Settings
from protos.predict_pb2 import PredictRequest, Row
from tests.gateway.gateway_fixture import GatewayFixture, gateway_fixture
from tests.poll import wait_until
from tests.walks.gateway_with_store import customer_model_files, production_only

pytestmark = pytest.mark.walk

READ_S = 0.1
ONE_AT_A_TIME = Settings(batch_rows_max=1, batches_in_flight_max=1)
CALL = PredictRequest(model="churn", rows=[Row(keys=["S1"])])


class SlowStore:
    """A store that takes READ_S whatever its budget is, so that calls wait behind each other."""

    def __init__(self) -> None:
        self.reads = 0

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """Return no rows after READ_S."""
        del timeout_s
        self.reads += 1
        await asyncio.sleep(READ_S)
        return [None] * len(keys)


async def status_names(gateway: GatewayFixture, calls: int, within_s: float | None) -> list[str]:
    """Make *calls* calls at once; return the name of each status."""

    async def call() -> str:
        try:
            await gateway.predict(CALL, within_s)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    return await asyncio.gather(*(call() for _ in range(calls)))


def test_gateway_applies_the_models_deadline_to_a_call_without_one() -> None:
    """With a default of 500 ms, calls that wait longer are refused or end at their deadline."""

    async def walk() -> None:
        store, deployment = SlowStore(), production_only(deadline_ms_default=500)
        async with gateway_fixture(
            {"1": customer_model_files()}, deployment, settings=ONE_AT_A_TIME, store=store
        ) as gateway:
            statuses = await status_names(gateway, 16, None)
            assert 1 <= statuses.count("OK") <= 6
            assert set(statuses) <= {"OK", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
            assert store.reads <= statuses.count("OK") + 1
            assert gateway.ingress_server.rows_inside == 0

    asyncio.run(walk())


def test_gateway_drops_queued_calls_at_their_deadline() -> None:
    """A call whose deadline passes in the queue costs no read, and its rows are released."""

    async def walk() -> None:
        store = SlowStore()
        settings = ONE_AT_A_TIME
        async with gateway_fixture(
            {"1": customer_model_files()}, production_only(), settings=settings, store=store
        ) as gateway:
            statuses = await status_names(gateway, 16, 5 * READ_S)
            await wait_until(lambda: gateway.ingress_server.rows_inside == 0, 2.0)
            assert statuses.count("OK") >= 1
            assert store.reads <= statuses.count("OK") + 2
            assert set(statuses) <= {"OK", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
            assert await status_names(gateway, 1, 5.0) == ["OK"]

    asyncio.run(walk())
