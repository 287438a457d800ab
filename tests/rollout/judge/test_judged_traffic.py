"""The judge on scripted traffic: latency, prediction and validity."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.judge.judge import FleetView, JudgeInputs, Judgement, judge
from rollout.policy.stages import Stage, StagePosition, Verdict
from tests.rollout.scripted_parts import QUICK, SCRIPT_START_S, make_window
from tests.rollout.scripted_traffic import (
    ScriptedTraffic,
    approved_test_shift,
    draw_scores,
    scripted_score_bins,
)

pytestmark = pytest.mark.walk

POLICY = replace(
    QUICK, canary=(replace(QUICK.canary[0], share_bp=500), QUICK.canary[1]), stage_s_max=1e9
)
CANARY = StagePosition(Stage.CANARY, 0)
FACTS = JudgeInputs(position=CANARY, stayed_s=10.0, fleet=FleetView(workers=2))
SHIFT = approved_test_shift()

Course = Callable[[ScriptedTraffic], None]


def judge_until_faulty(
    change: Course, *, shift: ApprovedShift | None = SHIFT, seconds: int = 120, healthy_s: int = 0
) -> tuple[Judgement, Evidence, int]:
    """Judge each second until FAULTY.

    Return the judgement, the evidence, and the canary's keys since *change*, which is applied after
    *healthy_s*.
    """
    traffic, evidence = ScriptedTraffic(), Evidence("2", "1", POLICY, shift)
    judgement = Judgement(Verdict.UNDECIDED, "")
    before = 0
    for second in range(seconds):
        if second == healthy_s:
            change(traffic)
            before = evidence.totals.canary
        evidence.count_second(traffic.next_second(), CANARY, current=True)
        judgement = judge(POLICY, FACTS, evidence)
        if judgement.verdict == Verdict.FAULTY:
            break
    return judgement, evidence, evidence.totals.canary - before


def slow_all(traffic: ScriptedTraffic) -> None:
    """Make every answer of the candidate a fifth slower."""
    traffic.latency_factor = 1.2


def slow_all_threefold(traffic: ScriptedTraffic) -> None:
    """Make every answer of the candidate take three times as long."""
    traffic.latency_factor = 3.0


def slow_tail(traffic: ScriptedTraffic) -> None:
    """Make the slowest twentieth of the answers take twice as long."""
    traffic.tail_latency_factor = 2.0


def shift_scores(traffic: ScriptedTraffic) -> None:
    """Shift the scores by one standard deviation."""
    traffic.score_shift = 1.0


def hold_score_constant(traffic: ScriptedTraffic) -> None:
    """Give every customer the same score."""
    traffic.constant_output = True


def leave_unchanged(traffic: ScriptedTraffic) -> None:
    """Change nothing in the traffic."""
    del traffic


@pytest.mark.parametrize(
    ("change", "metric", "keys"),
    [
        (slow_all, "p", 1_500),
        (slow_all_threefold, "p", 100),
        (slow_tail, "p", 1_500),
        (shift_scores, "prediction", 60),
        (hold_score_constant, "prediction", 40),
    ],
)
def test_judge_finds_a_fault_within_a_number_of_keys(
    change: Course, metric: str, keys: int
) -> None:
    """It begins after 10 s in which production fixed its edges.

    The reason begins with the metric.
    """
    judgement, _, needed = judge_until_faulty(change, healthy_s=10)
    assert judgement.verdict == Verdict.FAULTY, judgement
    assert judgement.reason.startswith(metric)
    assert needed <= keys


def test_judge_promotes_a_candidate_that_differs_as_approved() -> None:
    """Most of its scores differ from production's as the approved shift says."""
    judgement, evidence, _ = judge_until_faulty(leave_unchanged, seconds=60)
    assert judgement.verdict == Verdict.HEALTHY
    assert evidence.prediction.compared_keys > 1_000
    assert evidence.latency.edges.keys() == {"p99", "p90", "p50"}


def test_judge_holds_a_difference_that_was_not_approved() -> None:
    """Without an approved shift a retrained model is held, and a constant output is a fault."""
    judgement, _, _ = judge_until_faulty(leave_unchanged, shift=None, seconds=30)
    assert judgement.verdict == Verdict.HOLD
    assert "no approval covers a difference" in judgement.reason
    fault, _, _ = judge_until_faulty(hold_score_constant, shift=None, seconds=60)
    assert fault.verdict == Verdict.FAULTY
    assert "the same whatever production says" in fault.reason


def test_judge_allows_a_latency_within_the_margin() -> None:
    """The floor is 500 us, so 30 % of 0.2 ms is no fault, however strong the evidence."""

    def slightly(traffic: ScriptedTraffic) -> None:
        traffic.base_ms, traffic.latency_factor = 0.2, 1.3

    judgement, evidence, _ = judge_until_faulty(slightly, seconds=90)
    assert evidence.metrics["p50"].tilt_state.log_e_max > POLICY.log_threshold("p50")
    assert judgement.verdict != Verdict.FAULTY


def test_judge_does_not_roll_back_a_load_that_slows_both_arms() -> None:
    """Every answer of both arms takes three times as long from one second on."""

    def loaded(traffic: ScriptedTraffic) -> None:
        traffic.load_factor = 3.0

    judgement, _, _ = judge_until_faulty(loaded, seconds=60, healthy_s=20)
    assert judgement.verdict != Verdict.FAULTY


def test_judge_finds_answers_that_become_slow_late() -> None:
    """Half a minute of good answers comes first."""
    judgement, _, needed = judge_until_faulty(slow_all_threefold, healthy_s=30)
    assert judgement.reason.startswith("p")
    assert needed <= 400


def test_judge_holds_a_canary_that_loses_keys() -> None:
    """A third of the canary's keys is in no window."""

    def losing(traffic: ScriptedTraffic) -> None:
        traffic.lost_part = 1 / 3

    judgement, _, _ = judge_until_faulty(losing, seconds=60)
    assert judgement.verdict == Verdict.HOLD
    assert "keys are lost" in judgement.reason


def test_judge_holds_when_only_the_canary_misses_features() -> None:
    """A fifth of the canary's rows miss features, and a hundredth of production's."""

    def starved(traffic: ScriptedTraffic) -> None:
        traffic.missing_feature_rate = 0.2

    judgement, _, _ = judge_until_faulty(starved, seconds=60)
    assert judgement.verdict == Verdict.HOLD
    assert "features are missing on" in judgement.reason


def test_judge_holds_when_both_arms_fail_alike() -> None:
    """Production fails on 5 %, so nothing can be compared with it."""

    def both(traffic: ScriptedTraffic) -> None:
        traffic.error_rate = traffic.baseline_error_rate = 0.05

    judgement, _, _ = judge_until_faulty(both, seconds=60, healthy_s=20)
    assert judgement.verdict == Verdict.HOLD
    assert "production itself fails" in judgement.reason


def test_validity_holds_for_as_long_as_production_fails() -> None:
    """Production fails on a tenth of its keys from the first second.

    It is held for that time and half a minute more: the outage does not become the usual rate.
    """
    evidence, traffic = Evidence("2", "1", POLICY, SHIFT), ScriptedTraffic()
    traffic.baseline_error_rate = 0.1
    holds = []
    for second in range(160):
        if second == 100:
            traffic.baseline_error_rate = 0.001
        evidence.count_second(traffic.next_second(), CANARY, current=True)
        holds.append(any("production itself" in why for why in evidence.validity.hold_reasons()))
    assert all(holds[5:125])
    assert not holds[159]


def judge_watch(shifted_by: float) -> Judgement:
    """Judge 60 seconds of the watch, in which the candidate answers 95 % of the keys."""
    rng, evidence = np.random.default_rng(8), Evidence("2", "1", POLICY, SHIFT)
    position = StagePosition(Stage.WATCH)
    judgement = Judgement(Verdict.UNDECIDED, "")
    for second in range(60):
        windows = []
        for arm, keys in (("promoted", 380), ("standby", 20)):
            window = make_window(arm, second)
            before, after = draw_scores(rng, keys)
            bins = scripted_score_bins(after + shifted_by if arm == "promoted" else before)
            names = rng.integers(0, 2**63, size=keys).tolist()
            window.records.add(metric="METRIC_SCORE", key_hash=names, bin=bins.tolist())
            windows.append(window)
        evidence.count_second(
            ClosedSecond(SCRIPT_START_S + second, 1, tuple(windows)), position, current=True
        )
        judgement = judge(POLICY, replace(FACTS, position=position), evidence)
        if judgement.verdict == Verdict.FAULTY:
            break
    return judgement


def test_judge_finds_a_departure_from_the_shift_in_the_watch() -> None:
    """No row is scored twice there, and the standby's keys show what was expected."""
    assert judge_watch(0.0).verdict != Verdict.FAULTY
    judgement = judge_watch(1.0)
    assert judgement.verdict == Verdict.FAULTY
    assert judgement.reason.startswith("prediction")
