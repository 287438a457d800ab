"""Decisions are what findings of kind "review" say."""

import datetime as dt
import json

import pytest

from protos import registry_pb2 as pb
from turnout.errors import OperatorError, UsageError
from turnout.review.decisions import decision_text, decisions_of, done_text, open_decision

TODAY = dt.date(2026, 11, 30)


def finding(sequence: int, text: str, kind: str = "review", who: str = "olga") -> pb.Finding:
    """Return a finding about churn."""
    return pb.Finding(
        sequence=sequence, model="churn", kind=kind, text=text, who=who, at_unix_ms=sequence
    )


DECIDED = finding(5, decision_text("look at usage", "dora", "2026-12-07", TODAY))


def test_decision_is_carried_over_until_it_is_done() -> None:
    """It is overdue the day after its date. Who says again that it is done changes nothing."""
    (decision,) = decisions_of([DECIDED])
    value = decision.to_json(dt.date(2026, 12, 7))
    assert (value["id"], value["owner"], value["overdue"]) == (5, "dora", False)
    assert decision.to_json(dt.date(2026, 12, 8))["overdue"]
    assert open_decision([decision], 5) == decision
    first = finding(7, done_text(5, "the file was late"), who="dora")
    second = finding(9, done_text(5, "no"), who="sam")
    (done,) = decisions_of([DECIDED, first, second])
    assert (done.done_by, done.done_unix_ms, done.outcome) == ("dora", 7, "the file was late")
    assert not done.to_json(dt.date(2027, 1, 1))["overdue"]
    with pytest.raises(OperatorError, match="decision 5 is done already, as dora said"):
        open_decision([done], 5)
    with pytest.raises(OperatorError, match="there is no decision 6"):
        open_decision([done], 6)


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", '{"decision": 1, "owner": "a", "due": "b"}', '{"done": 99}']
)
def test_finding_that_cannot_be_read_says_nothing(text: str) -> None:
    """One of another kind neither, and one that is done before it was decided."""
    assert decisions_of([finding(5, text)]) == []
    assert decisions_of([finding(5, DECIDED.text, kind="hold")]) == []
    assert decisions_of([finding(4, json.dumps({"done": 5, "reason": ""}))]) == []


@pytest.mark.parametrize(
    ("text", "owner", "due", "message"),
    [
        (" ", "dora", "2026-12-07", "1 to 2000 characters"),
        ("x" * 2_001, "dora", "2026-12-07", "1 to 2000 characters"),
        ("look", "", "2026-12-07", "--owner needs"),
        ("look", "dora", "soon", "is no date; write it as 2026-12-07"),
        ("look", "dora", "2026-11-29", "is over; today is 2026-11-30"),
    ],
)
def test_decision_needs_text_owner_and_a_date(
    text: str, owner: str, due: str, message: str
) -> None:
    """What nobody does by any day is no decision."""
    with pytest.raises(UsageError, match=message):
        decision_text(text, owner, due, TODAY)
