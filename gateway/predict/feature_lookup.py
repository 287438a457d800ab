"""From the entity ids of a batch to its matrix: one MGET, one copy."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.errors import OnlineStoreError
from gateway.batch_keys import Keys
from gateway.columns import Calls
from gateway.models.routes import Routes
from protos.predict_pb2 import DEFAULTED, DEGRADED

DEADLINE_SHARE = 0.3
"""Of the time the batch's most patient caller has left, the online read may take this much."""


class OnlineRows(Protocol):
    """features.online.reader.OnlineReader, or a fake of it."""

    def mget(self, keys: list[bytes], timeout_s: float) -> Awaitable[list[bytes | None]]:
        """Ask now; when awaited, one value or None a key. OnlineStoreError, now or then."""
        ...


class NoStore:
    """Where no store was configured."""

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """Raise OnlineStoreError."""
        del keys, timeout_s
        raise OnlineStoreError("absent", "this gateway has no online store")


@dataclass(slots=True)
class Looked:
    """What is known about the rows of a batch."""

    matrix: NDArray[np.float32]
    """(R, W): every stored feature of every view read, then the request inputs."""
    flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits."""
    broken: int
    """Stored rows whose hash or id was wrong."""
    unread: str
    """Why the store did not answer, one word; empty when it did."""


async def look_up(
    routes: Routes, calls: Calls, store: OnlineRows | None, *, now_ns: int, now_unix_ms: int
) -> Looked:
    """Read every view the model's versions use, for every row of the batch, in one round trip.

    When the store does not answer within the budget, every row takes its views' defaults and is
    flagged DEGRADED; whether that is good enough is the model's policy, not ours.
    """
    if not routes.reads:
        return Looked(calls.inputs, np.zeros(calls.rows, dtype=np.uint32), 0, "")
    ids, entities = Keys.of_rows(calls), routes.shape.entities
    asked = [read.asked(ids, entities) for read in routes.reads]
    keys = asked[0].keys()
    for one in asked[1:]:
        keys += one.keys()
    patience_ns = int(calls.deadline_ns.max()) - now_ns
    budget_s = min(routes.budgets.feature_ns, patience_ns * DEADLINE_SHARE) / 1e9
    try:
        replies = await (store or NoStore()).mget(keys, budget_s)
    except OnlineStoreError as error:
        return _degraded(routes, calls, error.reason)
    rows = calls.rows
    several = [
        one.decoded(replies[place * rows : (place + 1) * rows], now_unix_ms)
        for place, one in enumerate(asked)
    ]
    flags = several[0].flags
    for decoded in several[1:]:
        flags = flags | decoded.flags
    broken = sum([decoded.broken for decoded in several])
    return Looked(_joined([decoded.values for decoded in several], calls), flags, broken, "")


def _joined(blocks: list[NDArray[np.float32]], calls: Calls) -> NDArray[np.float32]:
    if len(blocks) == 1 and calls.inputs.shape[1] == 0:
        return blocks[0]
    return np.concatenate([*blocks, calls.inputs], axis=1, dtype=np.float32)


def _degraded(routes: Routes, calls: Calls, reason: str) -> Looked:
    blocks = [read.rows.defaults(calls.rows).values for read in routes.reads]
    flags = np.full(calls.rows, DEFAULTED | DEGRADED, dtype=np.uint32)
    return Looked(_joined(blocks, calls), flags, 0, reason)
