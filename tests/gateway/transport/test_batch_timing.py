"""The native server delays small batches while many calls are inside, and only then."""

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.settings import Settings
from protos.registry_pb2 import ServingPolicy
from tests.front_doors import NEEDS_NATIVE_INGRESS
from tests.gateway import gateway_fixture as fixture_module
from tests.gateway.canary_at_half import CANARY_AT_HALF, CUSTOMER_KEYS, HungScorer, canary_keys
from tests.gateway.gateway_fixture import GatewayFixture, predict_request
from tests.poll import wait_until
from tests.tiny_models import tiny_files

pytestmark = [pytest.mark.walk, NEEDS_NATIVE_INGRESS]

GAP_S = 0.2
CALLS_ENOUGH = 16
"""Calls inside from which small batches wait: MANY in ingress/src/io_thread/batch_timing.rs."""
SETTINGS = Settings(batch_gap_us=int(GAP_S * 1e6))
DEPLOYMENT = replace(CANARY_AT_HALF, policy=ServingPolicy(canary_budget_ms=5_000))


@pytest.fixture(autouse=True)
def ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the native server; grpcio's has gateway/transport/grpcio/batch_delay.py instead."""
    monkeypatch.setattr(fixture_module, "DEFAULT_INGRESS", "native")


async def answered_s(gateway: GatewayFixture, key: str, times: int) -> float:
    """Make calls for *key*, one after the other; return how long all of them took."""
    began_s = time.monotonic()
    for _ in range(times):
        await gateway.predict(predict_request(1, 2, 3, key=key))
    return time.monotonic() - began_s


async def two_calls_s(inside: int) -> float:
    """Return how long two calls to production take while *inside* calls wait for a hung canary."""
    versions = {"1": tiny_files(), "2": tiny_files()}
    async with fixture_module.gateway_fixture(versions, DEPLOYMENT, settings=SETTINGS) as gateway:
        routes = gateway.routes.get("churn")
        assert routes is not None
        assert routes.canary is not None
        hung = HungScorer()
        routes.canary.version.executor.scorer = hung
        keys = sorted(canary_keys())[:inside]
        waiting = [
            asyncio.create_task(gateway.predict(predict_request(1, 2, 3, key=key))) for key in keys
        ]
        await wait_until(lambda: gateway.ingress_server.rows_inside == inside)
        await wait_until(lambda: routes.canary.version.executor.runs_waiting > 0)
        elapsed_s = await answered_s(gateway, min(set(CUSTOMER_KEYS) - canary_keys()), times=2)
        hung.released.set()
        await asyncio.gather(*waiting)
        return elapsed_s


def test_native_server_delays_a_small_batch_while_many_calls_are_inside() -> None:
    """Sixteen calls wait for their canary; of two more calls the second waits for the gap."""
    assert asyncio.run(two_calls_s(CALLS_ENOUGH)) >= GAP_S


def test_native_server_does_not_delay_batches_while_few_calls_are_inside() -> None:
    """With twelve calls inside, two calls one after the other are scored at once."""
    assert asyncio.run(two_calls_s(CALLS_ENOUGH - 4)) < GAP_S
