"""From the entity ids of a batch to its matrix: one MGET, one copy."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.errors import OnlineStoreError
from gateway.columns import Calls
from gateway.key_column import KeyColumn
from gateway.models.routes import Routes
from protos.predict_pb2 import DEFAULTED, DEGRADED

STORE_DEADLINE_SHARE = 0.3
"""Of the time the batch's most patient caller has left, the online read may take this much."""


class OnlineStore(Protocol):
    """features.online.reader.OnlineReader, or a fake of it."""

    def mget(self, keys: list[bytes], timeout_s: float) -> Awaitable[list[bytes | None]]:
        """Ask now; when awaited, one value or None a key. OnlineStoreError, now or then."""
        ...


class NoOnlineStore:
    """Where no store was configured."""

    async def mget(self, keys: list[bytes], timeout_s: float) -> list[bytes | None]:
        """Raise OnlineStoreError."""
        del keys, timeout_s
        raise OnlineStoreError("absent", "this gateway has no online store")


@dataclass(slots=True)
class FeatureRows:
    """What is known about the rows of a batch."""

    matrix: NDArray[np.float32]
    """(R, W): every stored feature of every view read, then the request inputs."""
    flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits."""
    broken: int
    """Stored rows whose hash or id was wrong."""
    read_failure: str
    """Why the store did not answer, one word; empty when it did."""


async def look_up_features(
    routes: Routes, calls: Calls, store: OnlineStore | None, *, now_ns: int, now_unix_ms: int
) -> FeatureRows:
    """Read every view the model's versions use, for every row of the batch, in one round trip.

    When the store does not answer within the budget, every row takes its views' defaults and is
    flagged DEGRADED; whether that is good enough is the model's policy, not ours.
    """
    if not routes.reads:
        return FeatureRows(calls.inputs, np.zeros(calls.rows, dtype=np.uint32), 0, "")
    ids, entities = KeyColumn.from_entity_ids(calls), routes.shape.entities
    asked = [read.request(ids, entities) for read in routes.reads]
    keys = asked[0].store_keys()
    for one in asked[1:]:
        keys += one.store_keys()
    patience_ns = int(calls.deadline_ns.max()) - now_ns
    budget_s = min(routes.limits.feature_ns, patience_ns * STORE_DEADLINE_SHARE) / 1e9
    try:
        replies = await (store or NoOnlineStore()).mget(keys, budget_s)
    except OnlineStoreError as error:
        return _default_rows(routes, calls, error.reason)
    rows = calls.rows
    several = [
        one.decode_replies(replies[place * rows : (place + 1) * rows], now_unix_ms)
        for place, one in enumerate(asked)
    ]
    flags = several[0].flags
    for decoded in several[1:]:
        flags = flags | decoded.flags
    broken = sum([decoded.broken for decoded in several])
    return FeatureRows(
        _join_columns([decoded.values for decoded in several], calls), flags, broken, ""
    )


def _join_columns(blocks: list[NDArray[np.float32]], calls: Calls) -> NDArray[np.float32]:
    if len(blocks) == 1 and calls.inputs.shape[1] == 0:
        return blocks[0]
    return np.concatenate([*blocks, calls.inputs], axis=1, dtype=np.float32)


def _default_rows(routes: Routes, calls: Calls, reason: str) -> FeatureRows:
    blocks = [read.rows.default_rows(calls.rows).values for read in routes.reads]
    flags = np.full(calls.rows, DEFAULTED | DEGRADED, dtype=np.uint32)
    return FeatureRows(_join_columns(blocks, calls), flags, 0, reason)
