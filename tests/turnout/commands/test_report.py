"""Tests of the five measures: from entries alone, each with its entries, and nothing made up."""

import json
from typing import Any

from turnout.report.facts import Fact, ReportInputs, history_facts
from turnout.report.measures import report_of

HOUR_MS = 3_600_000


def fact(seq: int, hour: float, action: str, name: str, **after: Any) -> Fact:  # noqa: ANN401
    """Return an entry about churn."""
    return Fact(seq, int(hour * HOUR_MS), action, "churn", name, after)


JOURNEY = (
    fact(1, 0, "begin run", "run/a", id="a"),
    fact(2, 2, "register", "version/7", digest="d7"),
    fact(3, 2, "end run", "run/a", id="a", version_digest="d7"),
    fact(4, 5, "approve", "approval/x", version="7"),
    fact(5, 6, "deploy", "deployment", production="6", preload=["7"], rollout_id="r1"),
    fact(6, 10, "deploy", "deployment", production="7"),
)
ACTED = json.dumps(
    {"finding": 9, "act": "rollback", "finding_unix_ms": 20_000, "acted_unix_ms": 23_500}
)
HOLD_ACTED = json.dumps({"finding": 8, "act": "hold", "finding_unix_ms": 100, "acted_unix_ms": 300})
INCIDENT = {
    "id": "ab12",
    "kind": "auc",
    "severity": 3,
    "resolution": 0,
    "since_unix_ms": 10 * HOUR_MS,
    "opened_unix_ms": 12 * HOUR_MS,
    "closed_unix_ms": 0,
    "figures": '{"uplift": 0.021, "uplift_low": 0.01, "money": 5200}',
}


def report(*facts: Fact, since_ms: int = 0, watched: bool = True) -> dict[str, Any]:
    """Return the report of these entries."""
    return report_of(
        ReportInputs(
            facts,
            now_ms=100 * HOUR_MS,
            since_ms=since_ms,
            policies={"churn": watched},
            policy_entries={"churn": 99},
        )
    )


def test_time_to_production_is_cut_into_stages() -> None:
    """Each stage is the time between two entries, which are named."""
    made = report(*JOURNEY)["time_to_production"]
    (version,) = [item for item in made["versions"] if item["version"] == "7"]
    assert version["stages"] == {
        "training": 2 * 3_600.0,
        "waiting for approval": 3 * 3_600.0,
        "waiting for rollout": 3_600.0,
        "rollout": 4 * 3_600.0,
    }
    assert (version["total_s"], version["entries"]) == (10 * 3_600.0, [1, 2, 4, 5, 6])
    assert made["total"]["count"] == 1
    # A version that became production before the period is not counted.
    assert report(*JOURNEY, since_ms=11 * HOUR_MS)["time_to_production"]["total"]["count"] == 0


def test_idea_begins_with_the_project_and_counts_for_the_first_version() -> None:
    """The second version of a model begins with its training."""
    second = (
        fact(7, 30, "register", "version/8", digest="d8"),
        fact(8, 31, "deploy", "deployment", production="8"),
    )
    idea = Fact(40, -24 * HOUR_MS, "apply project", "", "", {})
    first = [fact for fact in JOURNEY if fact.seq != 5]
    inputs = ReportInputs((*first, *second), 100 * HOUR_MS, -(10**12), ideas={"churn": idea})
    versions = report_of(inputs)["time_to_production"]["versions"]
    assert versions[0]["stages"]["idea"] == 24 * 3_600.0
    no_run = ReportInputs(tuple(first[1:]), 100 * HOUR_MS, -(10**12), ideas={"churn": idea})
    stages = report_of(no_run)["time_to_production"]["versions"][0]["stages"]
    assert stages["idea"] == 26 * 3_600.0
    assert "training" not in stages
    assert (versions[0]["total_s"], versions[0]["entries"][-1]) == (34 * 3_600.0, 40)
    assert "idea" not in versions[1]["stages"]
    assert versions[1]["total_s"] == 3_600.0


def test_version_without_a_run_has_no_time_of_training() -> None:
    """What is in no entry is left out, and is no zero."""
    made = report(*JOURNEY[1:])["time_to_production"]
    assert "training" not in made["versions"][0]["stages"]
    assert made["stages"][1] == {
        "name": "training",
        "count": 0,
        "median_s": None,
        "p90_s": None,
        "max_s": None,
        "entries": [],
    }


def test_models_that_run_elsewhere_are_known() -> None:
    """Only a model in production that a project watches is in monitored production."""
    elsewhere = Fact(8, 0, "add outside model", "fraud", "outside", {"place": "mainframe"})
    known = report(*JOURNEY, elsewhere)["monitored_models"]
    assert (known["known"], known["in_production"], known["in_monitored_production"]) == (2, 2, 1)
    assert [item["elsewhere"] for item in known["models"]] == ["", "mainframe"]
    assert known["models"][0]["entries"] == [2, 6, 99]
    # Scores that came within seven days are watched; older ones and those of others are not.
    for age_days, monitored in ((6, 2), (8, 1)):
        newest_ms = (100 - age_days * 24) * HOUR_MS
        text = json.dumps({"newest_unix_ms": newest_ms, "rows": 1, "content": ""})
        finding = Fact(9, 0, "finding", "fraud", "finding/1", {"kind": "scores", "text": text})
        known = report(*JOURNEY, elsewhere, finding)["monitored_models"]
        assert known["in_monitored_production"] == monitored
        assert known["models"][1]["entries"] == ([8, 9] if monitored == 2 else [8])
    unread = Fact(9, 0, "finding", "fraud", "finding/1", {"kind": "scores", "text": "{"})
    assert report(*JOURNEY, elsewhere, unread)["monitored_models"]["in_monitored_production"] == 1
    unwatched = report(*JOURNEY, watched=False)["monitored_models"]
    assert unwatched["in_monitored_production"] == 0


def test_answers_to_incidents_are_timed() -> None:
    """From when it began to when it was opened, acknowledged and closed."""
    facts = (
        fact(10, 12, "open incident", "incident/ab12", **INCIDENT),
        fact(
            11, 13, "change incident", "incident/ab12", id="ab12", acknowledged_unix_ms=13 * HOUR_MS
        ),
        fact(
            12,
            16,
            "change incident",
            "incident/ab12",
            id="ab12",
            closed_unix_ms=16 * HOUR_MS,
            resolution=2,
        ),
    )
    found = report(*facts)["incidents"]
    assert (found["count"], found["open"], found["by_severity"]) == (1, 0, {"page": 1})
    assert found["by_resolution"] == {"false alarm": 1}
    medians = {item["name"]: item["median_s"] for item in found["times"]}
    assert medians == {
        "to notice": 2 * 3_600,
        "to acknowledge": 3_600,
        "to mitigate": None,
        "to close": 4 * 3_600,
    }
    assert found["entries"] == [10, 11, 12]


def test_incident_without_a_beginning_has_no_time_to_notice() -> None:
    """A person opened it and gave no time; it would count as noticed after 0 s."""
    by_hand = {**INCIDENT, "id": "cd34", "since_unix_ms": INCIDENT["opened_unix_ms"]}
    facts = (
        fact(10, 12, "open incident", "incident/ab12", **INCIDENT),
        fact(11, 12, "open incident", "incident/cd34", **by_hand),
    )
    found = report(*facts)["incidents"]
    (noticed,) = [item for item in found["times"] if item["name"] == "to notice"]
    assert (found["count"], noticed["count"], noticed["entries"]) == (2, 1, [10])
    assert noticed["median_s"] == 2 * 3_600


def test_rollbacks_and_holds_are_timed_by_what_the_controller_wrote() -> None:
    """A rollout that a finding has ended counts once, from the finding on."""
    by_rollout = json.dumps(
        {"finding": 0, "act": "rollback", "rollout": "r1", "verdict_unix_ms": 5, "acted_unix_ms": 9}
    )
    by_finding = json.dumps(
        {
            "finding": 7,
            "act": "rollback",
            "rollout": "r1",
            "finding_unix_ms": 1,
            "acted_unix_ms": 2_001,
        }
    )
    texts = (ACTED, HOLD_ACTED, by_finding, by_rollout, "broken")
    facts = [
        fact(20 + n, 1, "finding", f"finding/{n}", kind="acted", text=text)
        for n, text in enumerate(texts)
    ]
    found = report(*facts)["rollbacks"]
    assert (found["automatic"]["count"], found["automatic"]["max_s"]) == (2, 3.5)
    assert (found["automatic"]["median_s"], found["held"]["median_s"]) == (2.75, 0.2)
    assert found["automatic"]["entries"] == [20, 22]


def test_uplift_is_the_newest_figure_or_not_measured() -> None:
    """A model in production without a figure is listed, and says so."""
    assert report(*JOURNEY)["uplift"][0]["measured"] is False
    measured = report(*JOURNEY, fact(10, 12, "open incident", "incident/ab12", **INCIDENT))
    (row,) = measured["uplift"]
    assert (row["uplift"], row["uplift_low"], row["uplift_high"], row["money"]) == (
        0.021,
        0.01,
        None,
        5200,
    )
    assert row["entries"] == [10]


def test_entries_that_cannot_be_read_are_left_out() -> None:
    """An altered entry is the audit's concern."""

    class Entry:
        seq, at_unix_ms, action, object, after = 1, 0, "deploy", "model/churn/deployment", "[1"

    assert history_facts([Entry()]) == []
