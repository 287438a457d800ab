"""One arm's windows of one second, as sets and columns. Sums and sets only: no order matters."""

import math
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from protos import window_pb2
from rollout.evidence.key_sample import LOW_BITS, SAMPLE_ALL

METRIC_BY_NAME = {
    "errors": window_pb2.METRIC_ERROR,
    "schema": window_pb2.METRIC_SCHEMA,
    "timeouts": window_pb2.METRIC_TIMEOUT,
}
ERROR_LIKE = tuple(METRIC_BY_NAME.values())


@dataclass(slots=True)
class Scores:
    """First-output bins, three columns: one entry a record."""

    keys: list[int]
    bins: list[int]
    production_bins: list[int] | None
    """Production's bins on the same rows; None where production did not score them."""

    def select_keys(self, chosen: AbstractSet[int]) -> "Scores":
        """Return one record for each key in *fresh*, which one by a rule that knows no order."""
        if len(chosen) == len(self.keys):  # every record is of another, fresh key
            return self
        pick = np.array([key in chosen for key in self.keys], dtype=np.bool_)
        keys = np.array(self.keys, dtype=np.uint64)[pick]
        bins = np.array(self.bins, dtype=np.int64)[pick]
        expected = None
        if self.production_bins is not None:
            expected = np.array(self.production_bins, dtype=np.int64)[pick]
        joint = bins if expected is None else expected * SAMPLE_ALL + bins
        mixed = (joint.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ keys
        order = np.lexsort((mixed, keys))
        first = order[np.unique(keys[order], return_index=True)[1]]
        told = None if expected is None else expected[first].tolist()
        return Scores(keys[first].tolist(), bins[first].tolist(), told)


@dataclass(slots=True)
class BatchEvents:
    """Keys with an event that whatever slows a batch has in common."""

    keys: AbstractSet[int]
    batch_calls: dict[int, int] | None = None
    """Key -> calls, of all arms, in the batch it was scored in; None: one each."""

    def weight_of(self, keys: AbstractSet[int]) -> float:
        """Return what the events of these of the keys weigh: a batch as much as one call."""
        if self.batch_calls is None or not keys:
            return len(keys)
        whole = len(keys) == len(self.batch_calls)
        calls = self.batch_calls.values() if whole else [self.batch_calls[key] for key in keys]
        return math.fsum([1.0 / one for one in calls])


NO_BATCH_EVENTS = BatchEvents(frozenset())


class ArmRecords:
    """What the windows of one arm say by key."""

    def __init__(self, windows: Sequence[window_pb2.Window]) -> None:
        self.windows = windows
        self._records: dict[int, list[window_pb2.KeyRecords]] = {}
        self.sampled_of_65536 = 0
        found = self._records
        for window in windows:
            self.sampled_of_65536 = max(
                self.sampled_of_65536, window.sampled_of_65536 or SAMPLE_ALL
            )
            for records in window.records:
                metric = records.metric
                if metric in found:
                    found[metric].append(records)
                else:
                    found[metric] = [records]
        self.event_keys: dict[int, set[int]] = {
            metric: set(self._key_hashes(metric)) for metric in ERROR_LIKE if metric in found
        }
        """Keys with each error-like event that there was, of all keys."""
        self.failed_keys = set().union(*self.event_keys.values())
        """Keys with any of them."""
        self._score_record_keys = self._key_hashes(window_pb2.METRIC_SCORE)
        self.scored_keys = set(self._score_record_keys)
        """Keys with a good answer, of those the gateways keep."""
        self.seen_keys = (
            self.scored_keys | self.in_key_sample(self.failed_keys)
            if self.failed_keys
            else self.scored_keys
        )
        """Keys of those the gateways keep, whatever became of their calls."""
        self.seen_keys_listed: Collection[int] = (
            self.seen_keys if self.failed_keys else self._score_record_keys
        )
        """The same, in a form that is quick to walk through; a key may repeat."""

    def in_key_sample(self, keys: set[int]) -> set[int]:
        """Those that the gateways' thinning keeps; the widest of the windows decides."""
        if not keys or self.sampled_of_65536 >= SAMPLE_ALL:
            return keys
        return {key for key in keys if key & LOW_BITS < self.sampled_of_65536}

    def batch_events_of(self, metric: int) -> BatchEvents:
        """Keys with a record of *metric*, each with its largest batch."""
        if metric not in self._records:
            return NO_BATCH_EVENTS
        return batch_events(self._key_hashes(metric), self._batch_calls(metric))

    def scores(self) -> Scores:
        """Every score record."""
        found = self._records.get(window_pb2.METRIC_SCORE, ())
        keys = self._score_record_keys
        bins = _joined([one.bin[:] for one in found])
        expected = _joined([one.production_bin[:] for one in found])
        return Scores(keys, bins, expected if len(expected) == len(keys) else None)

    def latencies(self) -> "Latencies":
        """Every latency record."""
        metric = window_pb2.METRIC_LATENCY
        bins = _joined([one.bin[:] for one in self._records.get(metric, ())])
        return Latencies(self._key_hashes(metric), bins, self._batch_calls(metric))

    def _key_hashes(self, metric: int) -> list[int]:
        return _joined([one.key_hash[:] for one in self._records.get(metric, ())])

    def _batch_calls(self, metric: int) -> list[int]:
        """One a record; empty when no gateway says: then 1 each."""
        found = self._records.get(metric, ())
        if len(found) == 1:
            return found[0].batch_calls[:]
        parts = [one.batch_calls[:] for one in found]
        if not any(parts):
            return []
        return _joined(
            [part or [1] * len(one.key_hash) for part, one in zip(parts, found, strict=True)]
        )


def _joined(parts: list[list[int]]) -> list[int]:
    return parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))


@dataclass(slots=True)
class Latencies:
    """Every latency record, as columns."""

    keys: list[int]
    bins: list[int]
    batch_calls: list[int]
    """Empty: 1 each."""

    def keys_beyond(
        self, low: int, middle: int, high: int
    ) -> tuple[list[int], list[int], list[int]]:
        """Return the keys of records beyond each of three bins, low <= middle <= high."""
        slow, slower, slowest = [], [], []
        for key, one in zip(self.keys, self.bins, strict=True):
            if one > low:
                slow.append(key)
                if one > middle:
                    slower.append(key)
                    if one > high:
                        slowest.append(key)
        return slow, slower, slowest

    def batch_events_beyond(
        self, low: int, middle: int, high: int
    ) -> tuple[BatchEvents, BatchEvents, BatchEvents]:
        """Return the same with what their batches weigh."""
        slow: dict[int, int] = {}
        slower: dict[int, int] = {}
        slowest: dict[int, int] = {}
        records = 0
        batches = self.batch_calls or repeat(1, len(self.keys))
        for key, one, calls in zip(self.keys, self.bins, batches, strict=True):
            if one > low:
                records += 1
                slow[key] = calls
                if one > middle:
                    slower[key] = calls
                    if one > high:
                        slowest[key] = calls
        if len(slow) < records:  # a key is there twice: its largest batch counts
            return (
                self._with_largest_batch(low),
                self._with_largest_batch(middle),
                self._with_largest_batch(high),
            )
        return (
            BatchEvents(slow.keys(), slow),
            BatchEvents(slower.keys(), slower),
            BatchEvents(slowest.keys(), slowest),
        )

    def _with_largest_batch(self, edge: int) -> BatchEvents:
        places = [place for place, one in enumerate(self.bins) if one > edge]
        batches = self.batch_calls or [1] * len(self.keys)
        return batch_events(
            [self.keys[place] for place in places], [batches[place] for place in places]
        )


def batch_events(keys: list[int], batch_calls: list[int]) -> BatchEvents:
    """Return the keys, each with the most of its *batch_calls*; without these, 1 each."""
    if not batch_calls:
        return BatchEvents(set(keys))
    found = dict(zip(keys, batch_calls, strict=True))
    if len(found) < len(keys):
        for key, calls in zip(keys, batch_calls, strict=True):
            found[key] = max(found[key], calls)
    return BatchEvents(found.keys(), found)
