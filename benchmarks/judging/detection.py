"""Simulates how soon bad candidates are found, and what missing data does.

Evidence, judge, stages and inbox are the ones that run in production.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from benchmarks.judging.other_judges import judge_with_others
from protos import rollout_pb2, window_pb2
from rollout.checkpoint.codec import from_state, to_state
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.judge.forecast import forecast_steps
from rollout.lifecycle.clock import ClockReading
from rollout.lifecycle.deploy import RolloutSpec
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import JUDGED_METRICS, STANDARD, Policy
from rollout.policy.stages import Stage, StagePosition
from rollout.simulation.simulate import (
    REVISION,
    TURNOUT_NAME,
    JudgeResult,
    SimulatedRollout,
    simulate_canary,
    simulate_rollout,
    single_share_policy,
)
from rollout.simulation.streams import (
    NS,
    SCENARIOS,
    STREAM_START_S,
    TrafficStream,
    as_closed_second,
)
from stats import tilt

MEDIAN_CALLS_MAX = {
    "errors-1": 800,
    "errors-5": 100,
    "failing": 6,
    "nan": 6,
    "constant": 16,
    "slow": 500,
    "slow-tail": 1500,
    "shifted-small": 2700,
    "shifted": 45,
    "outcome": 5000,
    "late-errors": 1100,
}
"""Scenario -> promised median of canary calls, at a 5 % share, from the fault to the rollback."""
SHARE_BP = 500
HOUR_S = 3600

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """One judge on one scenario. Calls are the candidate's from the onset of the fault on."""

    judge: str
    runs: int
    rollouts_found: int
    median_calls: float
    p90_calls: float
    too_soon: int
    """Runs that were rolled back before the fault."""


def detect_with_our_judge(
    scenario: str, runs: int, seed: int, progress: Progress
) -> DetectionResult:
    """Simulate *runs* rollouts of one scenario with our judge, each until the fault is found."""
    traffic = SCENARIOS[scenario]
    policy = single_share_policy(SHARE_BP)
    ended = []
    for run in range(runs):
        ended.append(simulate_canary(traffic, policy, seed + run, traffic.onset_s + 2 * HOUR_S))
        progress((run + 1) / runs)
    return _detection_result(TURNOUT_NAME, ended, traffic.onset_s)


def detect_with_other_judges(
    scenario: str, runs: int, seed: int, progress: Progress
) -> list[DetectionResult]:
    """Simulate the same streams with the judges of other tools, for an hour each."""
    traffic = SCENARIOS[scenario]
    by_judge: dict[str, list[JudgeResult]] = {}
    for run in range(runs):
        stream = TrafficStream(traffic, SHARE_BP / 10_000, seed + run)
        for result in judge_with_others(stream.seconds_of_traffic(traffic.onset_s + HOUR_S)):
            by_judge.setdefault(result.judge, []).append(result)
        progress((run + 1) / runs)
    return [_detection_result(judge, ended, traffic.onset_s) for judge, ended in by_judge.items()]


def _detection_result(judge: str, ended: list[JudgeResult], onset_s: int) -> DetectionResult:
    rolled_back = [run for run in ended if run.verdict == "rolled back"]
    found = [run for run in rolled_back if run.second > onset_s]
    # The stream's rate is steady, so a run's calls after the onset are in proportion to its time.
    calls = sorted(
        run.calls * (run.second - onset_s) / run.second if onset_s else run.calls for run in found
    )
    never = float("nan")
    return DetectionResult(
        judge=judge,
        runs=len(ended),
        rollouts_found=len(found),
        median_calls=median(calls) if calls else never,
        p90_calls=float(np.quantile(calls, 0.9)) if calls else never,
        too_soon=len(rolled_back) - len(found),
    )


# A healthy candidate, and the forecast of its time


def play_to_promotion(seed: int, policy: Policy = STANDARD) -> tuple[SimulatedRollout, float]:
    """Simulate a candidate without a failure to its end; return it and the forecast seconds."""
    traffic = SCENARIOS["spotless"]
    steps = forecast_steps(replace(policy, shadow=None), traffic.calls_a_second)
    forecast_s = sum(step.seconds for step in steps)
    return simulate_rollout(traffic, policy, seed, round(3 * forecast_s) + 60), forecast_s


# Missing data


def play_missing_data(seed: int, seconds: int) -> Iterator[tuple[str, SimulatedRollout]]:
    """Yield a description and a rollout for each case that must neither roll back nor promote."""
    quick = replace(
        single_share_policy(SHARE_BP), canary=STANDARD.canary, watch_s=60.0, name="quick"
    )
    quick = replace(quick, canary=tuple(replace(stage, bake_s=60.0) for stage in quick.canary))
    rng = np.random.default_rng(seed)
    half = set(np.flatnonzero(rng.random(seconds) < 0.5).tolist())
    yield "no calls", simulate_rollout(SCENARIOS["silent"], quick, seed, seconds)
    yield (
        "production alone fails",
        simulate_rollout(SCENARIOS["baseline-bad"], quick, seed, seconds),
    )
    yield (
        "half of the batches are lost",
        simulate_rollout(SCENARIOS["healthy"], quick, seed, seconds, lost=half),
    )
    for skew_s in (-3600.0, 3600.0):
        yield (
            f"clock {skew_s:+.0f} s, no calls",
            simulate_rollout(SCENARIOS["silent"], quick, seed, seconds, skew_s=skew_s),
        )


def play_both_bad(runs: int, seed: int, seconds: int, progress: Progress) -> tuple[int, int]:
    """Simulate rollouts whose arms begin to fail alike; return (rolled back, held) of *runs*."""
    rolled_back = held = 0
    for run in range(runs):
        ended = simulate_canary(
            SCENARIOS["both-bad"], single_share_policy(SHARE_BP), seed + run, seconds
        )
        rolled_back += ended.verdict == "rolled back"
        held += ended.verdict == "held"
        progress((run + 1) / runs)
    return rolled_back, held


# The same evidence, however the records are split, sent and resumed


def evidence_of(seconds: list[ClosedSecond], seed: int, policy: Policy) -> Evidence:
    """Return the evidence after counting *seconds*, all in the canary stage."""
    evidence = Evidence("2", "1", policy, TrafficStream(SCENARIOS["errors-1"], 0.05, seed).shift)
    for second in seconds:
        evidence.count_second(second, StagePosition(Stage.CANARY), current=True)
    return evidence


def split_over_gateways(
    second: ClosedSecond, gateways: int, rng: np.random.Generator
) -> ClosedSecond:
    """Return the records of *second* as so many gateways would send them, in random order."""
    parts: list[window_pb2.Window] = []
    for window in second.windows:
        # Each gateway has a window of its own, without records.
        gateway_windows = [window_pb2.Window() for _ in range(gateways)]
        for part in gateway_windows:
            part.CopyFrom(window)
            part.ClearField("records")
        # Each key belongs to one gateway, which has the key's records.
        for records in window.records:
            owner = [hash((key, second.second)) % gateways for key in records.key_hash]
            for number, part in enumerate(gateway_windows):
                rows = [row for row, gateway in enumerate(owner) if gateway == number]
                paired = rows if records.production_bin else []
                if rows:
                    part.records.add(
                        metric=window_pb2.Metric.Name(records.metric),
                        key_hash=[records.key_hash[row] for row in rows],
                        bin=[records.bin[row] for row in rows],
                        production_bin=[records.production_bin[row] for row in paired],
                    )
        parts += gateway_windows
    order = rng.permutation(len(parts))
    return ClosedSecond(second.second, second.revision, tuple(parts[index] for index in order))


def log_e_by_metric(evidence: Evidence) -> dict[str, float]:
    """Return ln E of every metric, by its name."""
    log_e = {name: compared.tilt_state.log_e for name, compared in evidence.metrics.items()}
    return {**log_e, "prediction": evidence.prediction.departure_state.log_e}


def merge_gap(seed: int, seconds: int) -> float:
    """Return the largest |difference of ln E| when 2, 5 or 16 gateways send the records."""
    policy = single_share_policy(SHARE_BP)
    rng = np.random.default_rng(seed)
    stream = TrafficStream(SCENARIOS["errors-1"], 0.05, seed)
    closed_seconds = [
        as_closed_second(tick, REVISION) for tick in stream.seconds_of_traffic(seconds)
    ]
    truth = log_e_by_metric(evidence_of(closed_seconds, seed, policy))
    gap = 0.0
    for gateways in (2, 5, 16):
        parts = [split_over_gateways(second, gateways, rng) for second in closed_seconds]
        split = log_e_by_metric(evidence_of(parts, seed, policy))
        gap = max(gap, *(abs(split[name] - value) for name, value in truth.items()))
    return gap


def resume_gap(seed: int, seconds: int) -> float:
    """Return the largest |difference of ln E| when a rollout is resumed every ten seconds."""
    policy = single_share_policy(SHARE_BP)
    stream = TrafficStream(SCENARIOS["errors-1"], 0.05, seed)
    spec = RolloutSpec(
        rollout_id="r", model="simulated", version="2", baseline="1", policy=policy,
        approval_id="", split_salt=bytes(16), shift=stream.shift,
    )  # fmt: skip
    rollout = Rollout(spec=spec, started_unix_ms=STREAM_START_S * 1000)
    now = ClockReading(STREAM_START_S * NS, 0)
    rollout.enter_position(StagePosition(Stage.CANARY), REVISION, now, "simulated")
    closed_seconds = [
        as_closed_second(tick, REVISION) for tick in stream.seconds_of_traffic(seconds)
    ]
    truth = log_e_by_metric(evidence_of(closed_seconds, seed, policy))
    for number, second in enumerate(closed_seconds):
        rollout.evidence.count_second(second, StagePosition(Stage.CANARY), current=True)
        if number % 10 == 9:
            state = rollout_pb2.RolloutState.FromString(to_state(rollout).SerializeToString())
            rollout = from_state(state, "", {policy.name: policy}, now)
    resumed = log_e_by_metric(rollout.evidence)
    return max(abs(resumed[name] - value) for name, value in truth.items())


def billion_call_log_e() -> float:
    """Return ln E after a billion calls, nine in ten of whose events are the canary's."""
    state = tilt.start_tilt(tilt.MORE_EVENTS)
    for _ in range(1_000):
        state = tilt.step_tilt(tilt.MORE_EVENTS, state, 900_000, 100_000, 0.05, HOUR_S)
    return state.log_e


@dataclass(frozen=True, slots=True)
class EvidenceCost:
    """Microseconds for each metric and window: CPU time of the thread, except *wall*."""

    median: float
    mean: float
    low: float
    """The 5 % quantile over windows."""
    high: float
    """The 95 % quantile over windows."""
    wall: float
    """Median wall time, which other processes on the machine prolong."""


def measure_evidence_cost(
    seconds: int = 400, seed: int = 1, passes: int = 7, *, with_batches: bool = False
) -> EvidenceCost:
    """Return the cost of counting one second of 100 calls/s, for each of the judged metrics.

    passes        each window's time is its fastest of so many passes, because other processes on
                  the machine use the same caches.
    with_batches  each latency comes with the size of its batch, 1 to 8 calls, as gateways send it.
    """
    # The windows to count.
    stream = TrafficStream(SCENARIOS["healthy"], 0.05, seed)
    closed_seconds = [
        as_closed_second(tick, REVISION) for tick in stream.seconds_of_traffic(seconds)
    ]
    if with_batches:
        rng = np.random.default_rng(seed)
        for window in (window for second in closed_seconds for window in second.windows):
            for records in window.records:
                if records.metric == window_pb2.METRIC_LATENCY:
                    batch_calls = rng.integers(1, 9, len(records.key_hash))
                    records.batch_calls.extend(batch_calls.tolist())
    # Each window's fastest CPU and wall time.
    took = np.full((2, seconds), np.inf)
    for _ in range(passes):
        evidence = Evidence("2", "1", single_share_policy(SHARE_BP), stream.shift)
        for number, second in enumerate(closed_seconds):
            began, clock = time.thread_time(), time.perf_counter()
            evidence.count_second(second, StagePosition(Stage.CANARY), current=True)
            spent = time.thread_time() - began, time.perf_counter() - clock
            took[:, number] = np.minimum(took[:, number], spent)
    cpu, wall = took * 1e6 / len(JUDGED_METRICS)
    low, middle, high = np.quantile(cpu, (0.05, 0.5, 0.95)).tolist()
    return EvidenceCost(middle, float(cpu.mean()), low, high, float(np.median(wall)))
