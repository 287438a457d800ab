"""The judge is never healthy without evidence and never faulty without a cause."""

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
    """Return inputs in which nothing is wrong."""
    return replace(JudgeInputs(position=position, stayed_s=stayed_s, fleet=READY), **more)  # type: ignore[arg-type]


def evidence_of_one_second(position: StagePosition = CANARY, *windows: object) -> Evidence:
    """Return evidence that has counted one second."""
    evidence = Evidence("2", "1", QUICK)
    evidence.count_second(ClosedSecond(SCRIPT_START_S, 1, tuple(windows)), position, current=True)  # type: ignore[arg-type]
    return evidence


GOOD = make_window("canary", 0, clean=range(200))
REST = make_window("production", 0, clean=range(1_000, 2_800))


def test_judge_is_healthy_after_enough_clean_keys_and_the_minimum_stay() -> None:
    """Both are needed, and the judgement says what is missing."""
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
def test_judge_without_traffic_is_never_healthy_nor_faulty(
    position: StagePosition, stayed_s: float
) -> None:
    """Absence of evidence moves nothing. At the time limit a person decides."""
    verdict = judge(QUICK, judge_inputs(position, stayed_s), Evidence("2", "1", QUICK)).verdict
    assert verdict == (Verdict.HOLD if stayed_s > 60 else Verdict.UNDECIDED)


def test_judge_is_faulty_for_a_failing_canary_and_names_the_numbers() -> None:
    """At a share of 10 %, six failed keys against none are enough.

    Both arms failing alike is no fault.
    """
    judgement = judge(
        QUICK,
        judge_inputs(),
        evidence_of_one_second(CANARY, make_window("canary", 0, errors=range(6))),
    )
    assert judgement.verdict == Verdict.FAULTY
    assert judgement.reason.startswith("errors: 6 keys failed on the candidate against 0")
    both = evidence_of_one_second(
        CANARY,
        make_window("canary", 0, errors=range(6)),
        make_window("production", 0, errors=range(100, 160)),
    )
    assert judge(QUICK, judge_inputs(), both).verdict != Verdict.FAULTY


@pytest.mark.parametrize("what", ["nan"])
def test_judge_is_faulty_for_nan_as_for_errors(what: str) -> None:
    """The metric schema has a weight of its own."""
    judgement = judge(
        QUICK,
        judge_inputs(),
        evidence_of_one_second(CANARY, make_window("canary", 0, **{what: range(7)})),
    )  # type: ignore[arg-type]
    assert (judgement.verdict, judgement.reason[:6]) == (Verdict.FAULTY, "schema")


@pytest.mark.parametrize(
    "more",
    [
        {"fleet": FleetView(workers=2, silent=("worker g/0",))},
        {"late_windows": 3},
        {"monitoring_hold": "drift"},
    ],
)
def test_judge_holds_when_windows_are_missing_or_monitoring_holds(more: dict[str, object]) -> None:
    """It holds however good the evidence is. A fault still rolls back."""
    doubtful = replace(judge_inputs(), **more)  # type: ignore[arg-type]
    assert (
        judge(QUICK, doubtful, evidence_of_one_second(CANARY, GOOD, REST)).verdict == Verdict.HOLD
    )
    bad = evidence_of_one_second(CANARY, make_window("canary", 0, errors=range(6)))
    assert judge(QUICK, doubtful, bad).verdict == Verdict.FAULTY


def test_judge_is_faulty_for_a_hard_guard_at_once() -> None:
    """The reason is the guard's text."""
    judgement = judge(
        QUICK,
        judge_inputs(guard_reason="BREAKER_OPEN: 5 of 5"),
        evidence_of_one_second(CANARY, GOOD, REST),
    )
    assert (judgement.verdict, judgement.reason) == (Verdict.FAULTY, "BREAKER_OPEN: 5 of 5")


def test_judge_of_a_preload_waits_for_every_worker() -> None:
    """One refusal is a fault. Without workers, or while one loads, it waits until the limit."""
    position, nothing = StagePosition(Stage.PRELOAD), Evidence("2", "1", QUICK)
    assert judge(QUICK, judge_inputs(position), nothing).verdict == Verdict.HEALTHY
    loading = FleetView(workers=2, not_ready=("worker g/1",))
    waiting = judge(QUICK, judge_inputs(position, 5, fleet=loading), nothing)
    assert (waiting.verdict, waiting.waiting_for) == (Verdict.UNDECIDED, ("worker g/1 to load it",))
    assert (
        judge(QUICK, judge_inputs(position, 21, fleet=loading), nothing).verdict == Verdict.FAULTY
    )
    assert (
        judge(QUICK, judge_inputs(position, 5, fleet=FleetView()), nothing).verdict
        == Verdict.UNDECIDED
    )
    refused = FleetView(workers=2, refused=("worker g/1: golden row 3",))
    assert "golden row 3" in judge(QUICK, judge_inputs(position, 1, fleet=refused), nothing).reason


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ((100, 20, 2), Verdict.HEALTHY),
        ((99, 0, 0), Verdict.UNDECIDED),
        ((100, 21, 0), Verdict.HOLD),
        ((10, 0, 3), Verdict.FAULTY),
    ],
)
def test_judge_of_a_shadow_needs_pairs_without_failures(
    pairs: tuple[int, int, int], verdict: Verdict
) -> None:
    """Too many decisions that differ hold it, because no approval covers them."""
    position = StagePosition(Stage.SHADOW)
    evidence = evidence_of_one_second(position, make_window("shadow", 0, pairs=pairs))
    assert judge(QUICK, judge_inputs(position), evidence).verdict == verdict


def test_judge_of_the_watch_needs_evidence() -> None:
    """The new production shows clean keys beside its standby before the watch ends."""
    position = StagePosition(Stage.WATCH)
    good = evidence_of_one_second(position, make_window("promoted", 0, clean=range(200)))
    assert judge(QUICK, judge_inputs(position), good).verdict == Verdict.HEALTHY
    assert (
        judge(QUICK, judge_inputs(position), evidence_of_one_second(position, GOOD)).verdict
        == Verdict.UNDECIDED
    )


def test_evidence_rows_has_one_row_for_each_judged_metric() -> None:
    """A row has the counts and the threshold of its metric."""
    rows = evidence_rows(
        evidence_of_one_second(CANARY, make_window("canary", 0, clean=range(20), errors=[99]))
    )
    assert [row.metric for row in rows] == list(JUDGED_METRICS)
    assert (rows[0].canary_events, rows[0].canary_keys) == (1, 20)
    assert rows[0].log_threshold == pytest.approx(QUICK.log_threshold("errors"))
