"""One arm's windows of one second, as sets and columns. Sums and sets only: no order matters."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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

    def keys(self, metric: int) -> set[int]:
        """Return the keys with a record of *metric*."""
        keys: set[int] = set()
        for records in self._records.get(metric, ()):
            keys.update(records.key_hash)
        return keys

    @cached_property
    def failed(self) -> set[int]:
        """Keys with any error-like event, of all keys."""
        return set().union(*(self.keys(metric) for metric in METRIC_OF.values()))

    @cached_property
    def scored(self) -> set[int]:
        """Keys with a good answer, of those the gateways keep."""
        return self.keys(window_pb2.METRIC_SCORE)

    @cached_property
    def met(self) -> set[int]:
        """Keys of those the gateways keep, whatever became of their calls."""
        return self.scored | self.kept(self.failed)

    def kept(self, keys: set[int]) -> set[int]:
        """Those that the gateways' thinning keeps; the widest of the windows decides."""
        if self.keep >= WHOLE_KEEP:
            return keys
        return {key for key in keys if key % WHOLE_KEEP < self.keep}

    @cached_property
    def scores(self) -> Scores:
        """Every score record."""
        found = self._records.get(window_pb2.METRIC_SCORE, [])
        paired = all(len(one.expected_bin) == len(one.key_hash) for one in found)
        return Scores(
            keys=_column([one.key_hash for one in found], np.uint64),
            bins=_column([one.bin for one in found], np.int64),
            expected=_column([one.expected_bin for one in found], np.int64) if paired else None,
        )

    @cached_property
    def latencies(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """(K,) keys and (K,) latency bins of every latency record."""
        found = self._records.get(window_pb2.METRIC_LATENCY, [])
        keys = _column([one.key_hash for one in found], np.uint64)
        return keys, _column([one.bin for one in found], np.int64)


def _column(parts: Sequence[Sequence[int]], dtype: type[Number]) -> NDArray[Number]:
    if not parts:
        return np.zeros(0, dtype=dtype)
    return np.concatenate([np.array(part, dtype=dtype) for part in parts])
