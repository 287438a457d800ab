"""Windows: what each version did in one second, as counts that add up and evidence by key."""

from collections import defaultdict
from collections.abc import Iterator
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
)
from host.clock import NS_PER_SECOND
from protos import predict_pb2, window_pb2
from stats.latency import BINS
from stats.score_scale import BINS_MAX, ScoreScale


@dataclass(slots=True)
class _OpenWindow:
    """A window that still counts: its message, and the histograms that are added to it at its end.

    latency is (BINS,), scores is (JOINT_STRIDE,), joint is (JOINT_STRIDE ** 2,).
    """

    message: window_pb2.Window
    latency: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    scores: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(JOINT_STRIDE, dtype=np.int64)
    )
    joint: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(JOINT_STRIDE * JOINT_STRIDE, dtype=np.int64)
    )
    records: "defaultdict[int, list[bytes]]" = field(default_factory=lambda: defaultdict(list))
    """Metric -> encoded fields of its turnout.v1.Records."""


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
        """Count what one version did in one batch; return the counts, for the metrics."""
        counts = count_observations(observations, routes.scale, evidence_sampled(routes, arm))
        self.add_counts(routes, version, arm, counts, unix_ns)
        return counts

    def add_counts(
        self,
        routes: Routes,
        version: LoadedVersion,
        arm: int,
        counts: ObservationCounts,
        unix_ns: int,
    ) -> None:
        """Add the counts of one version's calls to the window of the second of *unix_ns*."""
        window = self._window(routes, version, arm, unix_ns)
        message, faults = window.message, counts.faults.tolist()
        # Calls by what became of them.
        calls = message.calls
        calls.answered += faults[Fault.NONE]
        calls.holdout += counts.holdout
        calls.fallbacks += counts.fallbacks
        if any(faults[1:]):
            calls.faulty += faults[Fault.RAISED]
            calls.nan += faults[Fault.NOT_FINITE]
            calls.late += faults[Fault.LATE]
            calls.bad_input += faults[Fault.BAD_INPUT]
        # What a caller sent says nothing about the version.
        if any(faults[1 : Fault.BAD_INPUT]):
            message.first_bad_unix_ns = message.first_bad_unix_ns or unix_ns
            message.last_bad_unix_ns = unix_ns
        # Rows by the state of their features.
        message.rows += counts.rows
        rows, flags = message.features, dict(zip(ROW_FLAGS, counts.flags, strict=True))
        rows.broken += counts.broken
        rows.missing += flags[predict_pb2.MISSING]
        rows.stale += flags[predict_pb2.STALE]
        rows.defaulted += flags[predict_pb2.DEFAULTED]
        rows.degraded += flags[predict_pb2.DEGRADED]
        # Histograms, and evidence by key.
        window.latency += counts.latency
        window.scores += counts.scores
        for metric, fields in counts.records.items():
            window.records[metric].append(fields)

    def add_shadow_pairs(
        self, routes: Routes, version: LoadedVersion, observations: Observations, unix_ns: int
    ) -> None:
        """Count a shadow's scores, and their differences from production's on the same rows.

        observations.expected has production's scores. Decisions are those of the serving policy's
        threshold or, if it has none, of the baseline's.
        """
        self.add_observations(routes, version, window_pb2.ARM_SHADOW, observations, unix_ns)
        scale, scores, expected = routes.scale, observations.scores, observations.expected
        assert expected is not None
        window = self._window(routes, version, window_pb2.ARM_SHADOW, unix_ns)
        pairs = window.message.pairs
        # Rows that both scored with finite numbers, and those on which the shadow alone failed.
        expected_finite = np.isfinite(expected).all(axis=1)
        finite = expected_finite & np.isfinite(scores).all(axis=1)
        pairs.pairs += int(np.count_nonzero(finite))
        pairs.faulty += int(np.count_nonzero(expected_finite & ~finite))
        # Decisions and distances of the former.
        threshold = routes.deployment.policy.decision_threshold or None
        flipped = scale.flips(scores, expected, observations.row_offsets, threshold=threshold)
        pairs.flips += int(np.count_nonzero(flipped & finite))
        distances = scale.distances(scores[finite], expected[finite])
        pairs.absolute_sum += float(distances.sum())
        pairs.square_sum += float((distances * distances).sum())
        _add_output_differences(pairs, scale, scores[finite], expected[finite])
        # The joint histogram of both scores: production's bin picks the row.
        joint = scale.bins(expected) * JOINT_STRIDE + scale.bins(scores)
        window.joint += np.bincount(joint, minlength=len(window.joint))

    def add_refusals(self, routes: Routes, calls: int, unix_ns: int) -> None:
        """Count calls refused after they were taken; they say nothing about a version."""
        window = self._window(routes, routes.production.version, window_pb2.ARM_PRODUCTION, unix_ns)
        window.message.calls.refused += calls

    def add_canary_skipped(
        self, routes: Routes, version: LoadedVersion, calls: int, unix_ns: int
    ) -> None:
        """Count calls of a canary that production answered without a run of the canary."""
        window = self._window(routes, version, window_pb2.ARM_CANARY, unix_ns)
        window.message.calls.fallbacks += calls

    def add_dropped(
        self, routes: Routes, version: LoadedVersion, copies: int, unix_ns: int
    ) -> None:
        """Count shadow copies that were dropped under load."""
        window = self._window(routes, version, window_pb2.ARM_SHADOW, unix_ns)
        window.message.calls.dropped += copies

    def close_windows(self, unix_ns: int, *, everything: bool = False) -> list[window_pb2.Window]:
        """Close the windows whose second is over, or all with *everything*, and return them."""
        return list(self.closed_windows(unix_ns, everything=everything))

    def closed_windows(
        self, unix_ns: int, *, everything: bool = False
    ) -> Iterator[window_pb2.Window]:
        """Close the windows that `close_windows` closes, and yield each one."""
        second = unix_ns // NS_PER_SECOND
        over = [key for key in self._open if everything or key[0] < second]
        for key in over:
            yield _finished(self._open.pop(key), unix_ns)

    def _window(
        self, routes: Routes, version: LoadedVersion, arm: int, unix_ns: int
    ) -> _OpenWindow:
        second = unix_ns // NS_PER_SECOND
        key = (second, routes.model, routes.deployment.revision, version.label, arm)
        window = self._open.get(key)
        if window is None:
            message = window_pb2.Window(
                model=routes.model,
                version=version.label,
                version_digest=version.digest8,
                arm=window_pb2.Arm.Name(arm),
                revision=routes.deployment.revision,
                second=second,
                start_unix_ns=unix_ns,
                sampled_of_65536=routes.limits.evidence_sampled,
                output_bins=_output_bins(routes.scale),
            )
            window = self._open[key] = _OpenWindow(message)
        return window


def _output_bins(scale: ScoreScale) -> list[int]:
    """Return where the bins of each output begin; empty for one output."""
    return sorted(set(scale.first_bins.tolist())) if len(scale.outputs) > 1 else []


def _add_output_differences(
    pairs: window_pb2.PairCounts,
    scale: ScoreScale,
    scores: NDArray[np.float32],
    expected: NDArray[np.float32],
) -> None:
    """Add the differences of finite (R, K) scores from the *expected* ones to *pairs*."""
    if not pairs.task:
        pairs.task = scale.task
        for output in scale.outputs[:BINS_MAX]:
            pairs.outputs.add(name=output.name, spread=output.spread)
    sums = np.abs(scores.astype(np.float64) - expected.astype(np.float64)).sum(axis=0).tolist()
    for output_pairs, total in zip(pairs.outputs, sums, strict=False):
        output_pairs.absolute_sum += total


def _sparse(counts: NDArray[np.int64]) -> window_pb2.SparseHistogram:
    index = np.flatnonzero(counts)
    return window_pb2.SparseHistogram(index=index.tolist(), count=counts[index].tolist())


def _finished(window: _OpenWindow, unix_ns: int) -> window_pb2.Window:
    message = window.message
    message.end_unix_ns = unix_ns
    message.latency.CopyFrom(_sparse(window.latency))
    message.scores.CopyFrom(_sparse(window.scores))
    if message.arm == window_pb2.ARM_SHADOW:
        pairs = message.pairs
        joint = np.flatnonzero(window.joint)
        pairs.joint_index.extend(joint.tolist())
        pairs.joint_count.extend(window.joint[joint].tolist())
        by_production = window.joint.reshape(JOINT_STRIDE, JOINT_STRIDE).sum(axis=1)
        pairs.production_bins.CopyFrom(_sparse(by_production))
    for metric, fields in sorted(window.records.items()):
        records = message.records.add(metric=window_pb2.Metric.Name(metric))
        records.MergeFromString(b"".join(fields))
    return message
