"""Calls that wait longer than they may: told so, and dropped before they cost a read or a run."""

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
    """A store that takes READ_S whatever it was allowed: so that calls wait behind each other."""

    def __init__(self) -> None:
        self.reads = 0

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """Nothing, late."""
        del timeout_s
        self.reads += 1
        await asyncio.sleep(READ_S)
        return [None] * len(keys)


async def codes(served: GatewayFixture, calls: int, within_s: float | None) -> list[str]:
    """What that many calls, made at once, end with."""

    async def one() -> str:
        try:
            await served.predict(CALL, within_s)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    return await asyncio.gather(*(one() for _ in range(calls)))


def test_a_call_without_a_deadline_has_the_models() -> None:
    """Default 500 ms: who still waits then is told so or turned away; nobody waits for ever."""

    async def walk() -> None:
        store, named = SlowStore(), production_only(deadline_ms_default=500)
        async with gateway_fixture(
            {"1": customer_model_files()}, named, settings=ONE_AT_A_TIME, store=store
        ) as served:
            told = await codes(served, 16, None)
            assert 1 <= told.count("OK") <= 6
            assert set(told) <= {"OK", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
            assert store.reads <= told.count("OK") + 1
            assert served.ingress_server.rows_inside == 0

    asyncio.run(walk())


def test_who_stops_waiting_is_dropped_from_the_queue() -> None:
    """Deadlines pass in the queue: no read is spent on them, and their rows are free."""

    async def walk() -> None:
        store = SlowStore()
        settings = ONE_AT_A_TIME
        async with gateway_fixture(
            {"1": customer_model_files()}, production_only(), settings=settings, store=store
        ) as served:
            told = await codes(served, 16, 5 * READ_S)
            await wait_until(lambda: served.ingress_server.rows_inside == 0, 2.0)
            assert told.count("OK") >= 1
            assert store.reads <= told.count("OK") + 2
            assert set(told) <= {"OK", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
            assert await codes(served, 1, 5.0) == ["OK"]

    asyncio.run(walk())
