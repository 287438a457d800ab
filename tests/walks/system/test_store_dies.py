"""The online store of a running system is killed."""

import os
import re
import signal
import urllib.request
from typing import Any, cast

import pytest

from tests.walks.conftest import SUBSCRIBERS, PlayedDemo
from tests.walks.running_system import RunningSystem, poll_system_until

pytestmark = pytest.mark.walk

KEY = "S0000042"


def flags(system: RunningSystem) -> list[str]:
    """Return the row flags of one customer's prediction."""
    names: list[str] = system.turnout("predict", "churn", KEY)["row_flags"][0]
    return names


def view_of_churn(system: RunningSystem) -> dict[str, Any]:
    """Return what `turnout models` says of the rows that production reads."""
    (model,) = [row for row in system.turnout("models") if row["model"] == "churn"]
    (view,) = model["views"]
    assert model["deployment"]["production"] in view["read_by"]
    return cast("dict[str, Any]", view)


def test_gateway_without_its_store_answers_with_flagged_defaults(
    played_demo: PlayedDemo,
) -> None:
    """Rows have flags while the store is gone or empty, and none when it is filled again."""
    system = played_demo.system
    assert flags(system) == []
    # The gateway looked at the age of the rows when the model was deployed.
    with urllib.request.urlopen(system.addresses.metrics) as page:
        text = page.read().decode()
    assert re.search(r'turnout_view_old{.*view="churn_profile".*} 0.0', text)
    assert re.search(r'turnout_view_newest_row_seconds{.*view="churn_profile".*} \d', text)
    # The store is killed.
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
    assert (view_of_churn(system)["old"], view_of_churn(system)["newest_row_age_s"]) == (True, None)
    written = system.turnout(*materialise)
    assert written["written"] == SUBSCRIBERS
    assert flags(system) == []
    # The record is there now: the rows are known to be new, and are not written again.
    view = view_of_churn(system)
    assert (view["old"], 0 <= view["materialised_age_s"] < 120) == (False, True)
    again = system.turnout(*materialise)
    assert (again["written"], again["incremental"]) == (0, [True])
    whole = system.turnout(*materialise, "--full", "--rows-per-second", "1000000")
    assert (whole["written"], whole["incremental"]) == (SUBSCRIBERS, [False])
