"""The judge: never healthy without evidence, never faulty without cause."""

from dataclasses import replace
from itertools import product

import pytest

from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import ClosedSecond
from rollout.judge.judge import FleetView, JudgeInputs, judge
from rollout.judge.reasons import evidence_rows
from rollout.policy.policy import JUDGED_METRICS
from rollout.policy.stages import Stage, StagePosition, Verdict
from tests.rollout.scripted_parts import QUICK, SCRIPT_START_S, make_window

CANARY = StagePosition(Stage.CANARY, 0)
READY = FleetView(workers=2)


def judge_inputs(
    position: StagePosition = CANARY, stayed_s: float = 10.0, **more: object
) -> JudgeInputs:
    """Return facts in which nothing is wrong."""
    return replace(JudgeInputs(position=position, stayed_s=stayed_s, fleet=READY), **more)  # type: ignore[arg-type]


def evidence_of_one_second(position: StagePosition = CANARY, *windows: object) -> Evidence:
    """Return evidence of one second."""
    evidence = Evidence("2", "1", QUICK)
    evidence.count_second(ClosedSecond(SCRIPT_START_S, 1, tuple(windows)), position, current=True)  # type: ignore[arg-type]
    return evidence


GOOD = make_window("canary", 0, clean=range(200))
REST = make_window("production", 0, clean=range(1_000, 2_800))


def test_enough_clean_keys_and_the_stay_are_healthy() -> None:
    """Both are needed; what is missing is said."""
    assert (
        judge(QUICK, judge_inputs(), evidence_of_one_second(CANARY, GOOD, REST)).verdict
        == Verdict.HEALTHY
    )
    early = judge(QUICK, judge_inputs(stayed_s=0.1), evidence_of_one_second(CANARY, GOOD, REST))
    assert (early.verdict, early.waiting_for) == (
        Verdict.UNDECIDED,
        ("0 s more of the minimum stay of 0.5 s",),
    )
    few = judge(
        QUICK,
        judge_inputs(),
        evidence_of_one_second(
            CANARY,
            make_window("canary", 0, clean=range(50)),
            make_window("production", 0, clean=range(1_000, 1_450)),
        ),
    )
    assert few.verdict == Verdict.UNDECIDED
    assert "clean keys: 50 of 149" in few.reason


@pytest.mark.parametrize(
    ("position", "stayed_s"),
    list(
        product(
            [
                StagePosition(Stage.SHADOW),
                CANARY,
                StagePosition(Stage.CANARY, 1),
                StagePosition(Stage.WATCH),
            ],
            [0.0, 59.0, 1e6],
        )
    ),
)
def test_zero_traffic_is_never_healthy_nor_faulty(position: StagePosition, stayed_s: float) -> None:
    """Absence of evidence moves nothing; at the time limit a person is asked."""
    verdict = judge(QUICK, judge_inputs(position, stayed_s), Evidence("2", "1", QUICK)).verdict
    assert verdict == (Verdict.HOLD if stayed_s > 60 else Verdict.UNDECIDED)


def test_a_failing_canary_is_faulty_with_its_numbers() -> None:
    """Six keys at 10 % share against none are enough; the reason says so."""
    found = judge(
        QUICK,
        judge_inputs(),
        evidence_of_one_second(CANARY, make_window("canary", 0, errors=range(6))),
    )
    assert found.verdict == Verdict.FAULTY
    assert found.reason.startswith("errors: 6 keys failed on the candidate against 0")
    both = evidence_of_one_second(
        CANARY,
        make_window("canary", 0, errors=range(6)),
        make_window("production", 0, errors=range(100, 160)),
    )
    assert judge(QUICK, judge_inputs(), both).verdict != Verdict.FAULTY


@pytest.mark.parametrize("what", ["nan"])
def test_nan_is_judged_like_errors(what: str) -> None:
    """Schema events have an alpha of their own."""
    found = judge(
        QUICK,
        judge_inputs(),
        evidence_of_one_second(CANARY, make_window("canary", 0, **{what: range(7)})),
    )  # type: ignore[arg-type]
    assert (found.verdict, found.reason[:6]) == (Verdict.FAULTY, "schema")


@pytest.mark.parametrize(
    "more",
    [
        {"fleet": FleetView(workers=2, silent=("worker g/0",))},
        {"late_windows": 3},
        {"monitoring_hold": "drift"},
    ],
)
def test_missing_or_doubtful_windows_hold(more: dict[str, object]) -> None:
    """However good the evidence looks; and a fault still rolls back."""
    doubtful = replace(judge_inputs(), **more)  # type: ignore[arg-type]
    assert (
        judge(QUICK, doubtful, evidence_of_one_second(CANARY, GOOD, REST)).verdict == Verdict.HOLD
    )
    bad = evidence_of_one_second(CANARY, make_window("canary", 0, errors=range(6)))
    assert judge(QUICK, doubtful, bad).verdict == Verdict.FAULTY


def test_a_hard_guard_needs_no_statistics() -> None:
    """A breaker that opened is FAULTY at once, with its words."""
    found = judge(
        QUICK,
        judge_inputs(guard_reason="BREAKER_OPEN: 5 of 5"),
        evidence_of_one_second(CANARY, GOOD, REST),
    )
    assert (found.verdict, found.reason) == (Verdict.FAULTY, "BREAKER_OPEN: 5 of 5")


def test_preload_waits_for_every_worker() -> None:
    """All ready: go on. One refusing: refused. None live, or one loading: wait, then refuse."""
    place, nothing = StagePosition(Stage.PRELOAD), Evidence("2", "1", QUICK)
    assert judge(QUICK, judge_inputs(place), nothing).verdict == Verdict.HEALTHY
    loading = FleetView(workers=2, not_ready=("worker g/1",))
    waiting = judge(QUICK, judge_inputs(place, 5, fleet=loading), nothing)
    assert (waiting.verdict, waiting.waiting_for) == (Verdict.UNDECIDED, ("worker g/1 to load it",))
    assert judge(QUICK, judge_inputs(place, 21, fleet=loading), nothing).verdict == Verdict.FAULTY
    assert (
        judge(QUICK, judge_inputs(place, 5, fleet=FleetView()), nothing).verdict
        == Verdict.UNDECIDED
    )
    refused = FleetView(workers=2, refused=("worker g/1: golden row 3",))
    assert "golden row 3" in judge(QUICK, judge_inputs(place, 1, fleet=refused), nothing).reason


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ((100, 20, 2), Verdict.HEALTHY),
        ((99, 0, 0), Verdict.UNDECIDED),
        ((100, 21, 0), Verdict.HOLD),
        ((10, 0, 3), Verdict.FAULTY),
    ],
)
def test_a_shadow_needs_pairs_and_must_not_fail(
    pairs: tuple[int, int, int], verdict: Verdict
) -> None:
    """Too many decisions that differ are nobody's approval: HOLD."""
    place = StagePosition(Stage.SHADOW)
    evidence = evidence_of_one_second(place, make_window("shadow", 0, pairs=pairs))
    assert judge(QUICK, judge_inputs(place), evidence).verdict == verdict


def test_the_watch_needs_evidence_too() -> None:
    """The new production shows itself clean beside its standby before the watch ends."""
    place = StagePosition(Stage.WATCH)
    good = evidence_of_one_second(place, make_window("promoted", 0, clean=range(200)))
    assert judge(QUICK, judge_inputs(place), good).verdict == Verdict.HEALTHY
    assert (
        judge(QUICK, judge_inputs(place), evidence_of_one_second(place, GOOD)).verdict
        == Verdict.UNDECIDED
    )


def test_a_row_a_judged_metric() -> None:
    """What is shown is what is judged by."""
    rows = evidence_rows(
        evidence_of_one_second(CANARY, make_window("canary", 0, clean=range(20), errors=[99]))
    )
    assert [row.metric for row in rows] == list(JUDGED_METRICS)
    assert (rows[0].canary_events, rows[0].canary_keys) == (1, 20)
    assert rows[0].log_threshold == pytest.approx(QUICK.log_threshold("errors"))
