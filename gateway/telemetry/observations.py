"""What one version did with some calls, and what is counted of it: counts that add, and evidence.

`Told` lies call by call and row by row; `tally` counts it in a dozen numpy calls, however many
calls there are. `gateway.telemetry.native_observations` counts batches without a fault, to the same
bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.key_column import KEY_SAMPLE_ALL, in_key_sample
from gateway.models.executor import Fault
from gateway.rows import counts_of
from gateway.telemetry import packed_fields
from protos import predict_pb2, window_pb2
from stats.latency import BINS, latency_bins

JOINT_STRIDE = 64
"""Pairs.joint_index = production bin * 64 + shadow bin: room for 60 bins and NaN, +inf, -inf."""

NOT_COMPARED = JOINT_STRIDE - 1
"""The bin of a score whose row the store did not have, or not in time: its key counts, its score
says nothing. Certificates know no such rows; while the store is slow they are many and all alike.
"""
KEY_HASH, BIN, EXPECTED_BIN, BATCH_CALLS = (
    window_pb2.KeyRecords.DESCRIPTOR.fields_by_name[name].number
    for name in ("key_hash", "bin", "production_bin", "batch_calls")
)
INCOMPLETE_FLAGS = predict_pb2.MISSING | predict_pb2.DEGRADED
ROW_FLAGS = (
    predict_pb2.MISSING,
    predict_pb2.STALE,
    predict_pb2.DEFAULTED,
    predict_pb2.DEGRADED,
)
"""Those that are counted, in the order of Tally.flags."""

METRIC_BY_FAULT = {
    Fault.RAISED: window_pb2.METRIC_ERROR,
    Fault.NOT_FINITE: window_pb2.METRIC_SCHEMA,
    Fault.LATE: window_pb2.METRIC_TIMEOUT,
}


@dataclass(slots=True)
class Observations:
    """What one version did with some calls of a batch, all of one arm."""

    key_hash: NDArray[np.uint64]
    """(C,)."""
    faults: NDArray[np.uint8]
    """(C,) gateway.models.executor.Fault of this version, whoever answered in the end."""
    holdout: NDArray[np.bool_] | None
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
    fallbacks: int = 0
    broken: int = 0
    compared_latency_ns: NDArray[np.int64] | None = None
    """(C,) by which arms are compared: from arrival until the versions were asked, and the
    processor time that this one then took. None: latency_ns."""
    overdue: NDArray[np.bool_] | None = None
    """(C,) answered, but the run took longer than a canary may: evidence against either arm, so
    that a slow host accuses nobody. None: none."""
    batch_calls: NDArray[np.int64] | None = None
    """(C,) calls of all arms in the batch each was scored in. None: alone."""

    @staticmethod
    def concatenated(parts: "Sequence[Observations]") -> "Observations":
        """Several batches' worth as one."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([counts_of(told.row_offsets) for told in parts])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32)
        held_out = [told.holdout for told in parts if told.holdout is not None]
        expected = [told.expected for told in parts if told.expected is not None]
        return Observations(
            key_hash=np.concatenate([told.key_hash for told in parts]),
            faults=np.concatenate([told.faults for told in parts]),
            holdout=np.concatenate(held_out) if len(held_out) == len(parts) else None,
            latency_ns=np.concatenate([told.latency_ns for told in parts]),
            scores=np.concatenate([told.scores for told in parts]),
            expected=np.concatenate(expected) if len(expected) == len(parts) else None,
            row_offsets=offsets,
            flags=np.concatenate([told.flags for told in parts]),
            fallbacks=sum(told.fallbacks for told in parts),
            broken=sum(told.broken for told in parts),
            compared_latency_ns=np.concatenate(
                [
                    told.latency_ns
                    if told.compared_latency_ns is None
                    else told.compared_latency_ns
                    for told in parts
                ]
            ),
            overdue=_overdue(parts),
            batch_calls=np.concatenate([_batch_sizes(told) for told in parts]),
        )


def reference_bins(scores: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the reference bin of each score: 0..J-1, J for NaN, J+1 for +inf, J+2 for -inf."""
    bins = np.searchsorted(edges, scores, side="left")
    if not np.isfinite(scores).all():
        after = len(edges) + 1
        bins = np.where(np.isnan(scores), after, bins)
        bins = np.where(np.isposinf(scores), after + 1, bins)
        bins = np.where(np.isneginf(scores), after + 2, bins)
    return bins.astype(np.int64)


@dataclass(slots=True)
class ObservationCounts:
    """What was counted of some calls of one version."""

    faults: NDArray[np.int64]
    """(len(Fault),) calls by what became of them; at 0 those it answered."""
    rows: int
    flags: tuple[int, ...]
    """Rows that bear each of ROW_FLAGS."""
    latency: NDArray[np.int64]
    """(BINS,) of the calls it answered."""
    scores: NDArray[np.int64]
    """(JOINT_STRIDE,) of the rows that it gave a score for."""
    all_scores: NDArray[np.int64]
    """(JOINT_STRIDE,) of every row, those of its faults among them."""
    holdout: int = 0
    fallbacks: int = 0
    broken: int = 0
    records: dict[int, bytes] = field(default_factory=dict)
    """Metric -> evidence by key, as fields of a turnout.v1.Records: what is appended adds."""


def count_observations(
    observations: Observations, edges: NDArray[np.float32], evidence_sampled: int | None
) -> ObservationCounts:
    """Count what one version did. A dozen numpy calls, whatever its size.

    edges          (J - 1,) between the reference bins of scores.
    evidence_keep  of 65,536 residues of a key's hash, those whose scores and latencies are
                   evidence; None: nothing is, because no arms are compared.
    """
    binned = reference_bins(observations.scores, edges)
    scores = every = np.bincount(binned, minlength=JOINT_STRIDE)
    answered_ns, faults = (
        observations.latency_ns,
        np.bincount(observations.faults, minlength=len(Fault)),
    )
    if faults[Fault.NONE] < len(observations.faults):
        answered_ns = answered_ns[observations.faults == Fault.NONE]
        gave = (observations.faults == Fault.NONE) | (observations.faults == Fault.NOT_FINITE)
        scored = binned[np.repeat(gave, counts_of(observations.row_offsets))]
        scores = np.bincount(scored, minlength=JOINT_STRIDE)
    flagged = observations.flags.any()
    return ObservationCounts(
        faults=faults,
        rows=len(observations.scores),
        flags=tuple(
            int(np.count_nonzero(observations.flags & f)) if flagged else 0 for f in ROW_FLAGS
        ),
        latency=np.bincount(latency_bins(answered_ns), minlength=BINS),
        scores=scores,
        all_scores=every,
        holdout=0 if observations.holdout is None else int(np.count_nonzero(observations.holdout)),
        fallbacks=observations.fallbacks,
        broken=observations.broken,
        records={}
        if evidence_sampled is None
        else _encode_evidence(observations, binned, edges, evidence_sampled),
    )


def _encode_evidence(
    observations: Observations,
    binned: NDArray[np.int64],
    edges: NDArray[np.float32],
    evidence_sampled: int,
) -> dict[int, bytes]:
    """Return every error-like event, and scores and latencies of the keys kept.

    binned  (R,) reference bins of the scores.
    """
    records: dict[int, bytes] = {}
    counted = True if observations.holdout is None else ~observations.holdout
    for fault, metric in METRIC_BY_FAULT.items():
        hit = observations.faults == fault
        if fault is Fault.LATE and observations.overdue is not None:
            hit = hit | observations.overdue
        hit = hit & counted
        if hit.any():
            none = np.zeros(np.count_nonzero(hit), dtype=np.int64)
            batch_calls = _batch_sizes(observations)[hit] if fault is Fault.LATE else None
            records[metric] = _encode_records(observations.key_hash[hit], none, None, batch_calls)
    good = (observations.faults == Fault.NONE) & counted
    if evidence_sampled < KEY_SAMPLE_ALL:
        good &= in_key_sample(observations.key_hash, evidence_sampled)
    if not good.any():
        return records
    first_rows = observations.row_offsets[:-1].astype(np.intp)[good]
    hashes = observations.key_hash[good]
    scored = binned[first_rows]
    scored[(observations.flags[first_rows] & INCOMPLETE_FLAGS) != 0] = NOT_COMPARED
    expected = (
        None
        if observations.expected is None
        else reference_bins(observations.expected[first_rows], edges)
    )
    records[window_pb2.METRIC_SCORE] = _encode_records(hashes, scored, expected, None)
    took_ns = (
        observations.latency_ns
        if observations.compared_latency_ns is None
        else observations.compared_latency_ns
    )
    took = latency_bins(took_ns[good])
    records[window_pb2.METRIC_LATENCY] = _encode_records(
        hashes, took, None, _batch_sizes(observations)[good]
    )
    return records


def _encode_records(
    keys: NDArray[np.uint64],
    bins: NDArray[np.int64],
    expected: NDArray[np.int64] | None,
    batch_calls: NDArray[np.int64] | None,
) -> bytes:
    fields = [packed_fields.fixed64s(KEY_HASH, keys), packed_fields.varints(BIN, bins)]
    if expected is not None:
        fields.append(packed_fields.varints(EXPECTED_BIN, expected))
    if batch_calls is not None:
        fields.append(packed_fields.varints(BATCH_CALLS, batch_calls))
    return b"".join(fields)


def _batch_sizes(observations: Observations) -> NDArray[np.int64]:
    """(C,) how many calls each was scored with, itself among them."""
    if observations.batch_calls is None:
        return np.ones(len(observations.faults), dtype=np.int64)
    return observations.batch_calls


def _overdue(parts: Sequence[Observations]) -> NDArray[np.bool_] | None:
    if all(told.overdue is None for told in parts):
        return None
    return np.concatenate(
        [np.zeros(len(t.faults), dtype=np.bool_) if t.overdue is None else t.overdue for t in parts]
    )
