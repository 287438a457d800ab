"""`turnout review` beside a running system: the page of the week, and its decisions."""

import datetime as dt
from pathlib import Path

import pytest

from tests.walks.conftest import MODEL
from tests.walks.monitoring.looked_at import store_a_week
from tests.walks.running_system import RunningSystem

pytestmark = pytest.mark.walk


def test_review_shows_the_week_and_carries_decisions_over(
    running_system: RunningSystem, tmp_path: Path
) -> None:
    """Figures, the number of alarms, ages, actions; a decision until it is done."""
    store_a_week(running_system)
    due = (dt.datetime.now(dt.UTC).date() + dt.timedelta(days=7)).isoformat()
    line = ("look at f0", "--model", MODEL, "--owner", "dora", "--due", due)
    decided = running_system.turnout("review", "decide", *line)
    html, markdown = tmp_path / "review.html", tmp_path / "review.md"
    page = running_system.turnout("review", "--html", str(html), "--markdown", str(markdown))
    sections = page["sections"]
    # What looks have stored is in the sections of its kind.
    drift = [row["figure"] for row in sections["drift"]["rows"] if row["model"] == MODEL]
    assert drift == ["psi score against training", "psi f0 against training"]
    assert [row["number"] for row in sections["quality"]["rows"]] == ["0.71 [0.61, 0.81]"]
    assert sections["red"]["notes"] == ["alarms raised in this week: 1"]
    assert sections["fairness"]["rows"]
    # The registry's part: an age, what was done, and the decision.
    assert MODEL in [row["model"] for row in sections["stale"]["rows"]]
    assert {"register", "approve"} <= {row["what"] for row in sections["actions"]["rows"]}
    (decision,) = [row for row in sections["decisions"]["rows"] if row["id"] == decided["id"]]
    assert (decision["owner"], decision["state"], decision["decided_by"]) == ("dora", "open", "sam")
    # The pages have the same, and the picture of the drift is part of the file.
    assert "look at f0" in html.read_text()
    assert "<svg" in html.read_text()
    assert "## Decisions, carried over until done" in markdown.read_text()
    done = running_system.turnout("review", "done", str(decided["id"]), "-r", "it was a campaign")
    assert (done["done_by"], done["outcome"]) == ("sam", "it was a campaign")
    after = running_system.turnout("review")["sections"]["decisions"]["rows"]
    assert [row["state"] for row in after if row["id"] == decided["id"]] == ["done"]
    again = running_system.turnout("review", "done", str(decided["id"]), exit_code=1)
    assert "is done already, as sam said" in again


def test_week_in_the_past_has_its_own_figures(running_system: RunningSystem) -> None:
    """No figure is of 2020, and what waits is that of now."""
    page = running_system.turnout("review", "--week", "2020-W10")
    assert (page["first_day"], page["last_day"]) == ("2020-03-02", "2020-03-08")
    assert page["sections"]["drift"]["rows"] == []
    assert page["sections"]["drift"]["empty"].startswith("not enough data")
    assert page["sections"]["actions"]["rows"] == []


def test_review_without_monitoring_says_so(running_system: RunningSystem) -> None:
    """What the registry knows is shown all the same."""
    page = running_system.turnout("review", "--monitoring", "127.0.0.1:1")
    empty = page["sections"]["drift"]["empty"]
    assert empty.startswith("monitoring cannot be reached; where it runs alone, name it with")
    assert page["sections"]["stale"]["rows"]


def test_wrong_lines_are_refused(running_system: RunningSystem, tmp_path: Path) -> None:
    """A week that is none, a folder in place of a file, an unknown model and decision."""
    system = running_system
    assert "52 or 53 weeks" in system.turnout("review", "--week", "2026-W54", exit_code=2)
    assert "is a folder" in system.turnout("review", "--html", str(tmp_path), exit_code=2)
    nowhere = str(tmp_path / "none" / "page.html")
    assert "does not exist" in system.turnout("review", "--html", nowhere, exit_code=2)
    line = ("x", "--model", "nobody", "--owner", "dora", "--due", "2999-01-01")
    assert "no model 'nobody'" in system.turnout("review", "decide", *line, exit_code=1)
    assert "no decision 999999" in system.turnout("review", "done", "999999", exit_code=1)
