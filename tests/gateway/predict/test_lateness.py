"""Late is not guilty: who is accused when an arm takes too long, and when a run is hung."""

import asyncio
import time
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.models.executor import ModelExecutor, Scored, ScoringRun
from protos import window_pb2
from protos.predict_pb2 import FALLBACK, PRODUCTION
from protos.registry_pb2 import ServingPolicy
from tests.gateway.canary_at_half import (
    CANARY_AT_HALF,
    CUSTOMER_KEYS,
    BusyScorer,
    HungScorer,
    SlowScorer,
    canary_keys,
    closed_windows,
)
from tests.gateway.gateway_fixture import gateway_fixture, predict_request
from tests.poll import wait_until
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk


def test_a_canary_that_hangs_costs_its_callers_its_budget_and_nobody_else_anything() -> None:
    """A run that never returns: its keys fall back after 50 ms, production's keys do not wait."""

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files(), "2": tiny_files()}, CANARY_AT_HALF
        ) as gateway:
            routes = gateway.routes.get("churn")
            assert routes is not None
            assert routes.canary is not None
            lane, hung = routes.canary.version.executor, HungScorer()
            lane.scorer = hung
            loop = asyncio.get_running_loop()
            key, *_ = sorted(canary_keys())
            other, *_ = sorted(set(CUSTOMER_KEYS) - canary_keys())
            began = loop.time()
            late = asyncio.create_task(gateway.predict(predict_request(1, 2, 3, key=key)))
            await wait_until(lambda: lane.runs_waiting == 1)
            assert (await gateway.predict(predict_request(1, 2, 3, key=other))).role == PRODUCTION
            assert not late.done() or loop.time() - began > 0.05
            assert (await late).role == FALLBACK
            assert loop.time() - began < 0.5
            hung.released.set()
            calls = closed_windows(gateway)["CANARY"].calls
            assert (calls.late, calls.fallbacks) == (0, 1)

    asyncio.run(walk())


async def timeouts(scorer: type[SlowScorer] | type[BusyScorer]) -> dict[str, set[int]]:
    """Ask both arms, which have *scorer* and 10 ms: arm -> keys with evidence of a timeout.

    The canary has it twice: it is still out when production, asked at the same time, is back.
    """
    hasty = replace(CANARY_AT_HALF, policy=ServingPolicy(canary_budget_ms=10))
    async with gateway_fixture({"1": tiny_files(), "2": tiny_files()}, hasty) as gateway:
        routes = gateway.routes.get("churn")
        assert routes is not None
        assert routes.canary is not None
        for participant in (routes.production, routes.canary, routes.canary):
            participant.version.executor.scorer = scorer(participant.version.executor.scorer)
        for key in CUSTOMER_KEYS:
            await gateway.predict(predict_request(1, 2, 3, key=key))
        windows = closed_windows(gateway)
        assert windows["PRODUCTION"].calls.answered == 60 - len(canary_keys())
        assert windows["PRODUCTION"].calls.late == 0
        assert windows["CANARY"].calls.fallbacks > 0
        return {
            arm: {
                key
                for records in window.records
                if records.metric == window_pb2.METRIC_TIMEOUT
                for key in records.key_hash
            }
            for arm, window in windows.items()
        }


def test_a_slow_host_accuses_neither_arm() -> None:
    """Both take 12 ms and more of the 10 allowed and work for none: evidence against nobody."""
    assert asyncio.run(timeouts(SlowScorer)) == {"PRODUCTION": set(), "CANARY": set()}


def test_what_works_past_its_budget_is_accused_in_either_arm() -> None:
    """Both compute for 12 ms and more of the 10 ms allowed: timeout evidence from each, by key."""
    accused = asyncio.run(timeouts(BusyScorer))
    assert len(accused["PRODUCTION"]) == 60 - len(canary_keys())
    assert accused["CANARY"]


def test_a_caller_in_a_hurry_does_not_accuse_the_canary() -> None:
    """A second to answer in, a hung canary with a budget of 5 s: production answers, no fault."""
    patient = replace(CANARY_AT_HALF, policy=ServingPolicy(canary_budget_ms=5_000))

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files(), "2": tiny_files()}, patient) as gateway:
            routes = gateway.routes.get("churn")
            assert routes is not None
            assert routes.canary is not None
            hung = HungScorer()
            routes.canary.version.executor.scorer = hung
            reply = await gateway.predict(
                predict_request(1, 2, 3, key=min(canary_keys())), within_s=1.0
            )
            hung.released.set()
            assert reply.role == FALLBACK
            calls = closed_windows(gateway)["CANARY"].calls
            assert (calls.late, calls.fallbacks) == (0, 1)

    asyncio.run(walk())


class Sleeping:
    """Takes .4 s for each run."""

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Zeros, late."""
        time.sleep(0.4)
        return np.zeros((len(matrix), 1), np.float32)


@pytest.mark.grpcio  # no door at all: once is enough
def test_a_queue_of_slow_runs_hangs_nothing() -> None:
    """Four runs of .4 s, one after the other: the last is out for over a second, and none hung."""
    lane = ModelExecutor(Sleeping(), 1)
    seen: list[bool] = []

    async def walk() -> None:
        matrix, offsets = np.zeros((1, 3), np.float32), np.array([0, 1], np.uint32)
        runs = [lane.start_run(matrix, offsets) for _ in range(4)]
        while runs[-1].result() is None:
            seen.append(lane.hung)
            await asyncio.sleep(0.05)

    asyncio.run(walk())
    lane.close()
    assert len(seen) > 20
    assert not any(seen)


class EndsMeanwhile(Future[Scored]):
    """Runs while it is looked at, and is back a moment later."""

    def running(self) -> bool:
        """True, and then it is not."""
        self.set_result(Scored(np.zeros((1, 1), np.float32), np.zeros(1, np.uint8), cpu_ns=0))
        return True


@pytest.mark.grpcio  # no door at all: once is enough
def test_a_run_that_is_back_while_it_is_judged_is_judged_by_its_work() -> None:
    """The version was released and its thread has ended: there is no clock left to ask."""
    lane = ModelExecutor(Sleeping(), 1)
    matrix, offsets = np.zeros((1, 3), np.float32), np.array([0, 1], np.uint32)

    async def walk() -> None:
        await lane.start_run(matrix, offsets).wait()
        thread = lane._thread
        assert thread is not None
        lane.close()
        await asyncio.to_thread(thread.shutdown)
        run = ScoringRun(EndsMeanwhile(), asyncio.get_running_loop().create_future())
        assert not lane.caused_delay(run, 1_000_000)

    asyncio.run(walk())


def test_being_late_opens_no_breaker_until_a_run_is_really_hung() -> None:
    """Ten late runs on ten keys: no guard. A run that is out for over a second: one guard."""

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files(), "2": tiny_files()}, CANARY_AT_HALF
        ) as gateway:
            routes = gateway.routes.get("churn")
            assert routes is not None
            assert routes.canary is not None
            lane, hung = routes.canary.version.executor, HungScorer()
            lane.scorer = hung
            drawn = sorted(canary_keys())
            for key in drawn[:10]:
                assert (await gateway.predict(predict_request(1, 2, 3, key=key))).role == FALLBACK
            assert gateway.guards == []
            await wait_until(lambda: lane.hung)
            for key in drawn[10:18]:
                assert (await gateway.predict(predict_request(1, 2, 3, key=key))).role == FALLBACK
            assert [guard.kind for guard in gateway.guards] == [window_pb2.HardGuard.BREAKER_OPEN]
            hung.released.set()

    asyncio.run(walk())
