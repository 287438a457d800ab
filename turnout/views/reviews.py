"""Reviews of broken glasses, for `turnout audit` and `turnout splits`."""

import datetime as dt
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
