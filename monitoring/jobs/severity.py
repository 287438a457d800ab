"""How urgent an alarm is: harm pages people, and drift alone goes to the weekly review.

Drift is a poor proxy for harm. Over 580 pairs of dataset and model, signals of drift predicted the
loss of performance clearly worse than estimates of it do. So no amount of drift pages anybody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How soon a person must look. The numbers are those of turnout.v1.Incident.Severity."""

    REVIEW = 1
    """In the weekly review."""
    WARNING = 2
    """Within a working day."""
    PAGE = 3
    """At once, by day and night."""


@dataclass(frozen=True, slots=True)
class SeverityRule:
    """How urgent alarms of a kind are, and why."""

    serving: Severity
    """For a version that answers calls: production, canary or pinned."""
    shadow: Severity
    """For a version whose scores no caller gets."""
    reason: str


SEVERITIES: Mapping[str, SeverityRule] = {
    "quality": SeverityRule(
        Severity.PAGE, Severity.WARNING, "the model scores rows that are not what they say"
    ),
    "silence": SeverityRule(
        Severity.PAGE, Severity.REVIEW, "customers are not scored, or callers went elsewhere"
    ),
    "calibration": SeverityRule(
        Severity.PAGE, Severity.WARNING, "decisions by threshold and value are wrong"
    ),
    "risk": SeverityRule(Severity.PAGE, Severity.WARNING, "decisions cost more than was approved"),
    "auc": SeverityRule(
        Severity.PAGE, Severity.WARNING, "customers are ordered worse than was approved"
    ),
    "fairness": SeverityRule(
        Severity.PAGE, Severity.WARNING, "a group of people is treated otherwise than is allowed"
    ),
    "coverage": SeverityRule(
        Severity.WARNING, Severity.REVIEW, "nobody knows what the unseen calls are like"
    ),
    "outcomes": SeverityRule(
        Severity.WARNING, Severity.REVIEW, "accuracy of these days cannot be trusted yet"
    ),
    "holdout": SeverityRule(
        Severity.WARNING, Severity.REVIEW, "uplift of these days cannot be measured"
    ),
    "uplift": SeverityRule(
        Severity.WARNING, Severity.REVIEW, "acting on the scores brings less than it did"
    ),
    "score": SeverityRule(Severity.REVIEW, Severity.REVIEW, "drift alone is no harm"),
    "features": SeverityRule(Severity.REVIEW, Severity.REVIEW, "drift alone is no harm"),
}
"""Kind of an alarm, as of an incident -> how urgent it is."""


def severity_of(kind: str, *, shadow: bool = False) -> Severity:
    """Return how urgent an alarm of *kind* is.

    shadow  whether the version is a shadow, so that no caller gets its scores.

    Raises KeyError for an unknown kind: SEVERITIES must have a rule for each.
    """
    rule = SEVERITIES[kind]
    return rule.shadow if shadow else rule.serving
