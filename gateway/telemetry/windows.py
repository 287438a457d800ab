"""What each version did in this second: counts that add, and evidence by key."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.models.executor import Fault
from gateway.models.routes import LoadedVersion, Routes
from gateway.telemetry.observations import (
    JOINT_STRIDE,
    ROW_FLAGS,
    ObservationCounts,
    Observations,
    count_observations,
    evidence_sampled,
    reference_bins,
)
from protos import predict_pb2, window_pb2
from stats.latency import BINS

NS_PER_SECOND = 1_000_000_000


@dataclass(slots=True)
class _OpenWindow:
    """One open window."""

    message: window_pb2.Window
    latency: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    scores: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(JOINT_STRIDE, dtype=np.int64)
    )
    joint: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(JOINT_STRIDE * JOINT_STRIDE, dtype=np.int64)
    )
    records: "defaultdict[int, list[bytes]]" = field(default_factory=lambda: defaultdict(list))
    """Metric -> fields of its turnout.v1.Records."""


class Windows:
    """The open windows of one worker. Touched by the event loop's thread only."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str, int, str, int], _OpenWindow] = {}

    def add_observations(
        self,
        routes: Routes,
        version: LoadedVersion,
        arm: int,
        observations: Observations,
        unix_ns: int,
    ) -> ObservationCounts:
        """Count one version's part of a batch; returns what was counted, for the metrics."""
        counted = count_observations(
            observations, routes.score_edges, evidence_sampled(routes, arm)
        )
        self.add_counts(routes, version, arm, counted, unix_ns)
        return counted

    def add_counts(
        self,
        routes: Routes,
        version: LoadedVersion,
        arm: int,
        counted: ObservationCounts,
        unix_ns: int,
    ) -> None:
        """Add what was counted of one version's calls."""
        counts = self._window(routes, version, arm, unix_ns)
        message, faults = counts.message, counted.faults.tolist()
        calls = message.calls
        calls.answered += faults[Fault.NONE]
        calls.holdout += counted.holdout
        calls.fallbacks += counted.fallbacks
        if any(faults[1:]):
            calls.faulty += faults[Fault.RAISED]
            calls.nan += faults[Fault.NOT_FINITE]
            calls.late += faults[Fault.LATE]
            message.first_bad_unix_ns = message.first_bad_unix_ns or unix_ns
            message.last_bad_unix_ns = unix_ns
        message.rows += counted.rows
        rows, flags = message.features, dict(zip(ROW_FLAGS, counted.flags, strict=True))
        rows.broken += counted.broken
        rows.missing += flags[predict_pb2.MISSING]
        rows.stale += flags[predict_pb2.STALE]
        rows.defaulted += flags[predict_pb2.DEFAULTED]
        rows.degraded += flags[predict_pb2.DEGRADED]
        counts.latency += counted.latency
        counts.scores += counted.scores
        for metric, fields in counted.records.items():
            counts.records[metric].append(fields)

    def add_shadow_pairs(
        self,
        routes: Routes,
        version: LoadedVersion,
        observations: Observations,
        unix_ns: int,
        threshold: float,
    ) -> None:
        """Count a shadow's answers beside production's, which were finite on all these rows."""
        self.add_observations(routes, version, window_pb2.ARM_SHADOW, observations, unix_ns)
        expected = observations.expected
        assert expected is not None
        counts = self._window(routes, version, window_pb2.ARM_SHADOW, unix_ns)
        pairs = counts.message.pairs
        fine = np.isfinite(observations.scores) & np.isfinite(expected)
        mine, theirs = (
            observations.scores[fine].astype(np.float64),
            expected[fine].astype(np.float64),
        )
        pairs.pairs += len(mine)
        pairs.flips += int(np.count_nonzero((mine >= threshold) != (theirs >= threshold)))
        difference = np.abs(mine - theirs)
        pairs.absolute_sum += float(difference.sum())
        pairs.square_sum += float((difference * difference).sum())
        pairs.faulty += int(
            np.count_nonzero(np.isfinite(expected) & ~np.isfinite(observations.scores))
        )
        edges = routes.score_edges
        joint = reference_bins(expected, edges) * JOINT_STRIDE + reference_bins(
            observations.scores, edges
        )
        counts.joint += np.bincount(joint, minlength=len(counts.joint))

    def add_refusals(self, routes: Routes, calls: int, unix_ns: int) -> None:
        """Count calls refused after they were taken: they say nothing about a version."""
        counts = self._window(routes, routes.production.version, window_pb2.ARM_PRODUCTION, unix_ns)
        counts.message.calls.refused += calls

    def add_canary_skipped(
        self, routes: Routes, version: LoadedVersion, calls: int, unix_ns: int
    ) -> None:
        """Count a canary's calls that production answered without asking it."""
        counts = self._window(routes, version, window_pb2.ARM_CANARY, unix_ns)
        counts.message.calls.fallbacks += calls

    def add_dropped(
        self, routes: Routes, version: LoadedVersion, copies: int, unix_ns: int
    ) -> None:
        """Count shadow copies that were given up under load."""
        counts = self._window(routes, version, window_pb2.ARM_SHADOW, unix_ns)
        counts.message.calls.dropped += copies

    def close_windows(self, unix_ns: int, *, everything: bool = False) -> list[window_pb2.Window]:
        """Close the windows of seconds that are over (or all of them) and return them."""
        second = unix_ns // NS_PER_SECOND
        over = [key for key in self._open if everything or key[0] < second]
        return [_finished(self._open.pop(key), unix_ns) for key in over]

    def _window(
        self, routes: Routes, version: LoadedVersion, arm: int, unix_ns: int
    ) -> _OpenWindow:
        second = unix_ns // NS_PER_SECOND
        key = (second, routes.model, routes.deployment.revision, version.label, arm)
        counts = self._open.get(key)
        if counts is None:
            message = window_pb2.Window(
                model=routes.model,
                version=version.label,
                version_digest=version.digest8,
                arm=window_pb2.Arm.Name(arm),
                revision=routes.deployment.revision,
                second=second,
                start_unix_ns=unix_ns,
                sampled_of_65536=routes.limits.evidence_sampled,
            )
            counts = self._open[key] = _OpenWindow(message)
        return counts


def _sparse(counts: NDArray[np.int64]) -> window_pb2.SparseHistogram:
    index = np.flatnonzero(counts)
    return window_pb2.SparseHistogram(index=index.tolist(), count=counts[index].tolist())


def _finished(counts: _OpenWindow, unix_ns: int) -> window_pb2.Window:
    message = counts.message
    message.end_unix_ns = unix_ns
    message.latency.CopyFrom(_sparse(counts.latency))
    message.scores.CopyFrom(_sparse(counts.scores))
    if message.arm == window_pb2.ARM_SHADOW:
        pairs = message.pairs
        joint = np.flatnonzero(counts.joint)
        pairs.joint_index.extend(joint.tolist())
        pairs.joint_count.extend(counts.joint[joint].tolist())
        by_production = counts.joint.reshape(JOINT_STRIDE, JOINT_STRIDE).sum(axis=1)
        pairs.production_bins.CopyFrom(_sparse(by_production))
    for metric, records in sorted(counts.records.items()):
        told = message.records.add(metric=window_pb2.Metric.Name(metric))
        told.MergeFromString(b"".join(records))
    return message
