"""What a review says of a week."""

from dataclasses import replace

from tests.turnout.review.review_inputs import NOW_MS, PERIOD, busy_inputs
from turnout.review.inputs import MonitoringInputs, ReviewInputs
from turnout.review.section import ROWS_MAX, ReviewSection
from turnout.review.sections import review_sections, summary_lines


def sections_of(inputs: ReviewInputs) -> dict[str, ReviewSection]:
    """Return the sections by key."""
    return {section.key: section for section in review_sections(inputs)}


def test_red_has_incidents_and_the_alarms_that_none_has() -> None:
    """Each with why, and with who has it."""
    red = sections_of(busy_inputs())["red"]
    assert [(row["severity"], row["what"], row["owner"]) for row in red.rows] == [
        ("page", "usage is missing <b>", "nobody"),
        ("review", "features: f0 changed", "nobody"),
    ]
    assert red.rows[0]["why"] == "quality/usage: missing 0.4"
    assert red.notes == ("alarms raised in this week: 2",)


def test_figures_are_the_newest_of_each_name() -> None:
    """The scores come first, then the largest change; accepted days are the better reference."""
    sections = sections_of(busy_inputs())
    drift = [(row["figure"], row["value"], row["state"]) for row in sections["drift"].rows]
    assert drift == [
        ("psi score against training", 0.02, "small"),
        ("psi f0 against training", 0.31, "small"),
        ("psi f1 against accepted days", 0.04, "small"),
    ]
    assert sections["quality"].rows[0]["state"] == "final"
    assert sections["estimate"].rows[0]["number"] == "not enough data: 12 of 30 rows needed"
    assert sections["uplift"].empty.startswith("not enough data: no figure of this kind")
    assert sections["fairness"].empty.startswith("not shown: figures of fairness are left out")


def test_ages_and_what_waits_for_whom() -> None:
    """A version that was in production for two weeks waits for a person to accept its days."""
    sections = sections_of(busy_inputs())
    (stale,) = sections["stale"].rows
    assert (stale["version_days"], stale["data_days"], stale["production_days"]) == (40, 50, 20)
    assert sections["stale"].notes == ("Ages of views: name the online store",)
    waiting = [(row["who"], row["what"]) for row in sections["waiting"].rows]
    assert waiting == [
        ("a trainer", "queued run"),
        ("an operator", "reference to accept"),
        ("nobody", "incident"),
    ]
    # Where the reference was accepted, it waits no more.
    accepted = MonitoringInputs(references=frozenset({("churn", "7")}))
    again = sections_of(replace(busy_inputs(), monitoring=accepted))["waiting"]
    assert "reference to accept" not in [row["what"] for row in again.rows]


def test_actions_are_those_of_the_week_with_short_reasons() -> None:
    """The newest first."""
    actions = sections_of(busy_inputs())["actions"].rows
    assert [(row["who"], row["what"]) for row in actions] == [
        ("mon", "finding: hold"),
        ("sam", "deploy"),
    ]
    assert len(actions[0]["reason"]) < 130


def test_nothing_at_all_says_so_in_each_section() -> None:
    """A new system has no figure, no incident and no model, and no section is missing."""
    nothing = ReviewInputs(period=PERIOD, now_ms=NOW_MS)
    sections = review_sections(nothing)
    assert [section.key for section in sections] == [
        *("red", "drift", "quality", "estimate", "uplift", "fairness"),
        *("coverage", "stale", "waiting", "decisions", "actions"),
    ]
    assert all(not section.rows and section.empty for section in sections)
    assert summary_lines(sections) == [
        "Red: 0 page, 0 warning, 0 review",
        "Waiting: 0",
        "Decisions: 0 open, 0 overdue, 0 done",
    ]
    silent = replace(nothing, monitoring=MonitoringInputs(problem="monitoring does not answer"))
    assert sections_of(silent)["drift"].empty == "monitoring does not answer"


def test_long_section_says_how_much_it_leaves_out() -> None:
    """A page has 40 rows of a section, and JSON has all."""
    rows = tuple({"a": number} for number in range(ROWS_MAX + 3))
    section = ReviewSection("a", "A", ("a",), rows, "none")
    assert len(section.shown_rows) == ROWS_MAX
    assert section.shown_notes == ["3 more rows: turnout review --json has all"]
    assert len(section.to_json()["rows"]) == ROWS_MAX + 3
