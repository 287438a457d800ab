"""`turnout rollout simulate --journal`: recorded traffic of a gateway is judged again."""

import pytest

from tests.walks.conftest import PlayedDemo

pytestmark = pytest.mark.walk


def test_simulate_finds_the_demos_faulty_version_in_the_journal(played_demo: PlayedDemo) -> None:
    """Version 3 failed on one customer in twenty."""
    line = ["rollout", "simulate", "--journal", str(played_demo.system.folder / "gateway")]
    line += ["--model", "churn", "--version", "3", "--share-bp", "1000"]
    results = played_demo.system.turnout(*line)
    assert (results[0]["judge"], results[0]["verdict"]) == ("Turnout", "rolled back")
    assert "errors" in results[0]["reason"]


def test_simulate_refuses_a_version_that_never_was_a_canary(played_demo: PlayedDemo) -> None:
    """The error says which canary has no call."""
    line = ["rollout", "simulate", "--journal", str(played_demo.system.folder / "gateway")]
    line += ["--model", "churn", "--version", "1"]
    assert "as canary" in played_demo.system.turnout(*line, exit_code=1)
