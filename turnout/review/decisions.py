"""Decisions of reviews: findings of kind "review" in the history, carried over until done."""

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from features.canonical import canonical_json
from turnout.errors import OperatorError, UsageError

REVIEW = "review"
"""Kind of the findings that hold decisions of reviews."""
DECISION_CHARS_MAX = 2_000
OWNER_CHARS_MAX = 64


class WrittenFinding(Protocol):
    """The fields of a finding that are read here."""

    sequence: int
    model: str
    kind: str
    text: str
    who: str
    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    """What a review decided, and whether it is done."""

    number: int
    """The number of its finding in the history."""
    model: str
    text: str
    owner: str
    due: str
    """The date, such as "2026-12-07"."""
    decided_by: str
    decided_unix_ms: int
    done_by: str = ""
    done_unix_ms: int = 0
    outcome: str = ""
    """What came of it, in a sentence."""

    def to_json(self, today: dt.date) -> dict[str, Any]:
        """Return JSON values; overdue: it is not done after its date."""
        return {
            "id": self.number,
            "model": self.model,
            "decision": self.text,
            "owner": self.owner,
            "due": self.due,
            "overdue": not self.done_by and self.due < today.isoformat(),
            "decided_by": self.decided_by,
            "decided_unix_ms": self.decided_unix_ms,
            "done_by": self.done_by or None,
            "done_unix_ms": self.done_unix_ms or None,
            "outcome": self.outcome,
        }


def decision_text(text: str, owner: str, due: str, today: dt.date) -> str:
    """Return the text of the finding that holds a decision. Raises UsageError."""
    if not text.strip() or len(text) > DECISION_CHARS_MAX:
        raise UsageError(f"a decision has 1 to {DECISION_CHARS_MAX} characters")
    if not owner.strip() or len(owner) > OWNER_CHARS_MAX:
        raise UsageError(f"--owner needs a name of 1 to {OWNER_CHARS_MAX} characters")
    try:
        day = dt.date.fromisoformat(due)
    except ValueError as error:
        raise UsageError(f"--due {due!r} is no date; write it as 2026-12-07") from error
    if day < today:
        raise UsageError(f"--due {due} is over; today is {today}")
    value = {"decision": text, "owner": owner, "due": day.isoformat()}
    return canonical_json(value).decode()


def done_text(number: int, outcome: str) -> str:
    """Return the text of the finding that says that a decision is done. Raises UsageError."""
    if len(outcome) > DECISION_CHARS_MAX:
        raise UsageError(f"--reason has at most {DECISION_CHARS_MAX} characters")
    return canonical_json({"done": number, "reason": outcome}).decode()


def decisions_of(findings: Iterable[WrittenFinding]) -> list[ReviewDecision]:
    """Return all decisions, oldest first. A finding that cannot be read says nothing."""
    decisions: dict[int, ReviewDecision] = {}
    for finding in findings:
        value = _value(finding)
        match value:
            case {"decision": str() as text, "owner": str() as owner, "due": str() as due}:
                decisions[finding.sequence] = ReviewDecision(
                    number=finding.sequence,
                    model=finding.model,
                    text=text,
                    owner=owner,
                    due=due,
                    decided_by=finding.who,
                    decided_unix_ms=finding.at_unix_ms,
                )
            case {"done": int() as number, "reason": str() as outcome}:
                decision = decisions.get(number)
                # The first one counts: who says so later changes nothing.
                if decision is not None and not decision.done_by:
                    decisions[number] = ReviewDecision(
                        **{name: getattr(decision, name) for name in DECIDED},
                        done_by=finding.who,
                        done_unix_ms=finding.at_unix_ms,
                        outcome=outcome,
                    )
    return list(decisions.values())


DECIDED = ("number", "model", "text", "owner", "due", "decided_by", "decided_unix_ms")
"""The fields that a decision has before it is done."""


def open_decision(decisions: Iterable[ReviewDecision], number: int) -> ReviewDecision:
    """Return the decision with this number. Raises OperatorError if none is open."""
    for decision in decisions:
        if decision.number == number and not decision.done_by:
            return decision
        if decision.number == number:
            raise OperatorError(f"decision {number} is done already, as {decision.done_by} said")
    raise OperatorError(f"there is no decision {number}; turnout review lists the open ones")


def _value(finding: WrittenFinding) -> dict[str, Any]:
    if finding.kind != REVIEW:
        return {}
    try:
        value = json.loads(finding.text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
