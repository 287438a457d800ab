"""Behind the native door, batches of few wait for others where callers are many, and only there."""

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.settings import Settings
from protos.registry_pb2 import ServingPolicy
from tests.front_doors import BUILT
from tests.gateway import gateway_fixture as houses
from tests.gateway.canary_at_half import HALF, KEYS, Hung, canary_keys
from tests.gateway.gateway_fixture import House, ask
from tests.poll import until
from tests.tiny_models import tiny_files

pytestmark = [pytest.mark.walk, BUILT]

GAP_S = 0.2
MANY = 16
"""ingress/src/pace.rs"""
PACED = Settings(batch_gap_us=int(GAP_S * 1e6))
PATIENT = replace(HALF, policy=ServingPolicy(canary_budget_ms=5_000))


@pytest.fixture(autouse=True)
def door(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native one alone: behind grpcio's, gateway/transport/grpcio/batch_delay.py decides."""
    monkeypatch.setattr(houses, "DOOR", "native")


async def answered_s(gateway: House, key: str, times: int) -> float:
    """Ask for *key*, one call after the other; how long all of it took."""
    began_s = time.monotonic()
    for _ in range(times):
        await gateway.predict(ask(1, 2, 3, key=key))
    return time.monotonic() - began_s


async def beside(inside: int) -> float:
    """How long two calls to production take, beside *inside* calls that a hung canary holds."""
    versions = {"1": tiny_files(), "2": tiny_files()}
    async with houses.house(versions, PATIENT, settings=PACED) as gateway:
        routes = gateway.deployed.get("churn")
        assert routes is not None
        assert routes.canary is not None
        hung = Hung()
        routes.canary.version.lane.scorer = hung
        drawn = sorted(canary_keys())[:inside]
        held = [asyncio.create_task(gateway.predict(ask(1, 2, 3, key=key))) for key in drawn]
        await until(lambda: gateway.door.rows_inside == inside)
        await until(lambda: routes.canary.version.lane.runs_waiting > 0)
        took_s = await answered_s(gateway, min(set(KEYS) - canary_keys()), times=2)
        hung.go_on.set()
        await asyncio.gather(*held)
        return took_s


def test_where_many_are_inside_a_batch_of_one_waits_for_the_gap() -> None:
    """Sixteen calls wait for their canary: of two calls more, the second waits for its company."""
    assert asyncio.run(beside(MANY)) >= GAP_S


def test_a_handful_never_waits() -> None:
    """A few inside: two calls, one after the other, are two batches at once."""
    assert asyncio.run(beside(MANY - 4)) < GAP_S
