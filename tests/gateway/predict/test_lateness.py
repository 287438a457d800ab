"""Late runs have timeout evidence by their processor time, and a hung run opens the breaker."""

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

KEYS = CUSTOMER_KEYS[:16]
"""Keys of both arms."""


def test_dispatcher_falls_back_at_the_budget_of_a_hung_canary() -> None:
    """Keys of the canary fall back after 50 ms, and keys of production do not wait."""

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files(), "2": tiny_files()}, CANARY_AT_HALF
        ) as gateway:
            routes = gateway.routes.get("churn")
            assert routes is not None
            assert routes.canary is not None
            # A call of the canary hangs.
            executor, hung = routes.canary.version.executor, HungScorer()
            executor.scorer = hung
            loop = asyncio.get_running_loop()
            canary_key = min(canary_keys())
            production_key = min(set(CUSTOMER_KEYS) - canary_keys())
            began = loop.time()
            late = asyncio.create_task(gateway.predict(predict_request(1, 2, 3, key=canary_key)))
            await wait_until(lambda: executor.runs_waiting == 1)
            # A call of production is answered meanwhile.
            reply = await gateway.predict(predict_request(1, 2, 3, key=production_key))
            assert reply.role == PRODUCTION
            # The hung call falls back.
            assert not late.done() or loop.time() - began > 0.05
            assert (await late).role == FALLBACK
            assert loop.time() - began < 0.5
            hung.released.set()
            calls = closed_windows(gateway)["CANARY"].calls
            assert (calls.late, calls.fallbacks) == (0, 1)

    asyncio.run(walk())


async def timeouts(scorer: type[SlowScorer] | type[BusyScorer]) -> dict[str, set[int]]:
    """Return arm -> keys with timeout evidence, where both arms use *scorer* and have 50 ms.

    The canary is wrapped twice, so that it still runs when production, started with it, has ended.
    The budget is so long that the processor time of a run on a busy machine, some milliseconds, is
    no evidence.
    """
    short_budget = replace(CANARY_AT_HALF, policy=ServingPolicy(canary_budget_ms=50))
    async with gateway_fixture({"1": tiny_files(), "2": tiny_files()}, short_budget) as gateway:
        routes = gateway.routes.get("churn")
        assert routes is not None
        assert routes.canary is not None
        # Wrap the scorers, and call with every key.
        for participant in (routes.production, routes.canary, routes.canary):
            participant.version.executor.scorer = scorer(participant.version.executor.scorer)
        for key in KEYS:
            await gateway.predict(predict_request(1, 2, 3, key=key))
        # Production answers late without being counted as late; the canary falls back.
        windows = closed_windows(gateway)
        assert windows["PRODUCTION"].calls.answered == len(set(KEYS) - canary_keys())
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


def test_recorder_has_no_timeout_evidence_when_the_host_is_slow() -> None:
    """Both arms take more than 60 of the 50 ms allowed, but use no processor time."""
    assert asyncio.run(timeouts(SlowScorer)) == {"PRODUCTION": set(), "CANARY": set()}


def test_recorder_has_timeout_evidence_of_each_arm_that_computes_past_its_budget() -> None:
    """Both arms compute for more than 60 of the 50 ms allowed."""
    late_keys = asyncio.run(timeouts(BusyScorer))
    assert len(late_keys["PRODUCTION"]) == len(set(KEYS) - canary_keys())
    assert late_keys["CANARY"]


def test_dispatcher_does_not_count_the_canary_as_late_when_the_caller_gave_less_time() -> None:
    """The call has a deadline of 1 s, the hung canary a budget of 5 s; production answers."""
    long_budget = replace(CANARY_AT_HALF, policy=ServingPolicy(canary_budget_ms=5_000))

    async def walk() -> None:
        async with gateway_fixture({"1": tiny_files(), "2": tiny_files()}, long_budget) as gateway:
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


class SleepingScorer:
    """A scorer whose runs take 0.4 s each."""

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sleep, and return (B, 1) zeros."""
        time.sleep(0.4)
        return np.zeros((len(matrix), 1), np.float32)


@pytest.mark.grpcio  # no server is used, so one run is enough
def test_model_executor_is_not_hung_while_slow_runs_queue() -> None:
    """The last of four runs of 0.4 s waits for more than a second."""
    executor = ModelExecutor(SleepingScorer(), 1)
    hung_states: list[bool] = []

    async def walk() -> None:
        matrix, offsets = np.zeros((1, 3), np.float32), np.array([0, 1], np.uint32)
        runs = [executor.start_run(matrix, offsets) for _ in range(4)]
        while runs[-1].result() is None:
            hung_states.append(executor.hung)
            await asyncio.sleep(0.05)

    asyncio.run(walk())
    executor.close()
    assert len(hung_states) > 20
    assert not any(hung_states)


class EndingFuture(Future[Scored]):
    """The future of a run that ends directly after a caller saw it running."""

    def running(self) -> bool:
        """Return True, and end the run."""
        self.set_result(Scored(np.zeros((1, 1), np.float32), np.zeros(1, np.uint8), cpu_ns=0))
        return True


@pytest.mark.grpcio  # no server is used, so one run is enough
def test_caused_delay_uses_the_processor_time_of_a_run_that_ends_meanwhile() -> None:
    """The version was released and its thread has ended, so the thread has no clock any more."""
    executor = ModelExecutor(SleepingScorer(), 1)
    matrix, offsets = np.zeros((1, 3), np.float32), np.array([0, 1], np.uint32)

    async def walk() -> None:
        await executor.start_run(matrix, offsets).wait()
        thread = executor._thread
        assert thread is not None
        executor.close()
        await asyncio.to_thread(thread.shutdown)
        run = ScoringRun(EndingFuture(), asyncio.get_running_loop().create_future())
        assert not executor.caused_delay(run, 1_000_000)

    asyncio.run(walk())


def test_canary_breaker_opens_for_a_hung_run_and_not_for_late_runs() -> None:
    """Ten late runs on ten keys send no guard; a run of more than a second sends one."""

    async def walk() -> None:
        async with gateway_fixture(
            {"1": tiny_files(), "2": tiny_files()}, CANARY_AT_HALF
        ) as gateway:
            routes = gateway.routes.get("churn")
            assert routes is not None
            assert routes.canary is not None
            executor, hung = routes.canary.version.executor, HungScorer()
            executor.scorer = hung
            keys = sorted(canary_keys())
            for key in keys[:10]:
                assert (await gateway.predict(predict_request(1, 2, 3, key=key))).role == FALLBACK
            assert gateway.guards == []
            await wait_until(lambda: executor.hung)
            for key in keys[10:18]:
                assert (await gateway.predict(predict_request(1, 2, 3, key=key))).role == FALLBACK
            assert [guard.kind for guard in gateway.guards] == [window_pb2.HardGuard.BREAKER_OPEN]
            hung.released.set()

    asyncio.run(walk())
