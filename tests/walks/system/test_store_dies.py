"""The online store of a running system is killed."""

import os
import signal

import pytest

from tests.walks.conftest import SUBSCRIBERS, PlayedDemo
from tests.walks.running_system import RunningSystem, poll_system_until

pytestmark = pytest.mark.walk

KEY = "S0000042"


def flags(system: RunningSystem) -> list[str]:
    """Return the row flags of one customer's prediction."""
    names: list[str] = system.turnout("predict", "churn", KEY)["row_flags"][0]
    return names


def test_gateway_without_its_store_answers_with_flagged_defaults(
    played_demo: PlayedDemo,
) -> None:
    """Rows have flags while the store is gone or empty, and none when it is filled again."""
    system = played_demo.system
    assert flags(system) == []
    pid = int((system.folder / "store" / "pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)

    row_flags = poll_system_until(
        lambda: flags(system), 5.0, "the answers say that features are missing"
    )
    assert "defaulted" in row_flags
    poll_system_until(lambda: "missing" in flags(system), 15.0, "the store is back, and empty")

    # The empty store has no record of rows, so all of them are written.
    materialise = ("features", "materialise", "churn_profile")
    planned = system.turnout(*materialise, "--dry-run")
    assert (planned["rows"], planned["by_edition"][0]["incremental"]) == (SUBSCRIBERS, False)
    assert planned["bytes"] > SUBSCRIBERS * 100
    assert "missing" in flags(system)
    written = system.turnout(*materialise)
    assert written["written"] == SUBSCRIBERS
    assert flags(system) == []
    again = system.turnout(*materialise)
    assert (again["written"], again["incremental"]) == (0, [True])
    whole = system.turnout(*materialise, "--full", "--rows-per-second", "1000000")
    assert (whole["written"], whole["incremental"]) == (SUBSCRIBERS, [False])
