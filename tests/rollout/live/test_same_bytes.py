"""A canary with production's own bytes, through a real gateway, is promoted."""

import asyncio
import time
from dataclasses import replace

import grpc
import pytest

from protos import window_pb2
from registry.types import Deployment
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.judge.judge import FleetView, JudgeInputs, Judgement, judge
from rollout.policy.policy import DEMO
from rollout.policy.stages import Stage, StagePosition, Verdict
from stats.latency import quantile_ns
from tests.gateway.gateway_fixture import SALT, GatewayFixture, gateway_fixture, predict_request
from tests.tiny_models import tiny_files

pytestmark = pytest.mark.walk

SHARE_BP = 2_000
POLICY = replace(DEMO, canary=(replace(DEMO.canary[0], share_bp=SHARE_BP),), failure_bar=0.02)
POSITION = StagePosition(Stage.CANARY)
CALLERS = 8


async def call_until(gateway: GatewayFixture, caller: int, until: float) -> int:
    """Call with new keys until *until*. Return how many calls were answered."""
    answered = 0
    while time.monotonic() < until:
        try:
            await gateway.predict(
                predict_request(1.0, 2.0, 3.0, key=f"{caller}/{answered}/{time.monotonic_ns()}")
            )
            answered += 1
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.01)
    return answered


async def judge_windows(seconds: float) -> tuple[Judgement, Evidence]:
    """Judge the windows of a real gateway for *seconds*, one closed second after the other."""
    files = tiny_files()
    split = Deployment(
        model="churn",
        revision=1,
        production="1",
        canary="2",
        canary_bp=SHARE_BP,
        split_salt=SALT,
        holdout_salt=SALT,
    )
    evidence, judgement = Evidence("2", "1", POLICY), Judgement(Verdict.UNDECIDED, "")
    # Call the gateway and collect its windows.
    async with gateway_fixture({"1": files, "2": files}, split) as gateway:
        until = time.monotonic() + seconds
        calling = [
            asyncio.create_task(call_until(gateway, window, until)) for window in range(CALLERS)
        ]
        windows: list[window_pb2.Window] = []
        while not all(window.done() for window in calling):
            await asyncio.sleep(0.1)
            gateway.recorder.fold()
            windows += gateway.windows.close_windows(time.time_ns())
        windows += gateway.windows.close_windows(time.time_ns(), everything=True)
    # Judge them second by second.
    for second in sorted({window.second for window in windows}):
        of_second = tuple(window for window in windows if window.second == second)
        evidence.count_second(ClosedSecond(second, 1, of_second), POSITION, current=True)
        judgement = judge(
            POLICY, JudgeInputs(position=POSITION, stayed_s=60, fleet=FleetView()), evidence
        )
        assert judgement.verdict != Verdict.FAULTY, judgement
    return judgement, evidence


def test_judge_promotes_the_same_bytes_as_production() -> None:
    """There is no fault at any look, and both arms have the same latency."""
    judgement, evidence = asyncio.run(judge_windows(6.0))
    assert judgement.verdict == Verdict.HEALTHY, judgement
    shared = evidence.metrics["p50"]
    assert 0.0 < sum(shared.weighted_events) < shared.canary_events + shared.baseline_events
    canary, baseline = evidence.latency.rollout_counts
    assert canary.sum() > 100
    medians = [quantile_ns(arm, 0.5) for arm in (canary, baseline)]
    assert medians[0] < medians[1] * 1.10 + 500_000
