"""The demo: a good version is promoted, four bad ones are rolled back, and no call fails."""

import pytest

from features.replay.record import read_record
from tests.walks.conftest import PlayedDemo

pytestmark = pytest.mark.walk


def test_demo_passes_every_step(played_demo: PlayedDemo) -> None:
    """The fourteen steps begin with the start of the system and end with a count of all calls."""
    steps = {step["step"]: step["state"] for step in played_demo.summary["steps"]}
    assert set(steps.values()) == {"passed"}
    assert len(steps) == 14
    assert played_demo.summary["passed"]


@pytest.mark.parametrize("name", ["faulty", "nan", "slow", "crashing"])
def test_rollback_moves_traffic_within_a_second_of_the_verdict(
    name: str, played_demo: PlayedDemo
) -> None:
    """The four times are in order, and no customer call failed."""
    (bad,) = [row for row in played_demo.summary["bad_versions"] if row["name"] == name]
    times = bad["four_times"]
    assert 0 < times["verdict_ms"] <= times["moved_ms"]
    assert 0 <= times["last_bad_ms"] <= times["moved_ms"] + 1000
    assert times["evidence_to_moved_ms"] <= 1000
    assert bad["customer_calls_failed"] == 0


def test_rollback_reason_names_what_each_bad_version_did(played_demo: PlayedDemo) -> None:
    """The reasons are errors, NaN, latency and SIGFPE. No customer call reached the last."""
    results = {row["name"]: row for row in played_demo.summary["bad_versions"]}
    assert results["faulty"]["reason"].startswith("errors")
    assert "NaN" in results["nan"]["reason"]
    assert results["slow"]["reason"].startswith(("timeouts", "p50", "p90", "p99"))
    assert "SIGFPE" in results["crashing"]["reason"]
    fallbacks = {name: row["answered_by_production_instead"] for name, row in results.items()}
    assert min(fallbacks["faulty"], fallbacks["nan"]) > 0
    assert (results["crashing"]["canary_calls"], fallbacks["crashing"]) == (0, 0)


def test_demo_fails_no_customer_call_because_production_answers_instead(
    played_demo: PlayedDemo,
) -> None:
    """Production answered the calls that the faulty canary failed."""
    customers = played_demo.summary["customers"]
    assert customers["failed"] == 0
    assert customers["answered"] == customers["sent"] > 5_000
    assert played_demo.summary["answered_by"]["fallback"] > 0


def test_registry_has_the_rollouts_of_the_demo(played_demo: PlayedDemo) -> None:
    """Version 2 is production, the rollouts have ended, and the history is intact."""
    shown = played_demo.system.turnout("splits", "show", "churn")
    assert (shown["production"], shown["canary"]["version"], shown["standby"]) == ("2", "", "")
    stages = [
        rollout["stage"] for rollout in played_demo.system.turnout("rollout", "history", "churn")
    ]
    assert set(stages) == {"DONE", "ROLLED_BACK"}
    assert "Version 6 of churn" in played_demo.explanation
    assert played_demo.system.turnout("audit", "verify")["intact"]


def test_features_that_the_demo_served_are_what_training_sees(played_demo: PlayedDemo) -> None:
    """The replay joins the journaled rows of the promoted version, and no bit differs."""
    replayed = played_demo.system.turnout("features", "replay", "churn", "--record")
    assert replayed["rows"] > 1_000
    assert len(replayed["features"]) == 19
    assert {result["cause"] for result in replayed["features"]} == {""}
    assert replayed["views"]["churn_profile"]["late"] == 0
    # The registry has it, for policies that ask for a replay.
    # Beside it are the findings that say what the demo's rollbacks did.
    entries = played_demo.system.turnout("audit", "list", "--object", "model/churn/finding")
    (entry,) = [one for one in entries if one["object"].endswith(f"/{replayed['finding']}")]
    record = read_record(entry["reason"])
    assert (record.rows, record.skewed) == (replayed["rows"], {})
