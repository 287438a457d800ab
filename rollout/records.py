"""One arm's windows of one second, as sets and columns. Sums and sets only: no order matters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from protos import window_pb2
from rollout.keys import WHOLE_KEEP

METRIC_OF = {
    "errors": window_pb2.METRIC_ERROR,
    "schema": window_pb2.METRIC_SCHEMA,
    "timeouts": window_pb2.METRIC_TIMEOUT,
}
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Scores:
    """First-output bins by key: (K,) columns."""

    keys: NDArray[np.uint64]
    bins: NDArray[np.int64]
    expected: NDArray[np.int64] | None
    """Production's bins on the same rows; None where production did not score them."""

    def of(self, fresh: set[int]) -> "Scores":
        """Return one record for each key in *fresh*, which one by a rule that knows no order."""
        if len(fresh) == len(self.keys):  # every record is of another, fresh key
            return self
        pick = np.fromiter((key in fresh for key in self.keys.tolist()), bool, len(self.keys))
        keys, bins = self.keys[pick], self.bins[pick]
        expected = None if self.expected is None else self.expected[pick]
        joint = bins if expected is None else expected * WHOLE_KEEP + bins
        mixed = (joint.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ keys
        order = np.lexsort((mixed, keys))
        first = order[np.unique(keys[order], return_index=True)[1]]
        return Scores(keys[first], bins[first], None if expected is None else expected[first])


class ArmRecords:
    """What the windows of one arm say by key."""

    def __init__(self, windows: Sequence[window_pb2.Window]) -> None:
        self.windows = windows
        self._records: dict[int, list[window_pb2.Records]] = {}
        for window in windows:
            for records in window.records:
                self._records.setdefault(records.metric, []).append(records)
        self.keep = max((one.keep_of_65536 or WHOLE_KEEP for one in windows), default=WHOLE_KEEP)
        self.events = {metric: self._keys_with(metric) for metric in METRIC_OF.values()}
        """Keys with each error-like event, of all keys."""
        self.failed = set().union(*self.events.values())
        """Keys with any of them."""
        self.scored = self._keys_with(window_pb2.METRIC_SCORE)
        """Keys with a good answer, of those the gateways keep."""
        self.met = self.scored | self.kept(self.failed) if self.failed else self.scored
        """Keys of those the gateways keep, whatever became of their calls."""

    def _keys_with(self, metric: int) -> set[int]:
        found = self._records.get(metric)
        return set().union(*(records.key_hash for records in found)) if found else set()

    def kept(self, keys: set[int]) -> set[int]:
        """Those that the gateways' thinning keeps; the widest of the windows decides."""
        if self.keep >= WHOLE_KEEP:
            return keys
        return {key for key in keys if key % WHOLE_KEEP < self.keep}

    def shared(self, metric: int) -> dict[int, int]:
        """Key with a record of *metric* -> calls in its batch, the most where it has several."""
        if metric not in self._records:
            return {}
        keys, together = self._column(metric, "key_hash", np.uint64), self._batch_calls(metric)
        return most_shared(keys.tolist(), together.tolist())

    def scores(self) -> Scores:
        """Every score record."""
        metric = window_pb2.METRIC_SCORE
        found = self._records.get(metric, ())
        paired = all(len(one.expected_bin) == len(one.key_hash) for one in found)
        return Scores(
            keys=self._column(metric, "key_hash", np.uint64),
            bins=self._column(metric, "bin", np.int64),
            expected=self._column(metric, "expected_bin", np.int64) if paired else None,
        )

    def latencies(self) -> "Latencies":
        """Every latency record."""
        metric = window_pb2.METRIC_LATENCY
        return Latencies(
            self._column(metric, "key_hash", np.uint64),
            self._column(metric, "bin", np.int64),
            self._batch_calls(metric),
        )

    def _batch_calls(self, metric: int) -> NDArray[np.int64]:
        """One a record: 1 where a gateway does not say."""
        found = self._records.get(metric, ())
        if not any(one.batch_calls for one in found):
            return np.ones(sum(len(one.key_hash) for one in found), dtype=np.int64)
        parts = [one.batch_calls or [1] * len(one.key_hash) for one in found]
        return np.concatenate([np.array(part, dtype=np.int64) for part in parts])

    def _column(self, metric: int, name: str, dtype: type[Number]) -> NDArray[Number]:
        parts = [np.array(getattr(one, name), dtype=dtype) for one in self._records.get(metric, ())]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Latencies:
    """(K,) columns."""

    keys: NDArray[np.uint64]
    bins: NDArray[np.int64]
    batch_calls: NDArray[np.int64]

    def beyond(self, edge: int) -> dict[int, int]:
        """Key with a record beyond bin *edge* -> calls in its batch."""
        slow = self.bins > edge
        return most_shared(self.keys[slow].tolist(), self.batch_calls[slow].tolist())


def most_shared(keys: list[int], batch_calls: list[int]) -> dict[int, int]:
    """Return key -> the most of its *batch_calls*."""
    found = dict(zip(keys, batch_calls, strict=True))
    if len(found) < len(keys):
        for key, calls in zip(keys, batch_calls, strict=True):
            found[key] = max(found[key], calls)
    return found
