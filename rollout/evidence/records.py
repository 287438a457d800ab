"""The key records of one arm in one second, and the keys with good outcomes, as sets and columns.

Consumers use sums and sets only, so the order of records does not matter.
"""

import math
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from protos import predict_pb2, window_pb2
from rollout.evidence.key_sample import LOW_BITS, SAMPLE_ALL
from rollout.policy.policy import ANONYMOUS, GoodOutcome

METRIC_BY_NAME = {
    "errors": window_pb2.METRIC_ERROR,
    "schema": window_pb2.METRIC_SCHEMA,
    "timeouts": window_pb2.METRIC_TIMEOUT,
}
ERROR_LIKE = tuple(METRIC_BY_NAME.values())


@dataclass(slots=True)
class Scores:
    """Bins of the first output, as columns with one entry for each record."""

    keys: list[int]
    bins: list[int]
    production_bins: list[int] | None
    """Production's bins of the same rows; None where production did not score them."""

    def select_keys(self, selected: AbstractSet[int]) -> "Scores":
        """Return one record for each key in *selected*.

        Among several records of a key the smallest hash of its bins decides, so the order of
        records does not matter.
        """
        # Nothing to do if every record has another key and all keys are selected.
        if len(selected) == len(self.keys):
            return self
        pick = np.array([key in selected for key in self.keys], dtype=np.bool_)
        keys = np.array(self.keys, dtype=np.uint64)[pick]
        bins = np.array(self.bins, dtype=np.int64)[pick]
        production_bins = None
        if self.production_bins is not None:
            production_bins = np.array(self.production_bins, dtype=np.int64)[pick]
        # Hash both bins with the key, sort, and take the first record of each key.
        joint = bins if production_bins is None else production_bins * SAMPLE_ALL + bins
        mixed = (joint.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ keys
        order = np.lexsort((mixed, keys))
        first = order[np.unique(keys[order], return_index=True)[1]]
        return Scores(
            keys[first].tolist(),
            bins[first].tolist(),
            None if production_bins is None else production_bins[first].tolist(),
        )


@dataclass(slots=True)
class BatchEvents:
    """Keys with an event of which a slow batch causes many at once."""

    keys: AbstractSet[int]
    batch_calls: dict[int, int] | None = None
    """Key -> calls of all arms in the batch in which it was scored; None: one call each."""

    def weight_of(self, keys: AbstractSet[int]) -> float:
        """Return the weight of *keys*, a subset of `keys`: the events of one batch weigh 1 at most.

        The weight of an event is 1 / calls of its batch.
        """
        if self.batch_calls is None or not keys:
            return len(keys)
        every_key = len(keys) == len(self.batch_calls)
        calls = self.batch_calls.values() if every_key else [self.batch_calls[key] for key in keys]
        return math.fsum([1.0 / count for count in calls])


NO_BATCH_EVENTS = BatchEvents(frozenset())


class ArmRecords:
    """The key records in the windows of one arm."""

    def __init__(self, windows: Sequence[window_pb2.Window]) -> None:
        self.windows = windows
        self._records: dict[int, list[window_pb2.KeyRecords]] = {}
        self.sampled_of_65536 = 0
        # Sort the records by metric.
        records_by_metric = self._records
        for window in windows:
            self.sampled_of_65536 = max(
                self.sampled_of_65536, window.sampled_of_65536 or SAMPLE_ALL
            )
            for records in window.records:
                metric = records.metric
                if metric in records_by_metric:
                    records_by_metric[metric].append(records)
                else:
                    records_by_metric[metric] = [records]
        # Derive the sets of keys.
        self.event_keys: dict[int, set[int]] = {
            metric: set(self._key_hashes(metric))
            for metric in ERROR_LIKE
            if metric in records_by_metric
        }
        """Metric -> keys with that event. Gateways send all of them, not a sample."""
        self.failed_keys = set().union(*self.event_keys.values())
        """Keys with any of these events."""
        self._score_record_keys = self._key_hashes(window_pb2.METRIC_SCORE)
        self.scored_keys = set(self._score_record_keys)
        """Keys with a good answer, of the keys in the gateways' sample."""
        self.seen_keys = (
            self.scored_keys | self.in_key_sample(self.failed_keys)
            if self.failed_keys
            else self.scored_keys
        )
        """Keys in the gateways' sample with any answer."""
        self.seen_keys_listed: Collection[int] = (
            self.seen_keys if self.failed_keys else self._score_record_keys
        )
        """`seen_keys` in a form that is quick to iterate. A key may repeat."""

    def in_key_sample(self, keys: set[int]) -> set[int]:
        """Return those of *keys* that are in the gateways' sample; the widest window's counts."""
        if not keys or self.sampled_of_65536 >= SAMPLE_ALL:
            return keys
        return {key for key in keys if key & LOW_BITS < self.sampled_of_65536}

    def batch_events_of(self, metric: int) -> BatchEvents:
        """Return the keys with a record of *metric*, each with its largest batch."""
        if metric not in self._records:
            return NO_BATCH_EVENTS
        return batch_events(self._key_hashes(metric), self._batch_calls(metric))

    def scores(self) -> Scores:
        """Return every score record."""
        records = self._records.get(window_pb2.METRIC_SCORE, ())
        keys = self._score_record_keys
        bins = _joined([part.bin[:] for part in records])
        production_bins = _joined([part.production_bin[:] for part in records])
        return Scores(keys, bins, production_bins if len(production_bins) == len(keys) else None)

    def latencies(self) -> "Latencies":
        """Return every latency record."""
        metric = window_pb2.METRIC_LATENCY
        bins = _joined([part.bin[:] for part in self._records.get(metric, ())])
        return Latencies(self._key_hashes(metric), bins, self._batch_calls(metric))

    def _key_hashes(self, metric: int) -> list[int]:
        return _joined([part.key_hash[:] for part in self._records.get(metric, ())])

    def _batch_calls(self, metric: int) -> list[int]:
        """Return one number for each record; an empty list stands for one call each."""
        records = self._records.get(metric, ())
        if len(records) == 1:
            return records[0].batch_calls[:]
        columns = [part.batch_calls[:] for part in records]
        if not any(columns):
            return []
        return _joined(
            [
                column or [1] * len(part.key_hash)
                for column, part in zip(columns, records, strict=True)
            ]
        )


def _joined(columns: list[list[int]]) -> list[int]:
    return columns[0] if len(columns) == 1 else list(chain.from_iterable(columns))


@dataclass(slots=True)
class Latencies:
    """Latency records, as columns with one entry for each record."""

    keys: list[int]
    bins: list[int]
    batch_calls: list[int]
    """An empty list stands for one call each."""

    def keys_beyond(
        self, low: int, middle: int, high: int
    ) -> tuple[list[int], list[int], list[int]]:
        """Return the keys of the records beyond each of three bins, low <= middle <= high."""
        beyond_low, beyond_middle, beyond_high = [], [], []
        for key, latency_bin in zip(self.keys, self.bins, strict=True):
            if latency_bin > low:
                beyond_low.append(key)
                if latency_bin > middle:
                    beyond_middle.append(key)
                    if latency_bin > high:
                        beyond_high.append(key)
        return beyond_low, beyond_middle, beyond_high

    def batch_events_beyond(
        self, low: int, middle: int, high: int
    ) -> tuple[BatchEvents, BatchEvents, BatchEvents]:
        """Like `keys_beyond`, with the calls of each key's batch."""
        beyond_low: dict[int, int] = {}
        beyond_middle: dict[int, int] = {}
        beyond_high: dict[int, int] = {}
        records = 0
        batches = self.batch_calls or repeat(1, len(self.keys))
        for key, latency_bin, calls in zip(self.keys, self.bins, batches, strict=True):
            if latency_bin > low:
                records += 1
                beyond_low[key] = calls
                if latency_bin > middle:
                    beyond_middle[key] = calls
                    if latency_bin > high:
                        beyond_high[key] = calls
        # If a key has several records, its largest batch counts.
        if len(beyond_low) < records:
            return (
                self._with_largest_batch(low),
                self._with_largest_batch(middle),
                self._with_largest_batch(high),
            )
        return (
            BatchEvents(beyond_low.keys(), beyond_low),
            BatchEvents(beyond_middle.keys(), beyond_middle),
            BatchEvents(beyond_high.keys(), beyond_high),
        )

    def _with_largest_batch(self, edge: int) -> BatchEvents:
        indexes = [index for index, latency_bin in enumerate(self.bins) if latency_bin > edge]
        batches = self.batch_calls or [1] * len(self.keys)
        return batch_events(
            [self.keys[index] for index in indexes], [batches[index] for index in indexes]
        )


def batch_events(keys: list[int], batch_calls: list[int]) -> BatchEvents:
    """Return the keys, each with its largest number of calls.

    batch_calls  one entry for each key; an empty list stands for one call each.
    """
    if not batch_calls:
        return BatchEvents(set(keys))
    calls_by_key = dict(zip(keys, batch_calls, strict=True))
    if len(calls_by_key) < len(keys):
        for key, calls in zip(keys, batch_calls, strict=True):
            calls_by_key[key] = max(calls_by_key[key], calls)
    return BatchEvents(calls_by_key.keys(), calls_by_key)


def good_outcome_keys(
    windows: Sequence[window_pb2.Window], good: GoodOutcome, version: str, baseline: str
) -> dict[str, tuple[set[int], set[int]]]:
    """Return caller -> the keys with a good report of the candidate *version*, of the baseline.

    A key belongs to the arm that the split assigned it to, even if the other version answered in
    its place: a candidate that leaves its calls to the baseline is judged by their outcomes too.
    Pinned calls are left out, because the split did not assign them.
    """
    keys: dict[str, tuple[set[int], set[int]]] = {}
    for window in windows:
        answered_by = window.version
        if answered_by not in (version, baseline):
            continue
        for reports in window.outcomes:
            role = reports.role
            if reports.name != good.name or role == predict_pb2.PINNED:
                continue
            assigned_to = answered_by
            if role == predict_pb2.FALLBACK:
                assigned_to = version if answered_by == baseline else baseline
            pairs = zip(reports.key_hash[:], reports.value[:], strict=True)
            good_keys = [key for key, value in pairs if good.is_good(value)]
            if good_keys:
                arms = keys.setdefault(reports.caller or ANONYMOUS, (set(), set()))
                arms[0 if assigned_to == version else 1].update(good_keys)
    return keys
