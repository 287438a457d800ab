"""The slow calls of one batch are one piece of evidence, however many they are."""

from dataclasses import replace

import pytest

from benchmarks.judging.stalls import count_stall_alarms
from protos import window_pb2
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.judge.reasons import rollback_reason
from rollout.policy.stages import Stage, StagePosition
from tests.rollout.scripted_parts import QUICK, SCRIPT_START_S, make_window

POSITION = StagePosition(Stage.CANARY)
EDGE, SLOW, SWIFT = 100, 200, 50
"""Latency bins: the p99 edge, and a bin above and below it."""


def window_in_batches(
    arm: str, number: int, keys: list[int], bins: list[int], calls: int
) -> window_pb2.Window:
    """Return a window whose calls were scored in batches of *calls*."""
    window = make_window(arm, number)
    window.records.add(
        metric="METRIC_LATENCY", key_hash=keys, bin=bins, batch_calls=[calls] * len(keys)
    )
    return window


def evidence_of_batches(calls: int, *, slow: int, rollout_seconds: int = 1) -> Evidence:
    """Return evidence in which *slow* keys of the candidate are slow, in batches of *calls*."""
    evidence = Evidence("2", "1", replace(QUICK, latency_floor_us=0))
    evidence.latency.edges = {"p99": EDGE}
    for number in range(rollout_seconds):
        first = 1_000 * number
        canary = window_in_batches(
            "canary", number, list(range(first, first + slow)), [SLOW] * slow, calls
        )
        baseline_keys = list(range(first + slow, first + 2 * slow))
        baseline = window_in_batches("production", number, baseline_keys, [SWIFT] * slow, calls)
        second = ClosedSecond(SCRIPT_START_S + number, 1, (canary, baseline))
        evidence.count_second(second, POSITION, current=True)
    return evidence


def test_latency_events_of_one_batch_have_a_total_weight_of_at_most_one() -> None:
    """Ten slow calls of one batch of twenty weigh one half, and are shown as ten keys."""
    p99 = evidence_of_batches(20, slow=10).metrics["p99"]
    assert (p99.canary_events, p99.baseline_events) == (10, 0)
    assert p99.weighted_events == pytest.approx((0.5, 0.0))
    assert evidence_of_batches(1, slow=10).metrics["p99"].weighted_events == (10.0, 0.0)


def test_rollback_reason_shows_keys_and_their_weight() -> None:
    """Forty slow keys of many batches roll back.

    Forty slow keys of one batch are almost no evidence.
    """
    assert evidence_of_batches(1, slow=40).metrics[
        "p99"
    ].tilt_state.log_e_max > QUICK.log_threshold("p99")
    assert evidence_of_batches(40, slow=40).metrics["p99"].tilt_state.log_e_max < 1.0
    evidence = evidence_of_batches(10, slow=40, rollout_seconds=10)
    evidence.latency.rollout_counts[0, SLOW] = evidence.latency.rollout_counts[1, SWIFT] = 1_000
    assert "400 keys" in rollback_reason(evidence.policy, evidence, "p99")
    assert "count as one: 40.0 against 0.0" in rollback_reason(evidence.policy, evidence, "p99")


def test_latency_event_of_a_key_in_two_batches_has_the_smaller_weight() -> None:
    """The order of the windows does not matter, and the key counts once."""
    for windows in ((2, 8), (8, 2)):
        evidence = Evidence("2", "1", QUICK)
        evidence.latency.edges = {"p99": EDGE}
        both = tuple(window_in_batches("canary", 0, [7], [SLOW], calls) for calls in windows)
        evidence.count_second(ClosedSecond(SCRIPT_START_S, 1, both), POSITION, current=True)
        assert evidence.metrics["p99"].weighted_events == (1 / 8, 0.0)


def test_timeouts_of_one_batch_have_a_total_weight_of_at_most_one() -> None:
    """A stall past the time budget gives timeouts of a whole batch."""
    window = make_window("canary", 0)
    window.records.add(metric="METRIC_TIMEOUT", key_hash=[1, 2], bin=[0, 0], batch_calls=[4, 4])
    evidence = Evidence("2", "1", QUICK)
    evidence.count_second(ClosedSecond(SCRIPT_START_S, 1, (window,)), POSITION, current=True)
    assert evidence.metrics["timeouts"].weighted_events == (0.5, 0.0)


def test_stalls_of_single_runs_roll_back_no_healthy_rollout() -> None:
    """300 healthy rollouts have 1,500 batches of 20.

    At most 1 % are rolled back by batches, most by calls.
    """
    alarms = count_stall_alarms(20, 300, 1_500, 1)
    assert alarms.alarms_by_batch <= 3
    assert alarms.alarms_by_call > 30
