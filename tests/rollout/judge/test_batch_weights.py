"""What slows one call of a batch slows all: a batch is one piece of evidence, however large."""

from dataclasses import replace

import pytest

from benchmarks.judging.stalls import count_stall_alarms
from protos import window_pb2
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.judge.reasons import rollback_reason
from rollout.policy.stages import Stage, StagePosition
from tests.rollout.scripted_parts import QUICK, SCRIPT_START_S, make_window

PLACE = StagePosition(Stage.CANARY)
EDGE, SLOW, SWIFT = 100, 200, 50
"""Latency bins."""


def window_in_batches(
    arm: str, number: int, keys: list[int], bins: list[int], calls: int
) -> window_pb2.Window:
    """A window whose calls were scored in batches of *calls*."""
    made = make_window(arm, number)
    made.records.add(
        metric="METRIC_LATENCY", key_hash=keys, bin=bins, batch_calls=[calls] * len(keys)
    )
    return made


def evidence_of_batches(calls: int, *, slow: int, rollout_seconds: int = 1) -> Evidence:
    """*slow* of the candidate's keys are slow each second, in batches of *calls*."""
    evidence = Evidence("2", "1", replace(QUICK, latency_floor_us=0))
    evidence.latency.edges = {"p99": EDGE}
    for number in range(rollout_seconds):
        first = 1_000 * number
        mine = window_in_batches(
            "canary", number, list(range(first, first + slow)), [SLOW] * slow, calls
        )
        others = list(range(first + slow, first + 2 * slow))
        theirs = window_in_batches("production", number, others, [SWIFT] * slow, calls)
        second = ClosedSecond(SCRIPT_START_S + number, 1, (mine, theirs))
        evidence.count_second(second, PLACE, current=True)
    return evidence


def test_a_batch_weighs_one_however_many_of_its_calls_are_slow() -> None:
    """Ten slow calls of one batch of twenty weigh one half, and are still told as ten keys."""
    p99 = evidence_of_batches(20, slow=10).metrics["p99"]
    assert (p99.canary_events, p99.baseline_events) == (10, 0)
    assert p99.weighted_events == pytest.approx((0.5, 0.0))
    assert evidence_of_batches(1, slow=10).metrics["p99"].weighted_events == (10.0, 0.0)


def test_one_stall_does_not_accuse_and_the_words_say_what_was_counted() -> None:
    """Forty slow keys alone would be proof; as one batch they are next to nothing."""
    assert evidence_of_batches(1, slow=40).metrics[
        "p99"
    ].tilt_state.log_e_max > QUICK.log_threshold("p99")
    assert evidence_of_batches(40, slow=40).metrics["p99"].tilt_state.log_e_max < 1.0
    evidence = evidence_of_batches(10, slow=40, rollout_seconds=10)
    evidence.latency.rollout_counts[0, SLOW] = evidence.latency.rollout_counts[1, SWIFT] = 1_000
    assert "400 keys" in rollback_reason(evidence.policy, evidence, "p99")
    assert "count as one: 40.0 against 0.0" in rollback_reason(evidence.policy, evidence, "p99")


def test_a_key_that_is_slow_twice_weighs_what_its_larger_batch_says() -> None:
    """Whatever the order of a second's windows: the smaller weight, once."""
    for windows in ((2, 8), (8, 2)):
        evidence = Evidence("2", "1", QUICK)
        evidence.latency.edges = {"p99": EDGE}
        both = tuple(window_in_batches("canary", 0, [7], [SLOW], calls) for calls in windows)
        evidence.count_second(ClosedSecond(SCRIPT_START_S, 1, both), PLACE, current=True)
        assert evidence.metrics["p99"].weighted_events == (1 / 8, 0.0)


def test_late_calls_of_one_batch_weigh_one_too() -> None:
    """A stall past the time budget makes timeouts of a whole batch."""
    made = make_window("canary", 0)
    made.records.add(metric="METRIC_TIMEOUT", key_hash=[1, 2], bin=[0, 0], batch_calls=[4, 4])
    evidence = Evidence("2", "1", QUICK)
    evidence.count_second(ClosedSecond(SCRIPT_START_S, 1, (made,)), PLACE, current=True)
    assert evidence.metrics["timeouts"].weighted_events == (0.5, 0.0)


def test_a_host_that_stalls_one_run_at_a_time_rolls_nobody_back() -> None:
    """300 healthy rollouts of 1,500 batches of 20: at most 1 % by batches, most by calls."""
    found = count_stall_alarms(20, 300, 1_500, 1)
    assert found.alarms_by_batch <= 3
    assert found.alarms_by_call > 30
