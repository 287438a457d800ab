"""Reviews of broken glasses, for `turnout audit` and `turnout splits`."""

import datetime as dt
import json
import time
from collections.abc import Sequence

from rich.console import RenderableType

from protos import registry_pb2
from turnout.views.terminal import text_table


def overdue_lines(reviews: Sequence[registry_pb2.Review]) -> list[str]:
    """Return a line for each review that is open and overdue."""
    return [
        f"REVIEW {review.id} IS OVERDUE since {_when(review.due_unix_ms)}: {review.opened_by} "
        f"broke the glass of {review.model}, revision {review.revision} ({review.reason}). Another "
        f"person closes it: turnout audit close {review.id} --reason ..."
        for review in reviews
        if is_overdue(review)
    ]


def reviews_table(reviews: Sequence[registry_pb2.Review]) -> RenderableType:
    """Return a table of reviews with their state."""
    columns = ("id", "model", "revision", "opened by", "reason", "due", "state")
    rows = [
        (
            review.id,
            review.model,
            review.revision,
            review.opened_by,
            review.reason,
            _when(review.due_unix_ms),
            _state(review),
        )
        for review in reviews
    ]
    return text_table(columns, rows)


def is_overdue(review: registry_pb2.Review) -> bool:
    """Return True if the review is open after its time."""
    return not review.closed_by and review.due_unix_ms < time.time_ns() // 1_000_000


def _state(review: registry_pb2.Review) -> str:
    if review.closed_by:
        return f"closed by {review.closed_by}: {review.closing_reason}"
    return "OVERDUE" if is_overdue(review) else "open"


def _when(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def finding_sentence(text: str) -> str:
    """Return what a finding says, for people: a text as it is, and JSON as a sentence."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    match value:
        case {"first_day": int() as first, "last_day": int() as last, "reason": why}:
            return f"{_date(first)} to {_date(last)} are the reference: {why}"
        case {"decision": decision, "owner": owner, "due": due}:
            return f"{decision} ({owner}, until {due})"
        case {"done": number, "reason": why}:
            return f"decision {number} is done: {why}" if why else f"decision {number} is done"
        case {"uplift": uplift, "outcome": outcome, "customers": customers}:
            return f"uplift of {outcome}: {_number(uplift)}, {customers} customers"
        case {"rows": rows, "newest_unix_ms": int() as newest}:
            return f"{rows} rows of scores were imported, the newest of {_when(newest)}"
        case {"finding": finding, "act": act, **more}:
            led = f"finding {finding} led to {act}" if finding else f"a rollout led to {act}"
            return f"{led}: {more['why']}" if "why" in more else led
        case dict():
            return ", ".join(f"{name.replace('_', ' ')} {item}" for name, item in value.items())
    return text


def _date(unix_day: int) -> str:
    return str(dt.date(1970, 1, 1) + dt.timedelta(days=unix_day))


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "not measured"
