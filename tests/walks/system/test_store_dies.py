"""The online store dies under a system that needs it."""

import os
import signal

import pytest

from tests.walks.conftest import SUBSCRIBERS, PlayedDemo
from tests.walks.running_system import RunningSystem, poll_system_until

pytestmark = pytest.mark.walk

KEY = "S0000042"


def flags(whole: RunningSystem) -> list[str]:
    """How fresh the features of one customer's prediction were."""
    words: list[str] = whole.turnout("predict", "churn", KEY)["row_flags"][0]
    return words


def test_without_its_store_the_gateway_answers_with_defaults_and_says_so(
    played_demo: PlayedDemo,
) -> None:
    """Killed: answers go on, flagged; back and empty: flagged still; filled: fresh again."""
    whole = played_demo.system
    assert flags(whole) == []
    pid = int((whole.folder / "store" / "pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)

    words = poll_system_until(
        lambda: flags(whole), 5.0, "the answers say that features are missing"
    )
    assert "defaulted" in words
    poll_system_until(lambda: "missing" in flags(whole), 15.0, "the store is back, and empty")

    written = whole.turnout("features", "materialise", "churn_profile")
    assert written["written"] == SUBSCRIBERS
    assert flags(whole) == []
