"""The decision rules of other tools, and the command that compares them with our judge."""

import json

import pytest

from benchmarks.judging import compare_judges
from benchmarks.judging.other_judges import (
    ArgoShaped,
    FlaggerShaped,
    KayentaShaped,
    OtherJudge,
    SageMakerShaped,
    judge_with_others,
    kayenta_classify,
    mann_whitney_interval,
)
from rollout.simulation.streams import SCENARIOS, TrafficStream


@pytest.mark.walk
def test_kayenta_interval_and_verdict_agree_to_fifteen_digits() -> None:
    """Kayenta's issue 6278: 7 of 10 values a hundred times worse pass, and 8 of 10 do not."""
    low, _, estimate = mann_whitney_interval([100.0] * 7 + [1.0] * 3, [1.0] * 10)
    assert low == pytest.approx(6.825022991538781e-05, rel=1e-12)
    assert estimate == pytest.approx(98.99992904170193, rel=1e-15)
    assert kayenta_classify([100.0] * 7 + [1.0] * 3, [1.0] * 10) == "Pass"
    assert kayenta_classify([100.0] * 8 + [1.0] * 2, [1.0] * 10) == "High"


def test_kayenta_passes_errors_that_production_never_has() -> None:
    """Kayenta's issue 426: [0, 1, 2, 1, 0, 0] errors a minute against no errors pass."""
    assert kayenta_classify([0.0, 1.0, 2.0, 1.0, 0.0, 0.0], [0.0] * 6) == "Pass"


@pytest.mark.walk
def test_other_judges_roll_back_a_failing_candidate_in_their_own_time() -> None:
    """Every call fails. Argo needs 1 or 4 minutes, Flagger 5, Kayenta 10, SageMaker 20."""
    ended = {
        result.judge: result.second
        for result in judge_with_others(
            TrafficStream(SCENARIOS["failing"], 0.05, 1).seconds_of_traffic(1300)
        )
    }
    assert ended == {
        "Argo-shaped, failureLimit 0": 60,
        "Argo-shaped, failureLimit 3": 240,
        "Flagger-shaped, 5 strikes": 300,
        "Kayenta-shaped, 6 looks": 600,
        "SageMaker-shaped": 1200,
    }


@pytest.mark.parametrize(
    ("judge", "rolls_back"),
    [(FlaggerShaped(), True), (ArgoShaped(), False), (SageMakerShaped(), False)],
)
def test_other_judges_without_traffic_wait_except_flagger(
    judge: OtherJudge, rolls_back: bool
) -> None:
    """No values are a failed check for Flagger. Argo is set up to skip them."""
    reasons = [
        judge.judge_second(tick)
        for tick in TrafficStream(SCENARIOS["silent"], 0.05, 1).seconds_of_traffic(360)
    ]
    assert any(reasons) == rolls_back


def test_kayenta_judges_only_when_its_interval_is_over() -> None:
    """The interval is one minute here. Between two looks the judge returns nothing."""
    judge = KayentaShaped(every_minutes=1)
    reasons = [
        judge.judge_second(tick)
        for tick in TrafficStream(SCENARIOS["failing"], 0.05, 1).seconds_of_traffic(130)
    ]
    assert [second for second, reason in enumerate(reasons) if reason]
    assert all((second + 1) % 60 == 0 for second, reason in enumerate(reasons) if reason)


@pytest.mark.walk
def test_compare_judges_prints_every_judge_ours_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Each judge has a verdict, a second and a number of calls."""
    compare_judges.main(["failing", "--seconds", "5", "--json"])
    summaries = json.loads(capsys.readouterr().out)
    assert summaries[0]["judge"] == "Turnout"
    assert summaries[0]["verdict"] == "rolled back"
    assert len(summaries) == 6
