"""What the whole judge makes of a canary's traffic: latency, predictions, doubts."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rollout.evidence.approved_shift import Shift
from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import Second
from rollout.judge.judge import Facts, FleetView, Judgement, judge
from rollout.policy.stages import Place, Stage, Verdict
from tests.rollout.scripted_parts import QUICK, START, window
from tests.rollout.scripted_traffic import Traffic, certificate, score_bins, scored

pytestmark = pytest.mark.walk

POLICY = replace(
    QUICK, canary=(replace(QUICK.canary[0], share_bp=500), QUICK.canary[1]), stage_s_max=1e9
)
CANARY = Place(Stage.CANARY, 0)
FACTS = Facts(place=CANARY, stayed_s=10.0, fleet=FleetView(workers=2))
SHIFT = certificate()

Course = Callable[[Traffic], None]


def looked(
    change: Course, *, shift: Shift | None = SHIFT, seconds: int = 120, healthy_s: int = 0
) -> tuple[Judgement, Evidence, int]:
    """Judge each second until FAULTY; return the verdict, the evidence, the canary's keys since
    *change*, which sets in after *healthy_s*.
    """
    traffic, evidence = Traffic(), Evidence("2", "1", POLICY, shift)
    judgement = Judgement(Verdict.UNDECIDED, "")
    before = 0
    for second in range(seconds):
        if second == healthy_s:
            change(traffic)
            before = evidence.totals.canary
        evidence.take(traffic.next(), CANARY, current=True)
        judgement = judge(POLICY, FACTS, evidence)
        if judgement.verdict == Verdict.FAULTY:
            break
    return judgement, evidence, evidence.totals.canary - before


def slower(traffic: Traffic) -> None:
    """A fifth, everywhere."""
    traffic.slower = 1.2


def much_slower(traffic: Traffic) -> None:
    """Three times, everywhere."""
    traffic.slower = 3.0


def tail_slower(traffic: Traffic) -> None:
    """Twice, on the slowest twentieth."""
    traffic.tail_slower = 2.0


def shifted(traffic: Traffic) -> None:
    """By one standard deviation."""
    traffic.shifted = 1.0


def constant(traffic: Traffic) -> None:
    """The same score for everybody."""
    traffic.constant = True


def unchanged(traffic: Traffic) -> None:
    """Do nothing."""
    del traffic


@pytest.mark.parametrize(
    ("change", "metric", "keys"),
    [
        (slower, "p", 1_500),
        (much_slower, "p", 100),
        (tail_slower, "p", 1_500),
        (shifted, "prediction", 60),
        (constant, "prediction", 40),
    ],
)
def test_a_fault_is_found_in_so_many_keys(change: Course, metric: str, keys: int) -> None:
    """After 10 s in which production fixed its edges; each with its metric named first."""
    found, _, needed = looked(change, healthy_s=10)
    assert found.verdict == Verdict.FAULTY, found
    assert found.reason.startswith(metric)
    assert needed <= keys


def test_a_healthy_candidate_that_differs_as_approved_is_promoted() -> None:
    """It ranks differently on most rows, as its certificate says; nothing holds it."""
    found, evidence, _ = looked(unchanged, seconds=60)
    assert found.verdict == Verdict.HEALTHY
    assert evidence.prediction.keys > 1_000
    assert evidence.latency.edges.keys() == {"p99", "p90", "p50"}


def test_a_difference_nobody_approved_holds_and_is_no_fault() -> None:
    """Without a certificate a retrained model waits for a person; a constant one is a fault."""
    found, _, _ = looked(unchanged, shift=None, seconds=30)
    assert found.verdict == Verdict.HOLD
    assert "nobody approved a difference" in found.reason
    fault, _, _ = looked(constant, shift=None, seconds=60)
    assert fault.verdict == Verdict.FAULTY
    assert "the same whatever production says" in fault.reason


def test_slower_within_the_margin_is_allowed() -> None:
    """Half a millisecond is the floor: 30 % of 1 ms is nobody's fault, however sure we are."""

    def slightly(traffic: Traffic) -> None:
        traffic.base_ms, traffic.slower = 0.2, 1.3

    found, evidence, _ = looked(slightly, seconds=90)
    assert evidence.metrics["p50"].state.log_e_max > POLICY.log_threshold("p50")
    assert found.verdict != Verdict.FAULTY


def test_a_load_that_slows_both_arms_accuses_nobody() -> None:
    """Every answer takes three times as long from one second to the next, canary's too."""

    def loaded(traffic: Traffic) -> None:
        traffic.load = 3.0

    found, _, _ = looked(loaded, seconds=60, healthy_s=20)
    assert found.verdict != Verdict.FAULTY


def test_an_answer_that_gets_slow_late_is_found() -> None:
    """Half a minute of health does not hide it."""
    found, _, needed = looked(much_slower, healthy_s=30)
    assert found.reason.startswith("p")
    assert needed <= 400


def test_keys_that_vanish_hold() -> None:
    """A canary that loses a third of its keys is not judged by the rest."""

    def losing(traffic: Traffic) -> None:
        traffic.lost = 1 / 3

    found, _, _ = looked(losing, seconds=60)
    assert found.verdict == Verdict.HOLD
    assert "keys are lost" in found.reason


def test_features_missing_for_the_canary_alone_hold() -> None:
    """A tenth of its rows against a hundredth of production's."""

    def starved(traffic: Traffic) -> None:
        traffic.missing = 0.2

    found, _, _ = looked(starved, seconds=60)
    assert found.verdict == Verdict.HOLD
    assert "features are missing on" in found.reason


def test_a_baseline_that_fails_holds_and_when_both_fail_alike_nobody_is_accused() -> None:
    """Production at 5 %: nothing can be compared with it, and the canary's 5 % are no news."""

    def both(traffic: Traffic) -> None:
        traffic.errors = traffic.baseline_errors = 0.05

    found, _, _ = looked(both, seconds=60, healthy_s=20)
    assert found.verdict == Verdict.HOLD
    assert "production itself fails" in found.reason


def test_an_outage_does_not_become_the_measure_of_what_is_ordinary() -> None:
    """Production fails on a tenth of its keys from the first second: held for as long as it does,
    and half a minute more.
    """
    evidence, traffic = Evidence("2", "1", POLICY, SHIFT), Traffic()
    traffic.baseline_errors = 0.1
    held = []
    for second in range(160):
        if second == 100:
            traffic.baseline_errors = 0.001
        evidence.take(traffic.next(), CANARY, current=True)
        held.append(any("production itself" in why for why in evidence.doubts.reasons()))
    assert all(held[5:125])
    assert not held[159]


def watched(shifted_by: float) -> Judgement:
    """Judge 60 seconds of the watch: 95 % of keys answered by the candidate."""
    draw, evidence = np.random.default_rng(8), Evidence("2", "1", POLICY, SHIFT)
    place = Place(Stage.WATCH)
    judgement = Judgement(Verdict.UNDECIDED, "")
    for second in range(60):
        windows = []
        for arm, keys in (("promoted", 380), ("standby", 20)):
            made = window(arm, second)
            before, after = scored(draw, keys)
            bins = score_bins(after + shifted_by if arm == "promoted" else before)
            names = draw.integers(0, 2**63, size=keys).tolist()
            made.records.add(metric="METRIC_SCORE", key_hash=names, bin=bins.tolist())
            windows.append(made)
        evidence.take(Second(START + second, 1, tuple(windows)), place, current=True)
        judgement = judge(POLICY, replace(FACTS, place=place), evidence)
        if judgement.verdict == Verdict.FAULTY:
            break
    return judgement


def test_the_watch_finds_what_departs_from_the_shift() -> None:
    """No row is scored twice any more: the standby's keys stand for what was expected."""
    assert watched(0.0).verdict != Verdict.FAULTY
    found = watched(1.0)
    assert found.verdict == Verdict.FAULTY
    assert found.reason.startswith("prediction")
