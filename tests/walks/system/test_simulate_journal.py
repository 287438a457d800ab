"""`turnout rollout simulate --journal`: what the gateways wrote down is judged again."""

import pytest

from tests.walks.conftest import PlayedDemo

pytestmark = pytest.mark.walk


def test_the_storys_faulty_version_is_found_again_in_the_journal(played_demo: PlayedDemo) -> None:
    """Version 3 failed on one customer in twenty; its journal alone says so."""
    line = ["rollout", "simulate", "--journal", str(played_demo.system.folder / "gateway")]
    line += ["--model", "churn", "--version", "3", "--share-bp", "1000"]
    told = played_demo.system.turnout(*line)
    assert (told[0]["judge"], told[0]["verdict"]) == ("Turnout", "rolled back")
    assert "errors" in told[0]["reason"]


def test_a_version_that_never_was_a_canary_is_refused(played_demo: PlayedDemo) -> None:
    """In words."""
    line = ["rollout", "simulate", "--journal", str(played_demo.system.folder / "gateway")]
    line += ["--model", "churn", "--version", "1"]
    assert "as canary" in played_demo.system.turnout(*line, exit_code=1)
