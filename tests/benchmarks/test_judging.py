"""The judge's benchmark: its array form gives the real evidence, and its bars hold in small."""

import math

import numpy as np
import pytest

from benchmarks.judging import detection as finds
from benchmarks.judging import false_alarms as alarms
from benchmarks.judging.many_tests import DepartureArray, TiltArray
from rollout.evidence.evidence import Evidence
from rollout.evidence.latency import QUANTILES
from rollout.policy.stages import Stage, StagePosition
from rollout.simulation.simulate import simulate_canary, single_share_policy
from rollout.simulation.streams import (
    BINS,
    SCENARIOS,
    TrafficSecond,
    TrafficStream,
    as_closed_second,
)
from stats.latency import latency_bins
from stats.tilt import FEWER_EVENTS, LATENCY, MORE_EVENTS

SECONDS = 40
SHARE = 0.05
POLICY = single_share_policy(500)


def ignore_progress(done: float) -> None:
    """Take the progress and do nothing."""


def arm_events(
    ticks: list[TrafficSecond], evidence: Evidence, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (T, 1) events of a metric of canary and baseline, counted from the stream itself.

    Latencies are compared with the edges that the evidence has fixed.
    """

    def events(tick: TrafficSecond, *, candidate: bool) -> int:
        arm = tick.candidate if candidate else tick.baseline
        if name in QUANTILES:
            edge = evidence.latency.edges[name]
            return int((latency_bins(arm.latency_ns[~arm.bad]) > edge).sum())
        if name == "outcome":
            return len(arm.outcomes)
        return int({"errors": arm.failed, "schema": arm.nan, "timeouts": arm.timed_out}[name].sum())

    canary = [[events(tick, candidate=True)] for tick in ticks]
    return np.array(canary), np.array([[events(tick, candidate=False)] for tick in ticks])


@pytest.mark.parametrize("seed", [3, 4])
def test_many_tests_give_the_evidence_of_one_rollout(seed: int) -> None:
    """Every metric ends with the same ln E in both forms, to 1e-9."""
    stream = TrafficStream(SCENARIOS["errors-5"], SHARE, seed)
    ticks = list(stream.seconds_of_traffic(SECONDS))
    evidence = Evidence("2", "1", POLICY, stream.shift)
    for tick in ticks:
        evidence.count_second(as_closed_second(tick, 1), StagePosition(Stage.CANARY), current=True)
    fixed = next(n for n in range(SECONDS) if _baseline_records(ticks[: n + 1]) >= 500) + 1
    # Each metric of first events.
    for name, compared in evidence.metrics.items():
        canary, baseline = arm_events(ticks, evidence, name)
        first = fixed if name in QUANTILES else 0
        if name == "outcome":  # a second without an outcome is no look
            looks = (canary + baseline)[:, 0] > 0
            canary, baseline = canary[looks], baseline[looks]
        grid = LATENCY if name in QUANTILES else FEWER_EVENTS if name == "outcome" else MORE_EVENTS
        tilt = TiltArray(grid, 1, POLICY.looks_max)
        for canary_events, baseline_events in zip(canary[first:], baseline[first:], strict=True):
            tilt.step(canary_events, baseline_events, SHARE)
        assert math.log(tilt.e_max[0]) == pytest.approx(compared.tilt_state.log_e_max, abs=1e-9), (
            name
        )
    # The prediction metric.
    expected = evidence.prediction.expectation
    assert expected is not None
    departures = DepartureArray(expected, 1, POLICY.looks_max)
    for tick in ticks:
        fine = ~tick.candidate.bad
        departures.step(
            np.bincount(tick.candidate.bin[fine], minlength=BINS)[None],
            np.bincount(tick.candidate.champion_bin[fine], minlength=BINS)[None],
        )
    real = evidence.prediction.departure_state.log_e_max
    assert math.log(departures.e_max[0]) == pytest.approx(real, abs=1e-9)


def _baseline_records(ticks: list[TrafficSecond]) -> int:
    return sum(int((~tick.baseline.bad).sum()) for tick in ticks)


@pytest.mark.walk
def test_judge_lets_healthy_rollouts_pass_where_pooled_tests_raise_alarms() -> None:
    """At most 2 % of 250 rollouts with growing share and failures stop; by totals most do."""
    counts = alarms.count_false_alarms(POLICY, alarms.CLIMBING_RAMP, 250, 900, 7, ignore_progress)
    assert counts.rollouts == 250
    assert counts.any <= 5
    assert counts.pooled["pooled z-test, errors"] > 200


def test_judge_counts_a_customer_once_a_rollout() -> None:
    """With customers counted once, at most 2 % alarms; with every call counted, 8 % and more."""
    counts = alarms.count_sticky_alarms(4, 150, 1200, 5)
    assert counts.once_a_rollout <= 3
    assert counts.every_call >= 12


@pytest.mark.parametrize(
    ("scenario", "calls_max"), [("failing", 20), ("nan", 20), ("constant", 40)]
)
def test_judge_finds_a_total_failure_within_seconds(scenario: str, calls_max: int) -> None:
    """Every run is rolled back within 40 calls of a canary that has 5 calls/s."""
    for seed in range(3):
        ended = simulate_canary(SCENARIOS[scenario], POLICY, seed, 60)
        assert ended.verdict == "rolled back"
        assert ended.calls <= 40


@pytest.mark.walk
@pytest.mark.parametrize("scenario", ["errors-1", "slow", "shifted-small"])
def test_judge_finds_a_small_fault(scenario: str) -> None:
    """All of five runs are found, with a median within twice the full benchmark's bar."""
    result = finds.detect_with_our_judge(scenario, 5, 1, ignore_progress)
    assert result.rollouts_found == 5
    assert result.median_calls <= 2 * finds.MEDIAN_CALLS_MAX[scenario]


@pytest.mark.walk
def test_judge_promotes_a_spotless_candidate_in_the_forecast_time() -> None:
    """With the standard policy and 100 calls/s: DONE within 2 % of the forecast."""
    played, forecast_s = finds.play_to_promotion(1)
    assert played.position.stage == Stage.DONE
    assert played.second == pytest.approx(forecast_s, rel=0.02)


@pytest.mark.walk
def test_judge_neither_rolls_back_nor_promotes_without_data() -> None:
    """No calls, a failing baseline, lost batches, clocks an hour off: the stage stays."""
    for what, played in finds.play_missing_data(1, 200):
        assert len(played.steps) == 1, what


def test_evidence_is_the_same_however_it_is_split_and_resumed() -> None:
    """Split over 2, 5 and 16 gateways, and resumed every ten seconds: the same to 1e-9."""
    assert finds.merge_gap(2, 12) < 1e-9
    assert finds.resume_gap(2, 25) < 1e-9


def test_evidence_of_a_billion_calls_is_finite() -> None:
    """Ln E does not overflow."""
    assert math.isfinite(finds.billion_call_log_e())
