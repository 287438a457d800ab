"""Behind the native door, batches of few wait for others where callers are many, and only there."""

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.settings import Settings
from protos.registry_pb2 import ServingPolicy
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.gateway import gateway_fixture as houses
from tests.gateway.canary_at_half import CANARY_AT_HALF, CUSTOMER_KEYS, HungScorer, canary_keys
from tests.gateway.gateway_fixture import GatewayFixture, predict_request
from tests.poll import wait_until
from tests.tiny_models import tiny_files

pytestmark = [pytest.mark.walk, NEEDS_NATIVE_INGRESS]

GAP_S = 0.2
MANY = 16
"""ingress/src/io_thread/batch_timing.rs"""
PACED = Settings(batch_gap_us=int(GAP_S * 1e6))
PATIENT = replace(CANARY_AT_HALF, policy=ServingPolicy(canary_budget_ms=5_000))


@pytest.fixture(autouse=True)
def ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native one alone: behind grpcio's, gateway/transport/grpcio/batch_delay.py decides."""
    monkeypatch.setattr(houses, "DEFAULT_INGRESS", "native")


async def answered_s(gateway: GatewayFixture, key: str, times: int) -> float:
    """Ask for *key*, one call after the other; how long all of it took."""
    began_s = time.monotonic()
    for _ in range(times):
        await gateway.predict(predict_request(1, 2, 3, key=key))
    return time.monotonic() - began_s


async def beside(inside: int) -> float:
    """How long two calls to production take, beside *inside* calls that a hung canary holds."""
    versions = {"1": tiny_files(), "2": tiny_files()}
    async with houses.gateway_fixture(versions, PATIENT, settings=PACED) as gateway:
        routes = gateway.routes.get("churn")
        assert routes is not None
        assert routes.canary is not None
        hung = HungScorer()
        routes.canary.version.executor.scorer = hung
        drawn = sorted(canary_keys())[:inside]
        held = [
            asyncio.create_task(gateway.predict(predict_request(1, 2, 3, key=key))) for key in drawn
        ]
        await wait_until(lambda: gateway.ingress_server.rows_inside == inside)
        await wait_until(lambda: routes.canary.version.executor.runs_waiting > 0)
        took_s = await answered_s(gateway, min(set(CUSTOMER_KEYS) - canary_keys()), times=2)
        hung.released.set()
        await asyncio.gather(*held)
        return took_s


def test_where_many_are_inside_a_batch_of_one_waits_for_the_gap() -> None:
    """Sixteen calls wait for their canary: of two calls more, the second waits for its company."""
    assert asyncio.run(beside(MANY)) >= GAP_S


def test_a_handful_never_waits() -> None:
    """A few inside: two calls, one after the other, are two batches at once."""
    assert asyncio.run(beside(MANY - 4)) < GAP_S
