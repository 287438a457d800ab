"""The rollback benchmark: its fast path is the real evidence, and its bars hold in small."""

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


def ignored(done: float) -> None:
    """Nobody watches the progress."""


def counted(
    ticks: list[TrafficSecond], evidence: Evidence, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (T, 1) events of a metric of both arms, counted from the stream and not by evidence.

    Latencies against the edges that the evidence has fixed.
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
def test_the_fast_path_is_the_real_evidence_to_a_billionth(seed: int) -> None:
    """Errors, NaN, timeouts, three latencies, outcomes, prediction: the same ln E at each end."""
    stream = TrafficStream(SCENARIOS["errors-5"], SHARE, seed)
    ticks = list(stream.seconds_of_traffic(SECONDS))
    evidence = Evidence("2", "1", POLICY, stream.shift)
    for tick in ticks:
        evidence.count_second(as_closed_second(tick, 1), StagePosition(Stage.CANARY), current=True)
    fixed = next(n for n in range(SECONDS) if _baseline_records(ticks[: n + 1]) >= 500) + 1
    for name, compared in evidence.metrics.items():
        canary, baseline = counted(ticks, evidence, name)
        first = fixed if name in QUANTILES else 0
        if name == "outcome":  # a second without an outcome is no look
            kept = (canary + baseline)[:, 0] > 0
            canary, baseline = canary[kept], baseline[kept]
        grid = LATENCY if name in QUANTILES else FEWER_EVENTS if name == "outcome" else MORE_EVENTS
        fast = TiltArray(grid, 1, POLICY.looks_max)
        for mine, theirs in zip(canary[first:], baseline[first:], strict=True):
            fast.step(mine, theirs, SHARE)
        assert math.log(fast.e_max[0]) == pytest.approx(compared.tilt_state.log_e_max, abs=1e-9), (
            name
        )
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
def test_healthy_rollouts_are_left_alone_and_pooled_tests_are_fooled() -> None:
    """250 rollouts while share and failures grow: 2 % at most; by totals, most of them."""
    told = alarms.count_false_alarms(POLICY, alarms.CLIMBING_RAMP, 250, 900, 7, ignored)
    assert told.rollouts == 250
    assert told.any <= 5
    assert told.pooled["pooled z-test, errors"] > 200


def test_sticky_customers_count_once_a_rollout() -> None:
    """Counted once: 1 % at most. Every call: a tenth of healthy rollouts and more is accused."""
    told = alarms.count_sticky_alarms(4, 150, 1200, 5)
    assert told.once_a_rollout <= 3
    assert told.every_call >= 12


@pytest.mark.parametrize(
    ("scenario", "calls_max"), [("failing", 20), ("nan", 20), ("constant", 40)]
)
def test_a_total_failure_is_found_within_seconds(scenario: str, calls_max: int) -> None:
    """Every run, on a canary of 5 calls a second."""
    for seed in range(3):
        ended = simulate_canary(SCENARIOS[scenario], POLICY, seed, 60)
        assert ended.verdict == "rolled back"
        assert ended.calls <= 40


@pytest.mark.walk
@pytest.mark.parametrize("scenario", ["errors-1", "slow", "shifted-small"])
def test_a_small_fault_is_found(scenario: str) -> None:
    """Five runs each: all found, the median within twice the bar of the full benchmark."""
    told = finds.detect_with_our_judge(scenario, 5, 1, ignored)
    assert told.rollouts_found == 5
    assert told.median_calls <= 2 * finds.MEDIAN_CALLS_MAX[scenario]


@pytest.mark.walk
def test_a_spotless_candidate_is_promoted_when_it_was_foretold() -> None:
    """Standard policy, 100 calls a second: DONE, within 2 % of the foretold time."""
    played, foretold = finds.play_to_promotion(1)
    assert played.position.stage == Stage.DONE
    assert played.second == pytest.approx(foretold, rel=0.02)


@pytest.mark.walk
def test_without_data_nothing_moves() -> None:
    """No calls, a failing baseline, lost batches, clocks an hour off: it stays where it is."""
    for what, played in finds.play_missing_data(1, 200):
        assert len(played.steps) == 1, what


def test_evidence_is_one_however_it_is_cut_and_resumed() -> None:
    """Over 2, 5 and 16 gateways in any order, and killed every ten seconds: to a billionth."""
    assert finds.merge_gap(2, 12) < 1e-9
    assert finds.resume_gap(2, 25) < 1e-9


def test_a_billion_calls_are_an_ordinary_number() -> None:
    """Ln E of a billion accusing calls is finite."""
    assert math.isfinite(finds.billion_call_log_e())
