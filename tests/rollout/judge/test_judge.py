"""The judge: never healthy without evidence, never faulty without cause."""

from dataclasses import replace
from itertools import product

import pytest

from rollout.evidence.evidence import Evidence
from rollout.evidence.inbox import Second
from rollout.judge.judge import Facts, FleetView, judge
from rollout.judge.reasons import evidence_rows
from rollout.policy.policy import JUDGED
from rollout.policy.stages import Place, Stage, Verdict
from tests.rollout.scripted_parts import QUICK, START, window

CANARY = Place(Stage.CANARY, 0)
READY = FleetView(workers=2)


def facts(place: Place = CANARY, stayed_s: float = 10.0, **more: object) -> Facts:
    """Return facts in which nothing is wrong."""
    return replace(Facts(place=place, stayed_s=stayed_s, fleet=READY), **more)  # type: ignore[arg-type]


def told(place: Place = CANARY, *windows: object) -> Evidence:
    """Return evidence of one second."""
    evidence = Evidence("2", "1", QUICK)
    evidence.take(Second(START, 1, tuple(windows)), place, current=True)  # type: ignore[arg-type]
    return evidence


GOOD = window("canary", 0, clean=range(200))
REST = window("production", 0, clean=range(1_000, 2_800))


def test_enough_clean_keys_and_the_stay_are_healthy() -> None:
    """Both are needed; what is missing is said."""
    assert judge(QUICK, facts(), told(CANARY, GOOD, REST)).verdict == Verdict.HEALTHY
    early = judge(QUICK, facts(stayed_s=0.1), told(CANARY, GOOD, REST))
    assert (early.verdict, early.missing) == (Verdict.UNDECIDED, ("0 s of 0.5 s at this place",))
    few = judge(
        QUICK,
        facts(),
        told(
            CANARY,
            window("canary", 0, clean=range(50)),
            window("production", 0, clean=range(1_000, 1_450)),
        ),
    )
    assert few.verdict == Verdict.UNDECIDED
    assert "clean keys: 50 of 149" in few.reason


@pytest.mark.parametrize(
    ("place", "stayed_s"),
    list(
        product(
            [Place(Stage.SHADOW), CANARY, Place(Stage.CANARY, 1), Place(Stage.WATCH)],
            [0.0, 59.0, 1e6],
        )
    ),
)
def test_zero_traffic_is_never_healthy_nor_faulty(place: Place, stayed_s: float) -> None:
    """Absence of evidence moves nothing; at the time limit a person is asked."""
    verdict = judge(QUICK, facts(place, stayed_s), Evidence("2", "1", QUICK)).verdict
    assert verdict == (Verdict.HOLD if stayed_s > 60 else Verdict.UNDECIDED)


def test_a_failing_canary_is_faulty_with_its_numbers() -> None:
    """Six keys at 10 % share against none are enough; the reason says so."""
    found = judge(QUICK, facts(), told(CANARY, window("canary", 0, errors=range(6))))
    assert found.verdict == Verdict.FAULTY
    assert found.reason.startswith("errors: 6 keys failed on the candidate against 0")
    both = told(
        CANARY,
        window("canary", 0, errors=range(6)),
        window("production", 0, errors=range(100, 160)),
    )
    assert judge(QUICK, facts(), both).verdict != Verdict.FAULTY


@pytest.mark.parametrize("what", ["nan"])
def test_nan_is_judged_like_errors(what: str) -> None:
    """Schema events have an alpha of their own."""
    found = judge(QUICK, facts(), told(CANARY, window("canary", 0, **{what: range(7)})))  # type: ignore[arg-type]
    assert (found.verdict, found.reason[:6]) == (Verdict.FAULTY, "schema")


@pytest.mark.parametrize(
    "more",
    [
        {"fleet": FleetView(workers=2, silent=("worker g/0",))},
        {"late_windows": 3},
        {"finding": "drift"},
    ],
)
def test_missing_or_doubtful_windows_hold(more: dict[str, object]) -> None:
    """However good the evidence looks; and a fault still rolls back."""
    doubtful = replace(facts(), **more)  # type: ignore[arg-type]
    assert judge(QUICK, doubtful, told(CANARY, GOOD, REST)).verdict == Verdict.HOLD
    bad = told(CANARY, window("canary", 0, errors=range(6)))
    assert judge(QUICK, doubtful, bad).verdict == Verdict.FAULTY


def test_a_hard_guard_needs_no_statistics() -> None:
    """A breaker that opened is FAULTY at once, with its words."""
    found = judge(QUICK, facts(guard="BREAKER_OPEN: 5 of 5"), told(CANARY, GOOD, REST))
    assert (found.verdict, found.reason) == (Verdict.FAULTY, "BREAKER_OPEN: 5 of 5")


def test_preload_waits_for_every_worker() -> None:
    """All ready: go on. One refusing: refused. None live, or one loading: wait, then refuse."""
    place, nothing = Place(Stage.PRELOAD), Evidence("2", "1", QUICK)
    assert judge(QUICK, facts(place), nothing).verdict == Verdict.HEALTHY
    loading = FleetView(workers=2, not_ready=("worker g/1",))
    waiting = judge(QUICK, facts(place, 5, fleet=loading), nothing)
    assert (waiting.verdict, waiting.missing) == (Verdict.UNDECIDED, ("worker g/1 to load it",))
    assert judge(QUICK, facts(place, 21, fleet=loading), nothing).verdict == Verdict.FAULTY
    assert judge(QUICK, facts(place, 5, fleet=FleetView()), nothing).verdict == Verdict.UNDECIDED
    refused = FleetView(workers=2, refused=("worker g/1: golden row 3",))
    assert "golden row 3" in judge(QUICK, facts(place, 1, fleet=refused), nothing).reason


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
    place = Place(Stage.SHADOW)
    evidence = told(place, window("shadow", 0, pairs=pairs))
    assert judge(QUICK, facts(place), evidence).verdict == verdict


def test_the_watch_needs_evidence_too() -> None:
    """The new production shows itself clean beside its standby before the watch ends."""
    place = Place(Stage.WATCH)
    good = told(place, window("promoted", 0, clean=range(200)))
    assert judge(QUICK, facts(place), good).verdict == Verdict.HEALTHY
    assert judge(QUICK, facts(place), told(place, GOOD)).verdict == Verdict.UNDECIDED


def test_a_row_a_judged_metric() -> None:
    """What is shown is what is judged by."""
    rows = evidence_rows(told(CANARY, window("canary", 0, clean=range(20), errors=[99])))
    assert [row.metric for row in rows] == list(JUDGED)
    assert (rows[0].canary_events, rows[0].canary_keys) == (1, 20)
    assert rows[0].log_threshold == pytest.approx(QUICK.log_threshold("errors"))
