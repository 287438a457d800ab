"""The forecast says what the judge will need."""

import math

import pytest

from protos import window_pb2
from rollout.controller.traffic_rate import TrafficRate
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.judge.forecast import forecast_reply, forecast_steps, smallest_detectable_rate
from rollout.judge.judge import FleetView, JudgeInputs, judge
from rollout.policy.policy import DEMO, STANDARD
from rollout.policy.stages import Stage, Verdict
from stats.tilt import MORE_EVENTS
from tests.rollout.scripted_parts import SCRIPT_START_S, make_batch, make_window


def test_judge_passes_a_clean_candidate_at_the_forecast_number_of_keys() -> None:
    """With one key fewer it is undecided."""
    for step in forecast_steps(DEMO, 300.0)[1:]:
        canary = "canary" if step.position.stage == Stage.CANARY else "promoted"
        other = "production" if canary == "canary" else "standby"
        baseline_keys = round(step.keys * (1e4 - step.share_bp) / step.share_bp)
        for keys, verdict in ((step.keys - 1, Verdict.UNDECIDED), (step.keys, Verdict.HEALTHY)):
            evidence = Evidence("2", "1", DEMO)
            windows = (
                make_window(canary, 0, clean=range(keys)),
                make_window(other, 0, clean=range(10**6, 10**6 + baseline_keys)),
            )
            evidence.count_second(
                ClosedSecond(SCRIPT_START_S, 1, windows), step.position, current=True
            )
            facts = JudgeInputs(
                position=step.position, stayed_s=step.seconds, fleet=FleetView(workers=1)
            )
            assert judge(DEMO, facts, evidence).verdict == verdict


def test_forecast_time_is_the_longer_of_minimum_stay_and_keys() -> None:
    """With much traffic it is the stay, with little the keys, and without traffic infinite."""
    busy, quiet, silent = (forecast_steps(STANDARD, rate) for rate in (10_000.0, 1.0, 0.0))
    assert [step.seconds for step in busy] == [300.0, 600.0, 600.0, 900.0, 3_600.0]
    assert quiet[1].seconds == pytest.approx(600 / 0.05)
    assert all(math.isinf(step.seconds) for step in silent)


def test_smallest_detectable_rate_falls_with_the_number_of_keys() -> None:
    """It is never below production's own rate."""
    rates = [
        smallest_detectable_rate(MORE_EVENTS, 0.001, keys, 0.05, 6.2)
        for keys in (10, 800, 10_000, 10**6)
    ]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.3
    assert rates[1] < 0.012
    assert 0.001 < rates[-1] < 0.0015
    assert smallest_detectable_rate(MORE_EVENTS, 0.001, 0, 0.05, 6.2) == 1.0


def test_forecast_reply_has_a_text_with_a_line_for_each_step() -> None:
    """The text names a step that reaches its time limit first."""
    reply = forecast_reply(STANDARD, 0.1, 0.0)
    assert len(reply.steps) == 5
    assert "a person will have to decide" in reply.text
    assert "canary 5 %" in reply.text
    assert reply.steps[1].keys == 600
    assert "never, without traffic" in forecast_reply(STANDARD, 0.0, 0.0).text


def test_traffic_rate_is_the_mean_of_the_last_minute() -> None:
    """It counts the calls of every serving arm of a model, without the newest two seconds."""
    traffic_rate = TrafficRate()
    assert traffic_rate.calls_a_second("churn") == 0.0
    for second in range(200):
        windows = [
            make_window("production", second, clean=range(40)),
            make_window("canary", second, clean=range(10)),
            make_window("shadow", second, pairs=(9, 0, 0)),
            make_window("production", second, clean=range(500), model="fraud"),
        ]
        traffic_rate.add_batch(make_batch(second + 1, *windows, sent_s=second + 1))
    assert traffic_rate.calls_a_second("churn") == pytest.approx(50.0, rel=0.03)
    assert traffic_rate.calls_a_second("fraud") == pytest.approx(500.0, rel=0.03)
    traffic_rate.add_batch(window_pb2.WindowBatch(sent_unix_ns=(SCRIPT_START_S + 1_000) * 10**9))
    assert traffic_rate.calls_a_second("churn") == 0.0
