"""Tests whether more keys of the candidate see slow answers than keys of production.

An answer is slow if it is beyond production's own p50, p90 or p99. These edges are fixed at the
start of each stage from records that were closed before, on the bins of stats.latency. A key counts
once, at its first slow answer. A slow batch slows all its calls, so the keys of one batch weigh
together as much as one event.

The e-value alone does not roll back. The quantile gate must be open too: the candidate's quantile
must be beyond production's by the policy's margin.
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
"""Records of production that fix the edges, at least."""
GATE_RECORDS_MIN = {"p99": 200, "p90": 50, "p50": 20}
"""Records of the candidate, over the rollout, without which its gate stays closed."""
STAGE_RECORDS_MIN = {"p99": 5_000, "p90": 1_000, "p50": 1_000}
"""Records of the candidate in this stage, from which the stage alone can open the gate. A fault
that sets in late is diluted in the whole rollout."""

Histogram = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LatencyMargin:
    """How much slower a candidate may be: a part of production's quantile, at least the floor."""

    part: float
    floor_ns: float

    def exceeded_by(self, canary_ns: float, baseline_ns: float) -> bool:
        """Whether the canary is slower by more than the margin; False if either quantile is NaN."""
        return canary_ns - baseline_ns > max(self.part * baseline_ns, self.floor_ns)


@dataclass(frozen=True, slots=True)
class QuantileGate:
    """A quantile of both arms in ns, and whether their difference is beyond the margin."""

    canary_ns: float
    baseline_ns: float
    is_open: bool


class LatencyEvidence:
    """Three metrics over first slow answers, and the histograms of their gates."""

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
        """Metric -> the bin beyond which an answer is slow; empty until the edges are fixed."""
        self.rollout_counts = np.zeros((2, BINS), dtype=np.int64)
        """(2, BINS) latency records of candidate and baseline."""
        self.stage_counts = np.zeros((2, BINS), dtype=np.int64)

    def enter_stage(self) -> None:
        """Fix the edges anew from the stage that ends, if it has enough records."""
        self._fix_edges()
        self.stage_counts = np.zeros((2, BINS), dtype=np.int64)

    def count_latencies(
        self, candidate: ArmRecords, baseline: ArmRecords, share: float, *, current: bool
    ) -> None:
        """Count one second, by the edges that were fixed before it.

        share    the candidate's configured share of both arms.
        current  whether the second belongs to the rollout's revision.
        """
        canary, production = candidate.latencies(), baseline.latencies()
        if self.edges:
            self._count_slow(canary, production, share)
        if canary.bins or production.bins:
            # One bincount for both arms: the second arm's bins are moved behind the first's.
            records = len(canary.bins) + len(production.bins)
            both = np.fromiter(chain(canary.bins, production.bins), np.int64, records)
            both[len(canary.bins) :] += BINS
            counts = np.bincount(both, minlength=2 * BINS).reshape(2, BINS)
            self.rollout_counts += counts
            if current:
                self.stage_counts += counts
        if current and not self.edges and production.bins:
            self._fix_edges()

    def _count_slow(self, candidate: Latencies, baseline: Latencies, share: float) -> None:
        edges = [self.edges.get(name, -1) for name in ASCENDING_QUANTILES]
        if candidate.batch_calls or baseline.batch_calls:
            events = candidate.batch_events_beyond(*edges)
            baseline_events = baseline.batch_events_beyond(*edges)
            for name, canary, production in zip(
                ASCENDING_QUANTILES, events, baseline_events, strict=True
            ):
                if name in self.edges:
                    self.metrics[name].count_batch_events(
                        canary, production, share, self._looks_max
                    )
            return
        keys, baseline_keys = candidate.keys_beyond(*edges), baseline.keys_beyond(*edges)
        for name, canary_keys, production_keys in zip(
            ASCENDING_QUANTILES, keys, baseline_keys, strict=True
        ):
            if name in self.edges:
                self.metrics[name].count_keys(canary_keys, production_keys, share, self._looks_max)

    def _fix_edges(self) -> None:
        counts = self.stage_counts[1]
        if counts.sum() >= EDGE_RECORDS_MIN:
            self.edges = {name: _bin_of(counts, q) for name, q in QUANTILES.items()}

    def quantile_gate(self, name: str) -> QuantileGate:
        """Return the gate of metric *name*: that of the rollout, or of this stage if it is open."""
        of_rollout = self._gate_over(name, self.rollout_counts, GATE_RECORDS_MIN[name])
        if of_rollout.is_open:
            return of_rollout
        of_stage = self._gate_over(name, self.stage_counts, STAGE_RECORDS_MIN[name])
        return of_stage if of_stage.is_open else of_rollout

    def _gate_over(self, name: str, counts: Histogram, records_min: int) -> QuantileGate:
        canary, baseline = (quantile_ns(arm, QUANTILES[name]) for arm in counts)
        enough = int(counts[0].sum()) >= records_min
        return QuantileGate(canary, baseline, enough and self._margin.exceeded_by(canary, baseline))

    def gate_text(self, gate: QuantileGate) -> str:
        """Return a text about *gate*; empty if an arm has no records."""
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
