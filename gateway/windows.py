"""What each version did in this second: counts that add, and evidence by key."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import packed
from gateway.deployed import LoadedVersion, Routes
from gateway.keys import KEEP_ALL, kept
from gateway.rows import counts_of
from gateway.scoring import Fault
from protos import predict_pb2, window_pb2
from stats.latency import BINS, bins_of

NS = 1_000_000_000
JOINT_STRIDE = 64
"""Pairs.joint_index = production bin * 64 + shadow bin: room for 60 bins and NaN, +inf, -inf."""

NOT_COMPARED = JOINT_STRIDE - 1
"""The bin of a score whose row the store did not have, or not in time: its key counts, its score
says nothing. Certificates know no such rows; while the store is slow they are many and all alike.
"""
_KEY_HASH, _BIN, _EXPECTED_BIN, _BATCH_CALLS = (
    window_pb2.Records.DESCRIPTOR.fields_by_name[name].number
    for name in ("key_hash", "bin", "expected_bin", "batch_calls")
)
NOT_WHOLE = predict_pb2.MISSING | predict_pb2.DEGRADED

ERROR_LIKE = {
    Fault.RAISED: window_pb2.METRIC_ERROR,
    Fault.NOT_FINITE: window_pb2.METRIC_SCHEMA,
    Fault.LATE: window_pb2.METRIC_TIMEOUT,
}


@dataclass(slots=True)
class Told:
    """What one version did with some calls of a batch, all of one arm."""

    key_hash: NDArray[np.uint64]
    """(C,)."""
    faults: NDArray[np.uint8]
    """(C,) gateway.scoring.Fault of this version, whoever answered in the end."""
    held_out: NDArray[np.bool_] | None
    """(C,) in the control group: no evidence. None: nobody."""
    latency_ns: NDArray[np.int64]
    """(C,) from arrival to answer."""
    scores: NDArray[np.float32]
    """(R,) first output of every row; NaN in calls that raised or came late."""
    expected: NDArray[np.float32] | None
    """(R,) production's first output on the same rows, where it scored them."""
    row_offsets: NDArray[np.uint32]
    """(C + 1,)."""
    flags: NDArray[np.uint32]
    """(R,) RowFlag bits."""
    fallen_back: int = 0
    broken: int = 0
    done_ns: NDArray[np.int64] | None = None
    """(C,) by which arms are compared: from arrival until the versions were asked, and the
    processor time that this one then took. None: latency_ns."""
    overdue: NDArray[np.bool_] | None = None
    """(C,) answered, but the run took longer than a canary may: evidence against either arm, so
    that a slow host accuses nobody. None: none."""
    batch_calls: NDArray[np.int64] | None = None
    """(C,) calls of all arms in the batch each was scored in. None: alone."""

    @staticmethod
    def joined(parts: "Sequence[Told]") -> "Told":
        """Several batches' worth as one."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([counts_of(told.row_offsets) for told in parts])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32)
        held_out = [told.held_out for told in parts if told.held_out is not None]
        expected = [told.expected for told in parts if told.expected is not None]
        return Told(
            key_hash=np.concatenate([told.key_hash for told in parts]),
            faults=np.concatenate([told.faults for told in parts]),
            held_out=np.concatenate(held_out) if len(held_out) == len(parts) else None,
            latency_ns=np.concatenate([told.latency_ns for told in parts]),
            scores=np.concatenate([told.scores for told in parts]),
            expected=np.concatenate(expected) if len(expected) == len(parts) else None,
            row_offsets=offsets,
            flags=np.concatenate([told.flags for told in parts]),
            fallen_back=sum(told.fallen_back for told in parts),
            broken=sum(told.broken for told in parts),
            done_ns=np.concatenate(
                [told.latency_ns if told.done_ns is None else told.done_ns for told in parts]
            ),
            overdue=_overdue(parts),
            batch_calls=np.concatenate([_in_batches(told) for told in parts]),
        )


def score_bins(scores: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the reference bin of each score: 0..J-1, J for NaN, J+1 for +inf, J+2 for -inf."""
    bins = np.searchsorted(edges, scores, side="left")
    if not np.isfinite(scores).all():
        after = len(edges) + 1
        bins = np.where(np.isnan(scores), after, bins)
        bins = np.where(np.isposinf(scores), after + 1, bins)
        bins = np.where(np.isneginf(scores), after + 2, bins)
    return bins.astype(np.int64)


class Histograms(NamedTuple):
    """What was counted of a version's calls, for whoever counts them, too."""

    latency: NDArray[np.int64]
    """(BINS,) of those it answered."""
    scores: NDArray[np.int64]
    """(JOINT_STRIDE,) of every row, those of its faults among them."""


@dataclass(slots=True)
class _Columns:
    """One metric's records, as they were told: some (N,) at a time."""

    keys: list[NDArray[np.uint64]] = field(default_factory=list)
    bins: list[NDArray[np.int64]] = field(default_factory=list)
    expected: list[NDArray[np.int64]] = field(default_factory=list)
    batch_calls: list[NDArray[np.int64]] = field(default_factory=list)

    def on_wire(self) -> bytes:
        """Return them as the fields of a turnout.v1.Records."""
        fields = [packed.fixed64s(_KEY_HASH, np.concatenate(self.keys))]
        for number, told in (
            (_BIN, self.bins),
            (_EXPECTED_BIN, self.expected),
            (_BATCH_CALLS, self.batch_calls),
        ):
            fields += [packed.varints(number, np.concatenate(told))] if told else []
        return b"".join(fields)


@dataclass(slots=True)
class _Counts:
    """One open window."""

    message: window_pb2.Window
    latency: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    scores: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(JOINT_STRIDE, dtype=np.int64)
    )
    joint: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(JOINT_STRIDE * JOINT_STRIDE, dtype=np.int64)
    )
    records: "defaultdict[int, _Columns]" = field(default_factory=lambda: defaultdict(_Columns))


class Windows:
    """The open windows of one worker. Touched by the event loop's thread only."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str, int, str, int], _Counts] = {}

    def tell(
        self, routes: Routes, version: LoadedVersion, arm: int, told: Told, unix_ns: int
    ) -> Histograms:
        """Count one version's part of a batch. A dozen numpy calls, whatever the batch's size."""
        counts = self._window(routes, version, arm, unix_ns)
        message = counts.message
        faulty = told.faults != Fault.NONE
        calls = message.calls
        calls.answered += len(told.faults) - int(np.count_nonzero(faulty))
        if told.held_out is not None:
            calls.held_out += int(np.count_nonzero(told.held_out))
        calls.fallen_back += told.fallen_back
        message.rows += len(told.scores)
        if faulty.any():
            self._tell_faults(message, told, unix_ns)
        self._tell_flags(message, told)
        answered_ns, binned = told.latency_ns, score_bins(told.scores, routes.score_edges)
        scores = every = np.bincount(binned, minlength=JOINT_STRIDE)
        if faulty.any():
            answered_ns = answered_ns[~faulty]
            gave = (told.faults == Fault.NONE) | (told.faults == Fault.NOT_FINITE)
            scored = binned[np.repeat(gave, counts_of(told.row_offsets))]
            scores = np.bincount(scored, minlength=JOINT_STRIDE)
        latency = np.bincount(bins_of(answered_ns), minlength=BINS)
        counts.latency += latency
        counts.scores += scores
        if _under_test(routes, arm):
            self._record(counts, routes, told, binned)
        return Histograms(latency, every)

    def tell_pairs(
        self, routes: Routes, version: LoadedVersion, told: Told, unix_ns: int, threshold: float
    ) -> None:
        """Count a shadow's answers beside production's, which were finite on all these rows."""
        self.tell(routes, version, window_pb2.ARM_SHADOW, told, unix_ns)
        expected = told.expected
        assert expected is not None
        counts = self._window(routes, version, window_pb2.ARM_SHADOW, unix_ns)
        pairs = counts.message.pairs
        fine = np.isfinite(told.scores) & np.isfinite(expected)
        mine, theirs = told.scores[fine].astype(np.float64), expected[fine].astype(np.float64)
        pairs.pairs += len(mine)
        pairs.flips += int(np.count_nonzero((mine >= threshold) != (theirs >= threshold)))
        difference = np.abs(mine - theirs)
        pairs.absolute_sum += float(difference.sum())
        pairs.square_sum += float((difference * difference).sum())
        pairs.faulty += int(np.count_nonzero(np.isfinite(expected) & ~np.isfinite(told.scores)))
        edges = routes.score_edges
        joint = score_bins(expected, edges) * JOINT_STRIDE + score_bins(told.scores, edges)
        counts.joint += np.bincount(joint, minlength=len(counts.joint))

    def refuse(self, routes: Routes, calls: int, unix_ns: int) -> None:
        """Count calls refused after they were taken: they say nothing about a version."""
        counts = self._window(routes, routes.production.version, window_pb2.ARM_PRODUCTION, unix_ns)
        counts.message.calls.refused += calls

    def pass_over(self, routes: Routes, version: LoadedVersion, calls: int, unix_ns: int) -> None:
        """Count a canary's calls that production answered without asking it."""
        counts = self._window(routes, version, window_pb2.ARM_CANARY, unix_ns)
        counts.message.calls.fallen_back += calls

    def drop(self, routes: Routes, version: LoadedVersion, copies: int, unix_ns: int) -> None:
        """Count shadow copies that were given up under load."""
        counts = self._window(routes, version, window_pb2.ARM_SHADOW, unix_ns)
        counts.message.calls.dropped += copies

    def close(self, unix_ns: int, *, everything: bool = False) -> list[window_pb2.Window]:
        """Close the windows of seconds that are over (or all of them) and return them."""
        second = unix_ns // NS
        over = [key for key in self._open if everything or key[0] < second]
        return [_finished(self._open.pop(key), unix_ns) for key in over]

    def _window(self, routes: Routes, version: LoadedVersion, arm: int, unix_ns: int) -> _Counts:
        second = unix_ns // NS
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
                keep_of_65536=routes.budgets.evidence_keep,
            )
            counts = self._open[key] = _Counts(message)
        return counts

    @staticmethod
    def _tell_faults(message: window_pb2.Window, told: Told, unix_ns: int) -> None:
        calls = message.calls
        kinds = np.bincount(told.faults, minlength=len(Fault))
        calls.faulty += int(kinds[Fault.RAISED])
        calls.nan += int(kinds[Fault.NOT_FINITE])
        calls.late += int(kinds[Fault.LATE])
        message.first_bad_unix_ns = message.first_bad_unix_ns or unix_ns
        message.last_bad_unix_ns = unix_ns

    @staticmethod
    def _tell_flags(message: window_pb2.Window, told: Told) -> None:
        rows = message.features
        rows.broken += told.broken
        if told.flags.any():
            rows.missing += int(np.count_nonzero(told.flags & predict_pb2.MISSING))
            rows.stale += int(np.count_nonzero(told.flags & predict_pb2.STALE))
            rows.defaulted += int(np.count_nonzero(told.flags & predict_pb2.DEFAULTED))
            rows.degraded += int(np.count_nonzero(told.flags & predict_pb2.DEGRADED))

    @staticmethod
    def _record(counts: _Counts, routes: Routes, told: Told, binned: NDArray[np.int64]) -> None:
        """Add evidence: every error-like event, and scores and latencies of the keys kept.

        binned  (R,) reference bins of the scores.
        """
        counted = True if told.held_out is None else ~told.held_out
        for fault, metric in ERROR_LIKE.items():
            hit = told.faults == fault
            if fault is Fault.LATE and told.overdue is not None:
                hit = hit | told.overdue
            hit = hit & counted
            if hit.any():
                records = counts.records[metric]
                records.keys.append(told.key_hash[hit])
                records.bins.append(np.zeros(np.count_nonzero(hit), dtype=np.int64))
                if fault is Fault.LATE:
                    records.batch_calls.append(_in_batches(told)[hit])
        good = (told.faults == Fault.NONE) & counted
        if routes.budgets.evidence_keep < KEEP_ALL:
            good &= kept(told.key_hash, routes.budgets.evidence_keep)
        if not good.any():
            return
        first_rows = told.row_offsets[:-1].astype(np.intp)[good]
        hashes = told.key_hash[good]
        records = counts.records[window_pb2.METRIC_SCORE]
        records.keys.append(hashes)
        scored = binned[first_rows]
        scored[(told.flags[first_rows] & NOT_WHOLE) != 0] = NOT_COMPARED
        records.bins.append(scored)
        if told.expected is not None:
            records.expected.append(score_bins(told.expected[first_rows], routes.score_edges))
        records = counts.records[window_pb2.METRIC_LATENCY]
        records.keys.append(hashes)
        took_ns = told.latency_ns if told.done_ns is None else told.done_ns
        records.bins.append(bins_of(took_ns[good]))
        records.batch_calls.append(_in_batches(told)[good])


def _in_batches(told: Told) -> NDArray[np.int64]:
    """(C,) how many calls each was scored with, itself among them."""
    if told.batch_calls is None:
        return np.ones(len(told.faults), dtype=np.int64)
    return told.batch_calls


def _overdue(parts: Sequence[Told]) -> NDArray[np.bool_] | None:
    if all(told.overdue is None for told in parts):
        return None
    return np.concatenate(
        [np.zeros(len(t.faults), dtype=np.bool_) if t.overdue is None else t.overdue for t in parts]
    )


def _under_test(routes: Routes, arm: int) -> bool:
    """Evidence by key is wanted only while a rollout compares arms that the split drew."""
    drawn = arm in (window_pb2.ARM_PRODUCTION, window_pb2.ARM_CANARY, window_pb2.ARM_STANDBY)
    return drawn and routes.compared


def _sparse(counts: NDArray[np.int64]) -> window_pb2.Sparse:
    index = np.flatnonzero(counts)
    return window_pb2.Sparse(index=index.tolist(), count=counts[index].tolist())


def _finished(counts: _Counts, unix_ns: int) -> window_pb2.Window:
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
        told.MergeFromString(records.on_wire())
    return message
