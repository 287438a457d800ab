"""One arm's windows of one second, as sets and columns. Sums and sets only: no order matters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress

import numpy as np
from numpy.typing import NDArray

from protos import window_pb2
from rollout.keys import WHOLE_KEEP

METRIC_OF = {
    "errors": window_pb2.METRIC_ERROR,
    "schema": window_pb2.METRIC_SCHEMA,
    "timeouts": window_pb2.METRIC_TIMEOUT,
}


@dataclass(slots=True)
class Scores:
    """First-output bins by key: K keys, (K,) columns."""

    keys: list[int]
    bins: NDArray[np.int64]
    expected: NDArray[np.int64] | None
    """Production's bins on the same rows; None where production did not score them."""

    def of(self, fresh: set[int]) -> "Scores":
        """Return one record for each key in *fresh*, which one by a rule that knows no order."""
        if len(fresh) == len(self.keys):  # every record is of another, fresh key
            return self
        pick = np.array([key in fresh for key in self.keys], dtype=np.bool_)
        keys, bins = np.array(self.keys, dtype=np.uint64)[pick], self.bins[pick]
        expected = None if self.expected is None else self.expected[pick]
        joint = bins if expected is None else expected * WHOLE_KEEP + bins
        mixed = (joint.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ keys
        order = np.lexsort((mixed, keys))
        first = order[np.unique(keys[order], return_index=True)[1]]
        expected = None if expected is None else expected[first]
        return Scores(keys[first].tolist(), bins[first], expected)


@dataclass(slots=True)
class Shared:
    """Keys with an event that whatever slows a batch has in common."""

    keys: set[int]
    batch_calls: dict[int, int] | None = None
    """Key -> calls, of all arms, in the batch it was scored in; None: one each."""

    def weigh(self, fresh: set[int]) -> float:
        """Return what the events of these of the keys weigh: a batch as much as one call."""
        if self.batch_calls is None or not fresh:
            return len(fresh)
        return math.fsum([1.0 / self.batch_calls[key] for key in fresh])


NOBODY = Shared(set())


class ArmRecords:
    """What the windows of one arm say by key."""

    def __init__(self, windows: Sequence[window_pb2.Window]) -> None:
        self.windows = windows
        self._records: dict[int, list[window_pb2.Records]] = {}
        self.keep = 0
        for window in windows:
            self.keep = max(self.keep, window.keep_of_65536 or WHOLE_KEEP)
            for records in window.records:
                self._records.setdefault(records.metric, []).append(records)
        found = self._records
        self.events = {
            metric: set(self._key_hashes(metric)) if metric in found else set()
            for metric in METRIC_OF.values()
        }
        """Keys with each error-like event, of all keys."""
        self.failed = set().union(*self.events.values())
        """Keys with any of them."""
        self._scored_keys = self._key_hashes(window_pb2.METRIC_SCORE)
        self.scored = set(self._scored_keys)
        """Keys with a good answer, of those the gateways keep."""
        self.met = self.scored | self.kept(self.failed) if self.failed else self.scored
        """Keys of those the gateways keep, whatever became of their calls."""

    def kept(self, keys: set[int]) -> set[int]:
        """Those that the gateways' thinning keeps; the widest of the windows decides."""
        if not keys or self.keep >= WHOLE_KEEP:
            return keys
        return {key for key in keys if key % WHOLE_KEEP < self.keep}

    def shared(self, metric: int) -> Shared:
        """Keys with a record of *metric*, each with its largest batch."""
        if metric not in self._records:
            return NOBODY
        return shared(self._key_hashes(metric), self._batch_calls(metric))

    def scores(self) -> Scores:
        """Every score record."""
        found = self._records.get(window_pb2.METRIC_SCORE, ())
        keys = self._scored_keys
        bins = _column([one.bin[:] for one in found])
        expected = _column([one.expected_bin[:] for one in found])
        return Scores(keys, bins, expected if len(expected) == len(keys) else None)

    def latencies(self) -> "Latencies":
        """Every latency record."""
        metric = window_pb2.METRIC_LATENCY
        return Latencies(
            self._key_hashes(metric),
            _joined([one.bin[:] for one in self._records.get(metric, ())]),
            self._batch_calls(metric),
        )

    def _key_hashes(self, metric: int) -> list[int]:
        return _joined([one.key_hash[:] for one in self._records.get(metric, ())])

    def _batch_calls(self, metric: int) -> list[int]:
        """One a record; empty when no gateway says: then 1 each."""
        found = self._records.get(metric, ())
        parts = [one.batch_calls[:] for one in found]
        if not any(parts):
            return []
        return _joined(
            [part or [1] * len(one.key_hash) for part, one in zip(parts, found, strict=True)]
        )


def _column(parts: list[list[int]]) -> NDArray[np.int64]:
    return np.array(_joined(parts), dtype=np.int64)


def _joined(parts: list[list[int]]) -> list[int]:
    return parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))


@dataclass(slots=True)
class Latencies:
    """Every latency record, as columns."""

    keys: list[int]
    bins: list[int]
    batch_calls: list[int]
    """Empty: 1 each."""

    def beyond(self, edge: int) -> Shared:
        """Return the keys with a record beyond bin *edge*."""
        if not self.batch_calls:
            return Shared(
                {key for key, one in zip(self.keys, self.bins, strict=True) if one > edge}
            )
        slow = [one > edge for one in self.bins]
        return shared(list(compress(self.keys, slow)), list(compress(self.batch_calls, slow)))


def shared(keys: list[int], batch_calls: list[int]) -> Shared:
    """Return the keys, each with the most of its *batch_calls*; without these, 1 each."""
    if not batch_calls:
        return Shared(set(keys))
    found = dict(zip(keys, batch_calls, strict=True))
    if len(found) < len(keys):
        for key, calls in zip(keys, batch_calls, strict=True):
            found[key] = max(found[key], calls)
    return Shared(set(found), found)
