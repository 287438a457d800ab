"""Reviews in the database: after each broken glass another person looks at what was done."""

import json
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from features.canonical import canonical_json
from protos import registry_pb2 as pb
from registry.storage import tables
from registry.storage.ledger import LedgerChange
from registry.types import BadRequestError, Deployment, GateError, NotFoundError, same_person

REVIEW_MS = 24 * 3_600 * 1_000
"""Time within which a review is closed. Later it is overdue."""


def open_review(change: LedgerChange, deployment: Deployment, authors: Sequence[str]) -> None:
    """Open the review of a deployment for which the glass was broken.

    authors  the authors of the versions that it gave more traffic.
    """
    review = pb.Review(
        id=secrets.token_hex(4),
        model=deployment.model,
        revision=deployment.revision,
        opened_by=change.actor,
        authors=authors,
        reason=deployment.why,
        opened_unix_ms=change.at_unix_ms,
        due_unix_ms=change.at_unix_ms + REVIEW_MS,
    )
    fields = _fields(review)
    row = {**fields, "authors": canonical_json(fields["authors"]).decode()}
    change.connection.execute(insert(tables.reviews).values(**row))
    change.record(
        "open review", _object_name(review), before={}, after=fields, reason=review.reason
    )


def close_review(change: LedgerChange, request: pb.CloseReviewRequest) -> pb.Review:
    """Close a review and return it.

    Raises GateError when the actor broke the glass, is an author, or the review is closed already;
    NotFoundError; BadRequestError without a reason.
    """
    # A review is closed once, with a reason, by a person who had no part in it.
    table = tables.reviews
    row = change.connection.execute(select(table).where(table.c.id == request.id)).first()
    if row is None:
        raise NotFoundError(f"there is no review {request.id[:32]!r}; turnout audit reviews")
    review = _message(row)
    if not request.reason.strip() or len(request.reason) > 1_000:
        raise BadRequestError(
            f"a review is closed with a reason of 1 to 1000 characters; this reason has "
            f"{len(request.reason)}"
        )
    if review.closed_by:
        raise GateError(
            f"review {review.id} was closed by {review.closed_by!r}: {review.closing_reason}"
        )
    if any(same_person(name, change.actor) for name in (review.opened_by, *review.authors)):
        raise GateError(
            f"review {review.id} is of what {review.opened_by!r} did with versions by "
            f"{', '.join(review.authors) or 'nobody'}; another person than these must close it"
        )
    # Write it with its history entry.
    before = _fields(review)
    closing = {
        "closed_by": change.actor,
        "closing_reason": request.reason,
        "closed_unix_ms": change.at_unix_ms,
    }
    change.connection.execute(update(table).where(table.c.id == review.id).values(**closing))
    change.record(
        "close review",
        _object_name(review),
        before=before,
        after={**before, **closing},
        reason=request.reason,
    )
    return pb.Review(**{**before, **closing})


def overdue_review(change: LedgerChange, model: str) -> str:
    """Return the id of the model's oldest review that is overdue; empty if there is none."""
    due = [
        review.id
        for review in list_reviews(change.connection, model, open_only=True)
        if review.due_unix_ms < change.at_unix_ms
    ]
    return due[0] if due else ""


def list_reviews(connection: Connection, model: str, *, open_only: bool) -> list[pb.Review]:
    """Return the reviews of a model, or of all models if it is empty, oldest first."""
    table = tables.reviews
    statement = select(table).order_by(table.c.place)
    if model:
        statement = statement.where(table.c.model == model)
    if open_only:
        statement = statement.where(table.c.closed_by == "")
    return [_message(row) for row in connection.execute(statement)]


def _object_name(review: pb.Review) -> str:
    return f"model/{review.model}/review/{review.id}"


def _fields(review: pb.Review) -> dict[str, Any]:
    fields = {field.name: getattr(review, field.name) for field in review.DESCRIPTOR.fields}
    return {**fields, "authors": list(review.authors)}


def _message(row: Row[Any]) -> pb.Review:
    fields = {field.name: getattr(row, field.name) for field in pb.Review.DESCRIPTOR.fields}
    return pb.Review(**{**fields, "authors": json.loads(row.authors)})
