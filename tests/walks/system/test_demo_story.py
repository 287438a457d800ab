"""The story: a good version is promoted, four bad ones go back, and no customer's call fails."""

import pytest

from tests.walks.conftest import PlayedDemo

pytestmark = pytest.mark.walk


def test_every_step_of_the_story_held(played_demo: PlayedDemo) -> None:
    """System, features, training, four eyes, deployment, promotion, rollbacks, audit, customers."""
    steps = {step["step"]: step["state"] for step in played_demo.summary["steps"]}
    assert set(steps.values()) == {"held"}
    assert len(steps) == 12
    assert played_demo.summary["held"]


@pytest.mark.parametrize("name", ["faulty", "nan", "slow", "crashing"])
def test_the_four_times_are_in_order_and_the_traffic_moved_within_a_second(
    name: str, played_demo: PlayedDemo
) -> None:
    """First bad answer, verdict, moved; from verdict to moved at most 1 s; no call failed."""
    (card,) = [one for one in played_demo.summary["bad_versions"] if one["name"] == name]
    times = card["four_times"]
    assert 0 < times["verdict_ms"] <= times["moved_ms"]
    assert 0 <= times["last_bad_ms"] <= times["moved_ms"] + 1000
    assert times["evidence_to_moved_ms"] <= 1000
    assert card["customer_calls_failed"] == 0


def test_each_bad_version_goes_for_what_it_did(played_demo: PlayedDemo) -> None:
    """Failed, NaN, slow; and the one that crashes by SIGFPE met no customer at all."""
    cards = {one["name"]: one for one in played_demo.summary["bad_versions"]}
    assert cards["faulty"]["reason"].startswith("errors")
    assert "NaN" in cards["nan"]["reason"]
    assert cards["slow"]["reason"].startswith(("timeouts", "p50", "p90", "p99"))
    assert "SIGFPE" in cards["crashing"]["reason"]
    saved = {name: card["answered_by_production_instead"] for name, card in cards.items()}
    assert min(saved["faulty"], saved["nan"]) > 0
    assert (cards["crashing"]["canary_calls"], saved["crashing"]) == (0, 0)


def test_no_customer_call_failed_and_production_stood_in(played_demo: PlayedDemo) -> None:
    """Every call was answered; those that the faulty canary dropped, by production."""
    customers = played_demo.summary["customers"]
    assert customers["failed"] == 0
    assert customers["answered"] == customers["sent"] > 5_000
    assert played_demo.summary["answered_by"]["fallback"] > 0


def test_the_story_is_in_the_registry(played_demo: PlayedDemo) -> None:
    """2 is production, 3 to 6 are not; the rollouts ended so, and the history is whole."""
    shown = played_demo.system.turnout("splits", "show", "churn")
    assert (shown["production"], shown["canary"]["version"], shown["standby"]) == ("2", "", "")
    ended = [one["stage"] for one in played_demo.system.turnout("rollout", "history", "churn")]
    assert set(ended) == {"DONE", "ROLLED_BACK"}
    told = played_demo.system.turnout("rollout", "explain", "churn")
    assert "Version 6 of churn" in told["text"]
    assert played_demo.system.turnout("audit", "verify")["whole"]
