"""The story: a good version is promoted, a faulty one rolled back, and no customer's call fails."""

import pytest

from tests.walks.conftest import Played

pytestmark = pytest.mark.walk


def test_every_step_of_the_story_held(played: Played) -> None:
    """System, features, training, four eyes, deployment, promotion, rollback, audit, customers."""
    steps = {step["step"]: step["state"] for step in played.summary["steps"]}
    assert set(steps.values()) == {"held"}
    assert len(steps) == 9
    assert played.summary["held"]


def test_the_four_times_are_in_order_and_the_traffic_moved_within_a_second(played: Played) -> None:
    """First bad answer, verdict, moved; from verdict to moved at most 1 s."""
    times = played.summary["four_times"]
    assert 0 < times["verdict_ms"] <= times["moved_ms"]
    assert 0 <= times["last_bad_ms"] <= times["moved_ms"] + 1000
    assert times["evidence_to_moved_ms"] <= 1000


def test_no_customer_call_failed_and_production_stood_in(played: Played) -> None:
    """Every call was answered; those that the faulty canary dropped, by production."""
    customers = played.summary["customers"]
    assert customers["failed"] == 0
    assert customers["answered"] == customers["sent"] > 5_000
    assert played.summary["answered_by"]["fallback"] > 0


def test_the_story_is_in_the_registry(played: Played) -> None:
    """2 is production, 3 is not; the rollouts ended so, and the history is whole."""
    shown = played.whole.turnout("splits", "show", "churn")
    assert (shown["production"], shown["canary"]["version"], shown["standby"]) == ("2", "", "")
    ended = [one["stage"] for one in played.whole.turnout("rollout", "history", "churn")]
    assert set(ended) == {"DONE", "ROLLED_BACK"}
    told = played.whole.turnout("rollout", "explain", "churn")
    assert "3" in told["text"]
    assert played.whole.turnout("audit", "verify")["whole"]
