"""Feature lookup: from the entity ids of a batch to its feature matrix, with one MGET."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.contract import TIME_NAMES, request_time
from features.errors import OnlineStoreError
from gateway.batch import FeatureRows
from gateway.columns import Calls
from gateway.key_column import KeyColumn
from gateway.models.routes import Routes
from protos.predict_pb2 import DEFAULTED, DEGRADED

STORE_DEADLINE_SHARE = 0.3
"""The read may take this share of the time until the latest deadline of the batch."""
BUDGET_ROWS = 512
"""The feature budget is for this many rows, a full batch of the default size. More rows have more
time in proportion, because a store needs it: one call may have many more."""


def read_budget_s(feature_ns: int, rows: int, left_ns: int) -> float:
    """Return the seconds that the read of a batch may take.

    feature_ns  the budget of BUDGET_ROWS rows.
    left_ns     time until the latest deadline of the batch.
    """
    budget_ns = feature_ns * max(1.0, rows / BUDGET_ROWS)
    return min(budget_ns, left_ns * STORE_DEADLINE_SHARE) / 1e9


class OnlineStore(Protocol):
    """Reads stored rows: features.online.reader.OnlineReader, or a fake of it in tests."""

    def mget(self, keys: Sequence[bytes], timeout_s: float) -> Awaitable[list[bytes | None]]:
        """Send the read now. When awaited, return one value or None for each key.

        Raises OnlineStoreError, either at once or when awaited.
        """
        ...


class NoOnlineStore:
    """The online store of a gateway that has none: every read fails."""

    async def mget(self, keys: Sequence[bytes], timeout_s: float) -> list[bytes | None]:
        """Raise OnlineStoreError."""
        del keys, timeout_s
        raise OnlineStoreError("no_store", "this gateway has no online store")


async def look_up_features(
    routes: Routes, calls: Calls, store: OnlineStore | None, *, now_ns: int, now_unix_ms: int
) -> FeatureRows:
    """Read every view that the model's versions use, for every row of the batch, in one MGET.

    now_unix_ms  the instant of the read: of the age of rows, and of the time that models read.

    If the store does not answer within the budget, every row gets its views' defaults and the flag
    DEGRADED. The model's policy decides whether such rows are scored.
    """
    if not routes.reads:
        matrix = _join_columns([], routes, calls, now_unix_ms)
        return FeatureRows(matrix, np.zeros(calls.rows, dtype=np.uint32), 0, "")
    # Build the store keys of every view, view by view.
    ids, entities = KeyColumn.from_entity_ids(calls), routes.shape.entities
    requests = [read.request(ids, entities) for read in routes.reads]
    keys = requests[0].store_keys()
    if len(requests) > 1:
        keys = [key for request in requests for key in request.store_keys()]
    # Read them within the budget.
    left_ns = int(calls.deadline_ns.max()) - now_ns
    budget_s = read_budget_s(routes.limits.feature_ns, calls.rows, left_ns)
    try:
        replies = await (store or NoOnlineStore()).mget(keys, budget_s)
    except OnlineStoreError as error:
        return default_rows(routes, calls, now_unix_ms, error.reason)
    # Decode each view's replies and join the columns.
    rows = calls.rows
    views = [
        request.decode_replies(replies[view * rows : (view + 1) * rows], now_unix_ms)
        for view, request in enumerate(requests)
    ]
    flags = views[0].flags
    for decoded in views[1:]:
        flags = flags | decoded.flags
    broken = sum([decoded.broken for decoded in views])
    matrix = _join_columns([decoded.values for decoded in views], routes, calls, now_unix_ms)
    return FeatureRows(matrix, flags, broken, "")


def _join_columns(
    blocks: list[NDArray[np.float32]], routes: Routes, calls: Calls, now_unix_ms: int
) -> NDArray[np.float32]:
    """Return the (R, W) matrix of a batch: stored features, request inputs, the request's time."""
    if calls.inputs.shape[1] or not blocks:
        blocks = [*blocks, calls.inputs]
    if not routes.request_time:
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1, dtype=np.float32)
    # Filled in place, because every call of a batch has the same time.
    width = sum([block.shape[1] for block in blocks])
    matrix = np.empty((calls.rows, width + len(TIME_NAMES)), dtype=np.float32)
    np.concatenate(blocks, axis=1, out=matrix[:, :width])
    matrix[:, width:] = request_time(now_unix_ms)
    return matrix


def default_rows(routes: Routes, calls: Calls, now_unix_ms: int, reason: str) -> FeatureRows:
    """Return the rows of a batch whose read failed for *reason*: each view's defaults, DEGRADED."""
    blocks = [read.rows.default_rows(calls.rows).values for read in routes.reads]
    flags = np.full(calls.rows, DEFAULTED | DEGRADED, dtype=np.uint32)
    return FeatureRows(_join_columns(blocks, routes, calls, now_unix_ms), flags, 0, reason)
