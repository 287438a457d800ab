"""What a reported outcome adds to the cell of the prediction that it is about.

The cell is that of the hour of the prediction, so that the outcomes of a cohort stand beside its
scores. Columns, each of outcome NAME, with the bins of the version's first output and one more, at
their end, for predictions whose id has no score:

    outcome:NAME:positive, :negative   predictions by their score bin; positive is a value above 0
    outcome:NAME:value                 sums: of the values, and of their squares
    outcome:NAME:error                 sums for outputs that are no probabilities: count, errors
                                       (score - value), absolute and squared errors
    outcome:NAME:delay_days            entry d: outcomes that were received d days after their
                                       prediction; the last entry has all later ones
    outcome:NAME:events                the entries of OutcomeKind: what was not counted, and why
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

import numpy as np

from host.clock import DAY_MS, HOUR_MS
from monitoring.cells.cell import CellCounts, CellKey
from monitoring.cells.version_bins import VersionBins
from protos import monitoring_pb2 as pb
from stats.score_grid import bins_by_edges

DELAY_DAYS = 401
"""Entries of the delays: 0 to 399 days, and later."""
DIGEST_BYTES = 16
SKEW_MS = 300_000
"""How far the clocks of callers and gateways may differ, as at the gateway."""

ScoreOf = Callable[[bytes], float | None]
"""Returns the score that a prediction id carries; None: an id of a release before scores."""


class OutcomeKind(IntEnum):
    """What became of a report. Each is an entry of the events."""

    COUNTED = 0
    DUPLICATE = 1
    """Its value was reported before, for this row and name."""
    CORRECTED = 2
    """Another value was reported before; the new one is counted in its place."""
    BEFORE_PREDICTION = 3
    """Its event is earlier than its prediction."""
    FUTURE = 4
    """Its event is later than its report."""
    NO_NUMBER = 5
    """Its value is NaN or infinite."""
    ORPHAN = 6
    """Its id is not of this cluster, or of a version that monitoring has not seen."""
    BY_ENTITY = 7
    """It has no prediction id, and no kept answer that it is about was found."""


@dataclass(frozen=True, slots=True)
class CountedOutcome:
    """An outcome as it is counted."""

    key: CellKey
    name: str
    score: float | None
    value: float


def id_digest(prediction_id: bytes) -> bytes:
    """Return the 16 bytes by which monitoring names a prediction id."""
    return blake2b(prediction_id, digest_size=DIGEST_BYTES).digest()


def outcome_column(name: str, part: str) -> str:
    """Return the name of the column *part* of an outcome."""
    return f"outcome:{name}:{part}"


def refuse_outcome(event: pb.OutcomeEvent) -> OutcomeKind | None:
    """Return why an outcome cannot be counted whatever was reported before; None: it can."""
    if not np.isfinite(event.value):
        return OutcomeKind.NO_NUMBER
    if event.forged:
        return OutcomeKind.ORPHAN
    if not event.id_digest:
        return OutcomeKind.BY_ENTITY
    if event.event_unix_ms and event.event_unix_ms < event.predicted_unix_ms - SKEW_MS:
        return OutcomeKind.BEFORE_PREDICTION
    if event.event_unix_ms > event.received_unix_ms + SKEW_MS:
        return OutcomeKind.FUTURE
    return None


def outcome_key(event: pb.OutcomeEvent, model: str, version: str, segment: str = "") -> CellKey:
    """Return the key of the cell of the prediction that *event* is about."""
    return CellKey(
        model,
        version,
        event.version_digest,
        event.role,
        event.holdout,
        segment,
        event.predicted_unix_ms // HOUR_MS,
    )


def event_counts(name: str, kind: OutcomeKind) -> CellCounts:
    """Return the counts of one report that became *kind*."""
    counts = CellCounts()
    counts.add(outcome_column(name, "events"), _one_at(kind, len(OutcomeKind)))
    return counts


def outcome_counts(outcome: CountedOutcome, bins: VersionBins, sign: int = 1) -> CellCounts:
    """Return what an outcome adds to its cell; with *sign* -1 what takes it away again.

    A version without bins is counted in the last entry alone, as one whose ids have no scores.
    """
    counts = CellCounts()
    size = bins.outputs[0].size if bins.outputs else 0
    index = size
    if outcome.score is not None and bins.outputs:
        score = np.array([outcome.score], dtype=np.float32)
        index = int(bins_by_edges(score, bins.outputs[0].edges)[0])
    part = "positive" if outcome.value > 0 else "negative"
    counts.add(outcome_column(outcome.name, part), sign * _one_at(index, size + 1))
    # Sums, which a proportion does not need.
    if outcome.value not in (0.0, 1.0):
        sums = np.array([outcome.value, outcome.value**2])
        counts.add(outcome_column(outcome.name, "value"), sign * sums)
    if outcome.score is not None and bins.outputs and not bins.outputs[0].probability:
        error = outcome.score - outcome.value
        errors = np.array([1.0, error, abs(error), error**2])
        counts.add(outcome_column(outcome.name, "error"), sign * errors)
    return counts


def delay_counts(event: pb.OutcomeEvent) -> CellCounts:
    """Return the delay of the first report of an outcome."""
    days = max(0, event.received_unix_ms - event.predicted_unix_ms) // DAY_MS
    counts = CellCounts()
    counts.add(
        outcome_column(event.name, "delay_days"), _one_at(min(days, DELAY_DAYS - 1), DELAY_DAYS)
    )
    return counts


def _one_at(index: int, size: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    vector = np.zeros(size, dtype=np.int64)
    vector[index] = 1
    return vector
