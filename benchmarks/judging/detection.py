"""How soon bad candidates are found, and what absence of data does.

Evidence, judge, plan and inbox are the ones that run in production.
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
"""Scenario -> median canary calls, at a 5 % share, after it began to be bad."""
SHARE_BP = 500
HOUR_S = 3600

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """One judge on one scenario, over some runs. Calls are the candidate's, after the onset."""

    judge: str
    runs: int
    rollouts_found: int
    median_calls: float
    p90_calls: float
    too_soon: int
    """Rolled back before anything was wrong."""


def detect_with_our_judge(
    scenario: str, runs: int, seed: int, progress: Progress
) -> DetectionResult:
    """Run one scenario through our judge until it is found."""
    told = SCENARIOS[scenario]
    policy = single_share_policy(SHARE_BP)
    ended = []
    for run in range(runs):
        ended.append(simulate_canary(told, policy, seed + run, told.onset_s + 2 * HOUR_S))
        progress((run + 1) / runs)
    return _detection_result(TURNOUT_NAME, ended, told.onset_s)


def detect_with_other_judges(
    scenario: str, runs: int, seed: int, progress: Progress
) -> list[DetectionResult]:
    """Run the same streams through the other tools' judges, an hour each."""
    told = SCENARIOS[scenario]
    by_judge: dict[str, list[JudgeResult]] = {}
    for run in range(runs):
        stream = TrafficStream(told, SHARE_BP / 10_000, seed + run)
        for one in judge_with_others(stream.seconds_of_traffic(told.onset_s + HOUR_S)):
            by_judge.setdefault(one.judge, []).append(one)
        progress((run + 1) / runs)
    return [_detection_result(judge, ended, told.onset_s) for judge, ended in by_judge.items()]


def _detection_result(judge: str, ended: list[JudgeResult], onset_s: int) -> DetectionResult:
    back = [one for one in ended if one.verdict == "rolled back"]
    later = [one for one in back if one.second > onset_s]
    # Calls before the onset are those of an average run; the stream's rate is steady.
    calls = sorted(
        one.calls * (one.second - onset_s) / one.second if onset_s else one.calls for one in later
    )
    nothing = float("nan")
    return DetectionResult(
        judge=judge,
        runs=len(ended),
        rollouts_found=len(later),
        median_calls=median(calls) if calls else nothing,
        p90_calls=float(np.quantile(calls, 0.9)) if calls else nothing,
        too_soon=len(back) - len(later),
    )


# A healthy candidate, and the time its plan foretells


def play_to_promotion(seed: int, policy: Policy = STANDARD) -> tuple[SimulatedRollout, float]:
    """Play a candidate without any failure to its end; return it and the foretold seconds."""
    told = SCENARIOS["spotless"]
    steps = forecast_steps(replace(policy, shadow=None), told.calls_a_second)
    foretold = sum(step.seconds for step in steps)
    return simulate_rollout(told, policy, seed, round(3 * foretold) + 60), foretold


# Absence of data


def play_missing_data(seed: int, seconds: int) -> Iterator[tuple[str, SimulatedRollout]]:
    """Play what must neither roll back nor promote."""
    quick = replace(
        single_share_policy(SHARE_BP), canary=STANDARD.canary, watch_s=60.0, name="quick"
    )
    quick = replace(quick, canary=tuple(replace(one, bake_s=60.0) for one in quick.canary))
    chance = np.random.default_rng(seed)
    half = set(np.flatnonzero(chance.random(seconds) < 0.5).tolist())
    yield "nobody calls", simulate_rollout(SCENARIOS["silent"], quick, seed, seconds)
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
            f"clock {skew_s:+.0f} s, nobody calls",
            simulate_rollout(SCENARIOS["silent"], quick, seed, seconds, skew_s=skew_s),
        )


def play_both_bad(runs: int, seed: int, seconds: int, progress: Progress) -> tuple[int, int]:
    """Both arms begin to fail alike; return (rolled back, held) of *runs*."""
    back = held = 0
    for run in range(runs):
        ended = simulate_canary(
            SCENARIOS["both-bad"], single_share_policy(SHARE_BP), seed + run, seconds
        )
        back += ended.verdict == "rolled back"
        held += ended.verdict == "held"
        progress((run + 1) / runs)
    return back, held


# One evidence, however it is cut, sent and resumed


def evidence_of(seconds: list[ClosedSecond], seed: int, policy: Policy) -> Evidence:
    """Return the evidence of those seconds."""
    evidence = Evidence("2", "1", policy, TrafficStream(SCENARIOS["errors-1"], 0.05, seed).shift)
    for second in seconds:
        evidence.count_second(second, StagePosition(Stage.CANARY), current=True)
    return evidence


def split_over_gateways(
    second: ClosedSecond, gateways: int, chance: np.random.Generator
) -> ClosedSecond:
    """Return the same records as if so many gateways had seen parts of them, in any order."""
    parts: list[window_pb2.Window] = []
    for window in second.windows:
        made = [window_pb2.Window() for _ in range(gateways)]
        for part in made:
            part.CopyFrom(window)
            part.ClearField("records")
        for records in window.records:
            owner = [hash((key, second.second)) % gateways for key in records.key_hash]
            for number, part in enumerate(made):
                mine = [place for place, one in enumerate(owner) if one == number]
                paired = mine if records.production_bin else []
                if mine:
                    part.records.add(
                        metric=window_pb2.Metric.Name(records.metric),
                        key_hash=[records.key_hash[place] for place in mine],
                        bin=[records.bin[place] for place in mine],
                        production_bin=[records.production_bin[place] for place in paired],
                    )
        parts += made
    order = chance.permutation(len(parts))
    return ClosedSecond(second.second, second.revision, tuple(parts[place] for place in order))


def log_e_by_metric(evidence: Evidence) -> dict[str, float]:
    """Return every metric's ln E."""
    told = {name: compared.tilt_state.log_e for name, compared in evidence.metrics.items()}
    return {**told, "prediction": evidence.prediction.departure_state.log_e}


def merge_gap(seed: int, seconds: int) -> float:
    """Return the largest |difference of ln E| over partitions into 1 to 16 gateways."""
    policy = single_share_policy(SHARE_BP)
    chance = np.random.default_rng(seed)
    stream = TrafficStream(SCENARIOS["errors-1"], 0.05, seed)
    whole = [as_closed_second(tick, REVISION) for tick in stream.seconds_of_traffic(seconds)]
    truth = log_e_by_metric(evidence_of(whole, seed, policy))
    gap = 0.0
    for gateways in (2, 5, 16):
        parts = [split_over_gateways(one, gateways, chance) for one in whole]
        told = log_e_by_metric(evidence_of(parts, seed, policy))
        gap = max(gap, *(abs(told[name] - value) for name, value in truth.items()))
    return gap


def resume_gap(seed: int, seconds: int) -> float:
    """Return the largest |difference of ln E| when killed and resumed every ten seconds."""
    policy = single_share_policy(SHARE_BP)
    stream = TrafficStream(SCENARIOS["errors-1"], 0.05, seed)
    terms = RolloutSpec(
        rollout_id="r", model="simulated", version="2", baseline="1", policy=policy,
        approval_id="", split_salt=bytes(16), shift=stream.shift,
    )  # fmt: skip
    trial = Rollout(spec=terms, started_unix_ms=STREAM_START_S * 1000)
    now = ClockReading(STREAM_START_S * NS, 0)
    trial.enter_position(StagePosition(Stage.CANARY), REVISION, now, "simulated")
    whole = [as_closed_second(tick, REVISION) for tick in stream.seconds_of_traffic(seconds)]
    truth = log_e_by_metric(evidence_of(whole, seed, policy))
    for number, second in enumerate(whole):
        trial.evidence.count_second(second, StagePosition(Stage.CANARY), current=True)
        if number % 10 == 9:
            state = rollout_pb2.RolloutState.FromString(to_state(trial).SerializeToString())
            trial = from_state(state, "", {policy.name: policy}, now)
    told = log_e_by_metric(trial.evidence)
    return max(abs(told[name] - value) for name, value in truth.items())


def billion_call_log_e() -> float:
    """Return ln E after a billion calls that all accuse; finite."""
    state = tilt.start_tilt(tilt.MORE_EVENTS)
    for _ in range(1_000):
        state = tilt.step_tilt(tilt.MORE_EVENTS, state, 900_000, 100_000, 0.05, HOUR_S)
    return state.log_e


@dataclass(frozen=True, slots=True)
class EvidenceCost:
    """Microseconds a metric and window; CPU time of the thread but for *wall*."""

    median: float
    mean: float
    low: float
    """Of one window in twenty it is less ..."""
    high: float
    """... and of one in twenty it is more."""
    wall: float
    """Median by the clock: what neighbours on the machine make of it."""


def measure_evidence_cost(
    seconds: int = 400, seed: int = 1, passes: int = 7, *, with_batches: bool = False
) -> EvidenceCost:
    """Return what counting a second costs, at 100 calls a second, by each of the judged metrics.

    Each window's is its fastest of *passes*: neighbours on the machine take our caches.
    with_batches  with each latency the size of its batch, 1 to 8 calls, as gateways tell it.
    """
    stream = TrafficStream(SCENARIOS["healthy"], 0.05, seed)
    whole = [as_closed_second(tick, REVISION) for tick in stream.seconds_of_traffic(seconds)]
    if with_batches:
        chance = np.random.default_rng(seed)
        for window in (window for second in whole for window in second.windows):
            for one in window.records:
                if one.metric == window_pb2.METRIC_LATENCY:
                    one.batch_calls.extend(chance.integers(1, 9, len(one.key_hash)).tolist())
    took = np.full((2, seconds), np.inf)
    for _ in range(passes):
        evidence = Evidence("2", "1", single_share_policy(SHARE_BP), stream.shift)
        for number, second in enumerate(whole):
            began, clock = time.thread_time(), time.perf_counter()
            evidence.count_second(second, StagePosition(Stage.CANARY), current=True)
            spent = time.thread_time() - began, time.perf_counter() - clock
            took[:, number] = np.minimum(took[:, number], spent)
    cpu, wall = took * 1e6 / len(JUDGED_METRICS)
    low, middle, high = np.quantile(cpu, (0.05, 0.5, 0.95)).tolist()
    return EvidenceCost(middle, float(cpu.mean()), low, high, float(np.median(wall)))
