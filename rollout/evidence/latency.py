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

from protos import rollout_pb2
from rollout.evidence.key_sample import KeySample
from rollout.evidence.metric_test import MetricTest
from rollout.evidence.records import ArmRecords, Latencies
from stats import tilt
from stats.latency import BINS, quantile_ns

QUANTILES = {"p99": 0.99, "p90": 0.90, "p50": 0.50}
ASCENDING_QUANTILES = ("p50", "p90", "p99")
EDGE_RECORDS_MIN = 500
"""Production's records that fix the first edges."""
GATE_RECORDS_MIN = {"p99": 200, "p90": 50, "p50": 20}
"""The candidate's records before its quantile is believed at all."""
STAGE_RECORDS_MIN = {"p99": 5_000, "p90": 1_000, "p50": 1_000}
"""... and before those of the stage alone are: a fault that sets in late is diluted in the rest."""

Histogram = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LatencyMargin:
    """How much slower a candidate may be: the larger of a part and of so many ns."""

    part: float
    floor_ns: float

    def exceeded_by(self, canary_ns: float, baseline_ns: float) -> bool:
        """Whether *canary_ns* lies beyond it; False when either is NaN."""
        return canary_ns - baseline_ns > max(self.part * baseline_ns, self.floor_ns)


@dataclass(frozen=True, slots=True)
class QuantileGate:
    """A quantile of both arms, in ns, and whether the difference is beyond the margin."""

    canary_ns: float
    baseline_ns: float
    is_open: bool


class LatencyEvidence:
    """Three metrics over first slow answers, and four histograms for their gates."""

    def __init__(self, keys_max: int, looks_max: int, margin: LatencyMargin) -> None:
        self._looks_max = looks_max
        self._margin = margin
        self.metrics = {
            name: MetricTest(
                tilt.start_tilt(tilt.LATENCY), grid=tilt.LATENCY, counted_keys=KeySample(keys_max)
            )
            for name in QUANTILES
        }
        self.edges: dict[str, int] = {}
        """Metric -> the bin beyond which an answer is slow; empty: not fixed yet."""
        self.rollout_counts = np.zeros((2, BINS), dtype=np.int64)
        """Records of candidate and baseline."""
        self.stage_counts = np.zeros((2, BINS), dtype=np.int64)

    def enter_stage(self) -> None:
        """Fix the edges anew from the stage that ends, when it has enough records."""
        self._fix_edges()
        self.stage_counts = np.zeros((2, BINS), dtype=np.int64)

    def count_latencies(
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
            self.rollout_counts += counts
            if current:
                self.stage_counts += counts
        if current and not self.edges and theirs.bins:
            self._fix_edges()

    def _count_slow(self, candidate: Latencies, baseline: Latencies, share: float) -> None:
        edges = [self.edges.get(name, -1) for name in ASCENDING_QUANTILES]
        if candidate.batch_calls or baseline.batch_calls:
            slow, others = (
                candidate.batch_events_beyond(*edges),
                baseline.batch_events_beyond(*edges),
            )
            for name, events, beside in zip(ASCENDING_QUANTILES, slow, others, strict=True):
                if name in self.edges:
                    self.metrics[name].count_batch_events(events, beside, share, self._looks_max)
            return
        keys, other_keys = candidate.keys_beyond(*edges), baseline.keys_beyond(*edges)
        for name, events_of, beside_of in zip(ASCENDING_QUANTILES, keys, other_keys, strict=True):
            if name in self.edges:
                self.metrics[name].count_keys(events_of, beside_of, share, self._looks_max)

    def _fix_edges(self) -> None:
        counts = self.stage_counts[1]
        if counts.sum() >= EDGE_RECORDS_MIN:
            self.edges = {name: _bin_of(counts, q) for name, q in QUANTILES.items()}

    def quantile_gate(self, name: str) -> QuantileGate:
        """Return the gate of metric *name*: over the rollout, or over this stage alone."""
        whole = self._gate_over(name, self.rollout_counts, GATE_RECORDS_MIN[name])
        if whole.is_open:
            return whole
        recent = self._gate_over(name, self.stage_counts, STAGE_RECORDS_MIN[name])
        return recent if recent.is_open else whole

    def _gate_over(self, name: str, counts: Histogram, records_min: int) -> QuantileGate:
        canary, baseline = (quantile_ns(arm, QUANTILES[name]) for arm in counts)
        enough = int(counts[0].sum()) >= records_min
        return QuantileGate(canary, baseline, enough and self._margin.exceeded_by(canary, baseline))

    def gate_text(self, gate: QuantileGate) -> str:
        """Return a gate in words; empty before there is anything to compare."""
        if math.isnan(gate.canary_ns) or math.isnan(gate.baseline_ns):
            return ""
        change = gate.canary_ns / gate.baseline_ns - 1.0
        allowed = max(self._margin.part * gate.baseline_ns, self._margin.floor_ns)
        return (
            f"{gate.canary_ns / 1e6:.2f} ms against {gate.baseline_ns / 1e6:.2f} "
            f"({change:+.0%}); acts beyond +{allowed / 1e6:.2f} ms"
        )

    def to_proto(self) -> rollout_pb2.LatencyState:
        """Return edges, histograms and tests for a checkpoint."""
        return rollout_pb2.LatencyState(
            metrics=[metric.to_proto(name) for name, metric in self.metrics.items()],
            edges=[
                rollout_pb2.LatencyEdge(metric=name, bin=edge) for name, edge in self.edges.items()
            ],
            rollout_counts=self.rollout_counts.reshape(-1).tolist(),
            stage_counts=self.stage_counts.reshape(-1).tolist(),
        )

    @staticmethod
    def from_proto(
        message: rollout_pb2.LatencyState, keys_max: int, looks_max: int, margin: LatencyMargin
    ) -> "LatencyEvidence":
        """Restore the evidence; the other arguments come from the policy."""
        evidence = LatencyEvidence(keys_max, looks_max, margin)
        evidence.metrics = {
            metric.metric: MetricTest.from_proto(metric, tilt.LATENCY, keys_max)
            for metric in message.metrics
        }
        evidence.edges = {edge.metric: edge.bin for edge in message.edges}
        evidence.rollout_counts = np.array(message.rollout_counts, np.int64).reshape(2, BINS)
        evidence.stage_counts = np.array(message.stage_counts, np.int64).reshape(2, BINS)
        return evidence


def _bin_of(counts: Histogram, q: float) -> int:
    return int(np.searchsorted(np.cumsum(counts), q * int(counts.sum()), side="left"))
