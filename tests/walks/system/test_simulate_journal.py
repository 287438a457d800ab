"""`turnout rollout simulate --journal`: what the gateways wrote down is judged again."""

import pytest

from tests.walks.conftest import Played

pytestmark = pytest.mark.walk


def test_the_storys_faulty_version_is_found_again_in_the_journal(played: Played) -> None:
    """Version 3 failed on one customer in twenty; its journal alone says so."""
    line = ["rollout", "simulate", "--journal", str(played.whole.folder / "gateway")]
    line += ["--model", "churn", "--version", "3", "--share-bp", "1000"]
    told = played.whole.turnout(*line)
    assert (told[0]["judge"], told[0]["verdict"]) == ("Turnout", "rolled back")
    assert "errors" in told[0]["reason"]


def test_a_version_that_never_was_a_canary_is_refused(played: Played) -> None:
    """In words."""
    line = ["rollout", "simulate", "--journal", str(played.whole.folder / "gateway")]
    line += ["--model", "churn", "--version", "1"]
    assert "as canary" in played.whole.turnout(*line, exit_code=1)
