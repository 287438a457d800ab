"""Rows of features, as they are pushed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s

from turnout_client._protos.features_pb2 import PushReply, PushRequest, PushResult, PushRow

ROWS_MAX = 1_000
"""The most rows of one call."""


@dataclass(frozen=True)
class FeatureRow:
    """The features of one entity as of an instant."""

    ids: str | Sequence[str]
    """The id of each entity of the view, in the view's order; or the only one."""
    event_time_ms: int
    """When the values became true, in milliseconds of Unix time."""
    values: Mapping[str, float | str | None]
    """Feature -> a number, or a string for a category. None, or left out: missing."""
    event_id: str = ""
    """Names this row for ever, for example the id of its message in a stream. A row that is sent
    again is known by it. Empty: a hash of all above."""


@dataclass(frozen=True)
class RowResult:
    """What became of one pushed row."""

    status: str
    """written, older (the online store keeps a newer row), duplicate or refused."""
    reason: str
    """Why it was refused, in one sentence; otherwise empty."""


def build_pushes(view: str, rows: Sequence[FeatureRow], view_hash: str) -> Iterator[PushRequest]:
    """Yield the calls that push *rows*, each with at most ROWS_MAX of them."""
    for start in range(0, len(rows), ROWS_MAX):
        yield PushRequest(
            view=view,
            view_hash=view_hash,
            rows=[_push_row(row) for row in rows[start : start + ROWS_MAX]],
        )


def read_results(reply: PushReply) -> list[RowResult]:
    """Return the results of one call."""
    name_of = PushResult.Status.Name
    return [RowResult(name_of(item.status).lower(), item.reason) for item in reply.results]


def _push_row(row: FeatureRow) -> PushRow:
    ids = [row.ids] if isinstance(row.ids, str) else list(row.ids)
    values = {name: value for name, value in row.values.items() if value is not None}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
    event_id = row.event_id
    if not event_id:
        content = json.dumps([ids, row.event_time_ms, sorted(values.items())], default=float)
        event_id = blake2s(content.encode(), digest_size=16).hexdigest()
    return PushRow(
        event_id=event_id,
        ids=ids,
        event_time_ms=row.event_time_ms,
        numbers=numbers,
        texts=texts,
    )
