"""What a version did with some calls, and how that is counted: counts that add, and evidence.

`Observations` has one item for each call or row. `count_observations` counts them in about a dozen
numpy calls, however many there are. C is the number of calls, R the number of their rows, K the
number of outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.columns import row_counts
from gateway.key_column import KEY_SAMPLE_ALL, in_key_sample
from gateway.models.executor import Fault
from gateway.models.routes import Routes
from gateway.telemetry import packed_fields
from protos import predict_pb2, window_pb2
from stats.latency import BINS, latency_bins
from stats.score_scale import ScoreScale

JOINT_STRIDE = 64
"""PairCounts.joint_index is production bin * 64 + shadow bin. There is room for 60 bins, NaN, +inf
and -inf."""

NOT_COMPARED = JOINT_STRIDE - 1
"""The bin of a score whose row was missing in the store or not read in time. The key counts, the
score is not compared: an approved shift has no such rows, and while the store is slow there are
many
of them and all are alike."""
KEY_HASH, BIN, PRODUCTION_BIN, BATCH_CALLS = (
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
"""The row flags that are counted, in the order of ObservationCounts.flags."""

METRIC_BY_FAULT = {
    Fault.RAISED: window_pb2.METRIC_ERROR,
    Fault.NOT_FINITE: window_pb2.METRIC_SCHEMA,
    Fault.LATE: window_pb2.METRIC_TIMEOUT,
}


@dataclass(slots=True)
class Observations:
    """What one version did with C calls of one arm, which have R rows."""

    key_hash: NDArray[np.uint64]
    """(C,) evidence keys."""
    faults: NDArray[np.uint8]
    """(C,) Fault of this version, whichever version answered the call in the end."""
    holdout: NDArray[np.bool_] | None
    """(C,) True for the control group, which gives no evidence. None: no call is in it."""
    latency_ns: NDArray[np.int64]
    """(C,) time from arrival to answer."""
    scores: NDArray[np.float32]
    """(R, K) scores of every row. NaN in calls that raised or came late."""
    expected: NDArray[np.float32] | None
    """(R, K) production's scores of the same rows. None if production did not score them."""
    row_offsets: NDArray[np.uint32]
    """(C + 1,) where the rows of each call begin."""
    flags: NDArray[np.uint32]
    """(R,) turnout.v1.RowFlag bits."""
    fallbacks: int = 0
    """Calls that this version was to answer and another version did."""
    broken: int = 0
    """Stored rows with a wrong hash or id."""
    compared_latency_ns: NDArray[np.int64] | None = None
    """(C,) latency by which arms are compared: the wait until the versions were given the batch,
    plus the processor time of this version's run. None: latency_ns."""
    overdue: NDArray[np.bool_] | None = None
    """(C,) True if the call was answered and the run exceeded a canary's budget. This is evidence
    against either arm alike, so a slow host counts against neither. None: no call."""
    batch_calls: NDArray[np.int64] | None = None
    """(C,) number of calls of all arms in the batch in which each call was scored. None: 1 each."""

    @staticmethod
    def concatenated(parts: "Sequence[Observations]") -> "Observations":
        """Return the observations of several batches as one."""
        if len(parts) == 1:
            return parts[0]
        counts = np.concatenate([row_counts(part.row_offsets) for part in parts])
        holdout = [part.holdout for part in parts if part.holdout is not None]
        expected = [part.expected for part in parts if part.expected is not None]
        return Observations(
            key_hash=np.concatenate([part.key_hash for part in parts]),
            faults=np.concatenate([part.faults for part in parts]),
            holdout=np.concatenate(holdout) if len(holdout) == len(parts) else None,
            latency_ns=np.concatenate([part.latency_ns for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            expected=np.concatenate(expected) if len(expected) == len(parts) else None,
            row_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32),
            flags=np.concatenate([part.flags for part in parts]),
            fallbacks=sum(part.fallbacks for part in parts),
            broken=sum(part.broken for part in parts),
            compared_latency_ns=np.concatenate([part.compared() for part in parts]),
            overdue=_overdue(parts),
            batch_calls=np.concatenate([_batch_sizes(part) for part in parts]),
        )

    def compared(self) -> NDArray[np.int64]:
        """Return the (C,) latencies by which arms are compared, in ns."""
        compared_ns = self.compared_latency_ns
        return self.latency_ns if compared_ns is None else compared_ns


@dataclass(slots=True)
class ObservationCounts:
    """The numbers that observations add up to, and the evidence in them."""

    faults: NDArray[np.int64]
    """(len(Fault),) calls by fault. Item 0 counts the calls that were answered."""
    rows: int
    flags: tuple[int, ...]
    """Number of rows with each of ROW_FLAGS."""
    latency: NDArray[np.int64]
    """(BINS,) latency histogram of the calls that were answered."""
    scores: NDArray[np.int64]
    """(JOINT_STRIDE,) histogram of the rows that got a score."""
    all_scores: NDArray[np.int64]
    """(JOINT_STRIDE,) histogram of every row, those of faulty calls included."""
    holdout: int = 0
    fallbacks: int = 0
    broken: int = 0
    records: dict[int, bytes] = field(default_factory=dict)
    """Metric -> evidence by key, as encoded fields of turnout.v1.KeyRecords. Concatenating adds."""


def count_observations(
    observations: Observations, scale: ScoreScale, sampled: int | None
) -> ObservationCounts:
    """Count what one version did.

    scale    the bins of scores.
    sampled  evidence holds scores and latencies of the keys whose hash modulo 65,536 is below
             this. None: no evidence, because no arms are compared.
    """
    binned = scale.bins(observations.scores)
    scores = all_scores = np.bincount(binned, minlength=JOINT_STRIDE)
    answered_ns = observations.latency_ns
    faults = np.bincount(observations.faults, minlength=len(Fault))
    # Leave faulty calls out of the latencies, and calls without a score out of the scores.
    if faults[Fault.NONE] < len(observations.faults):
        answered = observations.faults == Fault.NONE
        answered_ns = answered_ns[answered]
        has_score = answered | (observations.faults == Fault.NOT_FINITE)
        rows_with_score = np.repeat(has_score, row_counts(observations.row_offsets))
        scores = np.bincount(binned[rows_with_score], minlength=JOINT_STRIDE)
    # Count the flags, which are nearly always all zero.
    flags, flagged = observations.flags, observations.flags.any()
    holdout = observations.holdout
    records: dict[int, bytes] = {}
    if sampled is not None:
        records = _encode_evidence(observations, binned, scale, sampled)
    return ObservationCounts(
        faults=faults,
        rows=len(observations.scores),
        flags=tuple(int(np.count_nonzero(flags & f)) if flagged else 0 for f in ROW_FLAGS),
        latency=np.bincount(latency_bins(answered_ns), minlength=BINS),
        scores=scores,
        all_scores=all_scores,
        holdout=0 if holdout is None else int(np.count_nonzero(holdout)),
        fallbacks=observations.fallbacks,
        broken=observations.broken,
        records=records,
    )


def evidence_sampled(routes: Routes, arm: int) -> int | None:
    """Return how many of 65,536 key residues give evidence for *arm*; None if none do.

    There is evidence only while a rollout compares arms that the split has drawn.
    """
    drawn = arm in (window_pb2.ARM_PRODUCTION, window_pb2.ARM_CANARY, window_pb2.ARM_STANDBY)
    return routes.limits.evidence_sampled if drawn and routes.compared else None


def _encode_evidence(
    observations: Observations,
    binned: NDArray[np.int64],
    scale: ScoreScale,
    sampled: int,
) -> dict[int, bytes]:
    """Return every error-like event, and scores and latencies of the sampled keys.

    binned  (R,) bins of the scores.
    """
    records: dict[int, bytes] = {}
    gives_evidence = True if observations.holdout is None else ~observations.holdout
    # Errors, NaN and timeouts: every event counts, sampled or not.
    for fault, metric in METRIC_BY_FAULT.items():
        hit = observations.faults == fault
        if fault is Fault.LATE and observations.overdue is not None:
            hit = hit | observations.overdue
        hit = hit & gives_evidence
        if hit.any():
            no_bins = np.zeros(np.count_nonzero(hit), dtype=np.int64)
            batch_calls = _batch_sizes(observations)[hit] if fault is Fault.LATE else None
            keys = observations.key_hash[hit]
            records[metric] = _encode_records(keys, no_bins, None, batch_calls)
    # Scores and latencies of answered calls whose key is in the sample.
    answered = (observations.faults == Fault.NONE) & gives_evidence
    if sampled < KEY_SAMPLE_ALL:
        answered &= in_key_sample(observations.key_hash, sampled)
    if not answered.any():
        return records
    first_rows = observations.row_offsets[:-1].astype(np.intp)[answered]
    keys = observations.key_hash[answered]
    bins = binned[first_rows]
    bins[(observations.flags[first_rows] & INCOMPLETE_FLAGS) != 0] = NOT_COMPARED
    production_bins = None
    if observations.expected is not None:
        production_bins = scale.bins(observations.expected[first_rows])
    records[window_pb2.METRIC_SCORE] = _encode_records(keys, bins, production_bins, None)
    latencies = latency_bins(observations.compared()[answered])
    batch_calls = _batch_sizes(observations)[answered]
    records[window_pb2.METRIC_LATENCY] = _encode_records(keys, latencies, None, batch_calls)
    return records


def _encode_records(
    keys: NDArray[np.uint64],
    bins: NDArray[np.int64],
    production_bins: NDArray[np.int64] | None,
    batch_calls: NDArray[np.int64] | None,
) -> bytes:
    """Return the packed fields of a turnout.v1.KeyRecords."""
    fields = [packed_fields.fixed64s(KEY_HASH, keys), packed_fields.varints(BIN, bins)]
    if production_bins is not None:
        fields.append(packed_fields.varints(PRODUCTION_BIN, production_bins))
    if batch_calls is not None:
        fields.append(packed_fields.varints(BATCH_CALLS, batch_calls))
    return b"".join(fields)


def _batch_sizes(observations: Observations) -> NDArray[np.int64]:
    """Return the (C,) number of calls in the batch of each call, itself included."""
    if observations.batch_calls is None:
        return np.ones(len(observations.faults), dtype=np.int64)
    return observations.batch_calls


def _overdue(parts: Sequence[Observations]) -> NDArray[np.bool_] | None:
    if all(part.overdue is None for part in parts):
        return None
    columns = [
        np.zeros(len(part.faults), dtype=np.bool_) if part.overdue is None else part.overdue
        for part in parts
    ]
    return np.concatenate(columns)
