"""`turnout monitor figures | alarms | budget | accept` beside a running system."""

import datetime as dt
import json

import pytest

from tests.walks.conftest import MODEL
from tests.walks.monitoring.looked_at import store_a_week, store_days_with_rows, yesterday
from tests.walks.running_system import RunningSystem

pytestmark = pytest.mark.walk

EPOCH = dt.date(1970, 1, 1)


def test_figures_alarms_and_budget_of_a_model(running_system: RunningSystem) -> None:
    """Each number with its interval, or the reason why there is none."""
    store_a_week(running_system)
    figures = running_system.turnout("monitor", "figures", MODEL)
    assert {figure["kind"] for figure in figures} == {
        *("drift", "quality", "estimate", "uplift", "fairness", "coverage"),
    }
    (quality,) = running_system.turnout("monitor", "figures", MODEL, "--kind", "quality")
    assert (quality["name"], quality["value"], quality["days"]) == ("auc churned", 0.71, 7)
    (estimate,) = running_system.turnout("monitor", "figures", MODEL, "--kind", "estimate")
    assert (estimate["value"], estimate["lacking"][:15]) == (None, "not enough data")
    # An unknown kind would look like a model without figures.
    refused = running_system.turnout("monitor", "figures", MODEL, "--kind", "foo", exit_code=2)
    assert all(f"'{kind}'" in refused for kind in ("drift", "quality", "coverage", "budget"))
    # Alarms, and what has no detector.
    found = running_system.turnout("monitor", "alarms", MODEL)
    assert [(item["stream"], item["severity"]) for item in found["alarms"]] == [("f0", "review")]
    (look,) = [look for look in found["looks"] if look["look"] == "stored"]
    assert look["unwatched"] == {"f1": "not enough data: 40 of 100 rows"}
    # The budget is of kind "budget", with what was seen.
    (line,) = running_system.turnout("monitor", "budget", MODEL)
    keys = ("group", "detectors", "allowed", "bound", "seen")
    assert [line[key] for key in keys] == ["score", 6, 0.05, 0.04, 1]


@pytest.mark.parametrize("command", ["figures", "alarms", "budget"])
def test_unknown_model_is_named(running_system: RunningSystem, command: str) -> None:
    """An empty list would look like a model without figures."""
    message = running_system.turnout("monitor", command, "nobody", exit_code=1)
    assert "there is no model 'nobody'" in message


def test_days_are_accepted_in_the_history(running_system: RunningSystem) -> None:
    """As a finding that the looks read; an unknown version is refused before it is written."""
    last = EPOCH + dt.timedelta(days=yesterday())
    days = f"{last - dt.timedelta(days=13)}..{last}"
    line = ("--days", days, "--reason", "quiet weeks")
    store_days_with_rows(running_system, 13)
    few = running_system.turnout("monitor", "accept", MODEL, "1", *line, exit_code=1)
    assert "on 13 of the 14 days that a reference needs" in " ".join(few.split())
    store_days_with_rows(running_system, 14)
    written = running_system.turnout("monitor", "accept", MODEL, "1", *line)
    assert (written["kind"], written["version"], written["who"]) == ("reference", "1", "sam")
    assert json.loads(written["text"]) == {
        "first_day": yesterday() - 13,
        "last_day": yesterday(),
        "reason": "quiet weeks",
    }
    refused = running_system.turnout("monitor", "accept", MODEL, "99", *line, exit_code=1)
    assert "99" in refused
    short = ("--days", f"{last}..{last}", "--reason", "x")
    assert "1 days" in running_system.turnout("monitor", "accept", MODEL, "1", *short, exit_code=2)
    blank = ("--days", days, "--reason", " ")
    running_system.turnout("monitor", "accept", MODEL, "1", *blank, exit_code=2)
