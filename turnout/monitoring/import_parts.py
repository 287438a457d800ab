"""Sends the rows of an import to monitoring, part by part."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import numpy as np

from access.peer_tls import open_channel
from monitoring.store.waiting_outcomes import KEY_SEPARATOR
from protos import monitoring_pb2 as pb
from protos.monitoring_pb2_grpc import MonitoringStub
from registry.client import call_metadata
from turnout.cli.context import CommandContext
from turnout.errors import NotReachableError, OperatorError
from turnout.monitoring.import_files import OutcomeRow, ScoreRow, content_digest

Item = TypeVar("Item")

PART_ROWS = 10_000
CALL_S = 600.0
EDGES = 20
"""Bins of scores that are no probabilities, with equal numbers of rows of the first import."""


@dataclass(slots=True)
class Imported:
    """What became of an import."""

    digest: str
    rows: int = 0
    known_rows: int = 0
    """Rows that were imported before, and changed nothing."""
    unattributed: int = 0
    """Outcomes without a kept score."""
    waiting: int = 0
    """Outcomes of a model that is served here. Monitoring looks for their predictions."""


def scores_parts(model: str, rows: Sequence[ScoreRow]) -> list[pb.ScoresPart]:
    """Return the parts of scores, each of one version."""
    digest = content_digest(rows)
    by_version: dict[str, list[ScoreRow]] = {}
    for row in rows:
        by_version.setdefault(row.version, []).append(row)
    parts: list[pb.ScoresPart] = []
    for version, same in by_version.items():
        edges = edges_of_scores([row.score for row in same])
        for part in _cut(same):
            parts.append(
                pb.ScoresPart(
                    model=model,
                    content_digest=digest,
                    number=len(parts) + 1,
                    version=version,
                    keys=[row.key for row in part],
                    predictions=[row.prediction for row in part if row.prediction],
                    at_unix_ms=np.array([row.at_ms for row in part], "<i8").tobytes(),
                    scores=np.array([row.score for row in part], "<f4").tobytes(),
                    edges=edges,
                )
            )
    return parts


def edges_of_scores(scores: Sequence[float]) -> list[float]:
    """Return the edges of bins; none for probabilities, which have the same bins everywhere."""
    values = np.array(scores, dtype=np.float32)
    if ((values >= 0) & (values <= 1)).all():
        return []
    inner = np.linspace(0, 1, EDGES + 1)[1:-1]
    edges: list[float] = np.unique(np.quantile(values, inner).astype(np.float32)).tolist()
    return edges


def outcomes_parts(model: str, rows: Sequence[OutcomeRow]) -> list[pb.OutcomesPart]:
    """Return the parts of outcomes, each with keys or with predictions."""
    digest = content_digest(rows)
    by_key = [row for row in rows if row.key]
    by_prediction = [row for row in rows if row.prediction]
    parts: list[pb.OutcomesPart] = []
    for same in (by_key, by_prediction):
        # A part has at most PART_ROWS keys, however many a row has.
        entities = same[0].key.count(KEY_SEPARATOR) + 1 if same else 1
        for part in _cut(same, PART_ROWS // entities):
            parts.append(
                pb.OutcomesPart(
                    model=model,
                    content_digest=digest,
                    number=len(parts) + 1,
                    keys=[key for row in part if row.key for key in row.key.split(KEY_SEPARATOR)],
                    entities=entities,
                    predictions=[row.prediction for row in part if row.prediction],
                    at_unix_ms=np.array([row.at_ms for row in part], "<i8").tobytes(),
                    names=[row.name for row in part],
                    values=np.array([row.value for row in part], "<f8").tobytes(),
                )
            )
    return parts


def send_parts(
    context: CommandContext, address: str, parts: Sequence[pb.ScoresPart | pb.OutcomesPart]
) -> Imported:
    """Send parts in order, and return what became of them. They may be sent again.

    address  host:port of monitoring; empty: that of the registry.

    Raises OperatorError when monitoring refuses one; those before it are stored.
    """
    return asyncio.run(_send(context, address or context.registry_address(), parts))


async def _send(
    context: CommandContext, address: str, parts: Sequence[pb.ScoresPart | pb.OutcomesPart]
) -> Imported:
    token = context.bearer_token()
    done = Imported(parts[0].content_digest.hex())
    async with open_channel(address, context.certificate(), token) as channel:
        stub: Any = MonitoringStub(channel)  # type: ignore[no-untyped-call]
        for part in parts:
            # Both kinds of part have the same answer.
            is_scores = isinstance(part, pb.ScoresPart)
            call: Callable[..., Awaitable[pb.ImportReply]] = (
                stub.ImportScores if is_scores else stub.ImportOutcomes
            )
            try:
                reply = await call(
                    part, metadata=call_metadata(context.actor, token), timeout=CALL_S
                )
            except grpc.aio.AioRpcError as error:
                raise _refused(error, address, part.number, len(parts)) from error
            done.rows += reply.rows
            done.known_rows += reply.rows if reply.known else 0
            done.unattributed += reply.unattributed
            done.waiting += reply.waiting
    return done


def _refused(error: grpc.aio.AioRpcError, address: str, number: int, parts: int) -> OperatorError:
    """Return what became of an import of which one part was refused, or not answered."""
    stored = f"parts 1 to {number - 1} of {parts} are stored" if number > 1 else "nothing is stored"
    unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if error.code() in unreachable:
        return NotReachableError(
            f"monitoring at {address} does not answer: {error.details()}. Of what was sent before, "
            f"{stored}. Repeat the command when it is back; it goes on there"
        )
    return OperatorError(
        f"monitoring at {address} refused the import: {error.details()}. {stored.capitalize()}; "
        "correct it and repeat the command"
    )


def _cut(rows: Sequence[Item], size: int = PART_ROWS) -> Iterator[Sequence[Item]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
