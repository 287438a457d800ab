"""Latency: whether more of the candidate's keys see slow answers than production's keys do.

Slow is beyond production's own past p50, p90, p99: edges frozen at the start of each stage from
records already closed, on the committed table of stats.latency. A key's first slow answer counts
once, like an error; but what slows one call of a batch slows all, so a batch's keys count for one
together, however many are slow. Beside the e-value stands a gate: the candidate's quantile must
really lie beyond production's by the policy's margin.
"""

import math
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rollout.evidence.key_sample import KeySample
from rollout.evidence.metric_test import Compared
from rollout.evidence.records import ArmRecords, Latencies
from stats import tilt
from stats.latency import BINS, quantile_ns

QUANTILES = {"p99": 0.99, "p90": 0.90, "p50": 0.50}
ASCENDING = ("p50", "p90", "p99")
EDGE_RECORDS_MIN = 500
"""Production's records that fix the first edges."""
GATE_RECORDS_MIN = {"p99": 200, "p90": 50, "p50": 20}
"""The candidate's records before its quantile is believed at all."""
STAGE_RECORDS_MIN = {"p99": 5_000, "p90": 1_000, "p50": 1_000}
"""... and before those of the stage alone are: a fault that sets in late is diluted in the rest."""

Histogram = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Margin:
    """How much slower a candidate may be: the larger of a part and of so many ns."""

    part: float
    floor_ns: float

    def beyond(self, canary_ns: float, baseline_ns: float) -> bool:
        """Whether *canary_ns* lies beyond it; False when either is NaN."""
        return canary_ns - baseline_ns > max(self.part * baseline_ns, self.floor_ns)


@dataclass(frozen=True, slots=True)
class Slower:
    """A quantile of both arms, in ns, and whether the difference is beyond the margin."""

    canary_ns: float
    baseline_ns: float
    beyond: bool


class LatencyEvidence:
    """Three metrics over first slow answers, and four histograms for their gates."""

    def __init__(self, keys_max: int, looks_max: int, margin: Margin) -> None:
        self._looks_max = looks_max
        self._margin = margin
        self.metrics = {
            name: Compared(tilt.start(tilt.LATENCY), grid=tilt.LATENCY, sample=KeySample(keys_max))
            for name in QUANTILES
        }
        self.edges: dict[str, int] = {}
        """Metric -> the bin beyond which an answer is slow; empty: not fixed yet."""
        self.rollout = np.zeros((2, BINS), dtype=np.int64)
        """Records of candidate and baseline."""
        self.stage = np.zeros((2, BINS), dtype=np.int64)

    def enter_stage(self) -> None:
        """Fix the edges anew from the stage that ends, when it has enough records."""
        self._freeze()
        self.stage = np.zeros((2, BINS), dtype=np.int64)

    def take(
        self, candidate: ArmRecords, baseline: ArmRecords, share: float, *, current: bool
    ) -> None:
        """Count one second; the edges are those fixed before it."""
        mine, theirs = candidate.latencies(), baseline.latencies()
        if self.edges:
            self._count_slow(mine, theirs, share)
        if mine.bins or theirs.bins:
            records = len(mine.bins) + len(theirs.bins)
            both = np.fromiter(chain(mine.bins, theirs.bins), np.int64, records)
            both[len(mine.bins) :] += BINS
            counts = np.bincount(both, minlength=2 * BINS).reshape(2, BINS)
            self.rollout += counts
            if current:
                self.stage += counts
        if current and not self.edges and theirs.bins:
            self._freeze()

    def _count_slow(self, mine: Latencies, theirs: Latencies, share: float) -> None:
        edges = [self.edges.get(name, -1) for name in ASCENDING]
        if mine.batch_calls or theirs.batch_calls:
            slow, others = mine.shared_beyond(*edges), theirs.shared_beyond(*edges)
            for name, events, beside in zip(ASCENDING, slow, others, strict=True):
                if name in self.edges:
                    self.metrics[name].take_shared(events, beside, share, self._looks_max)
            return
        keys, other_keys = mine.beyond(*edges), theirs.beyond(*edges)
        for name, events_of, beside_of in zip(ASCENDING, keys, other_keys, strict=True):
            if name in self.edges:
                self.metrics[name].take(events_of, beside_of, share, self._looks_max)

    def _freeze(self) -> None:
        counts = self.stage[1]
        if counts.sum() >= EDGE_RECORDS_MIN:
            self.edges = {name: _bin_of(counts, q) for name, q in QUANTILES.items()}

    def slower(self, name: str) -> Slower:
        """Return the gate of metric *name*: over the rollout, or over this stage alone."""
        whole = self._slower(name, self.rollout, GATE_RECORDS_MIN[name])
        if whole.beyond:
            return whole
        recent = self._slower(name, self.stage, STAGE_RECORDS_MIN[name])
        return recent if recent.beyond else whole

    def _slower(self, name: str, counts: Histogram, records_min: int) -> Slower:
        canary, baseline = (quantile_ns(arm, QUANTILES[name]) for arm in counts)
        enough = int(counts[0].sum()) >= records_min
        return Slower(canary, baseline, enough and self._margin.beyond(canary, baseline))

    def words(self, found: Slower) -> str:
        """Return a gate in words; empty before there is anything to compare."""
        if math.isnan(found.canary_ns) or math.isnan(found.baseline_ns):
            return ""
        change = found.canary_ns / found.baseline_ns - 1.0
        allowed = max(self._margin.part * found.baseline_ns, self._margin.floor_ns)
        return (
            f"{found.canary_ns / 1e6:.2f} ms against {found.baseline_ns / 1e6:.2f} "
            f"({change:+.0%}); acts beyond +{allowed / 1e6:.2f} ms"
        )


def _bin_of(counts: Histogram, q: float) -> int:
    return int(np.searchsorted(np.cumsum(counts), q * int(counts.sum()), side="left"))
