"""Served batches and bins for the tests of monitoring."""

import numpy as np
from numpy.typing import NDArray

from journal.prediction_id import HOLDOUT_BIT, hash_model_name, write_prediction_id
from journal.score_code import ScoreRule
from monitoring.cells.version_bins import FeatureBins, OutputBins, VersionBins
from protos.journal_pb2 import OutcomeRecord, ServedBatch
from stats.score_grid import score_grid_edges

KEY = bytes(range(32))
RULE = ScoreRule(True, 0.5)
"""Scores are probabilities, decided at one half."""
HOUR_NS = 3_600 * 10**9
AT_NS = 480_000 * HOUR_NS + 7
DIGEST8 = int.from_bytes(b"version7", "little")
EDGES = np.array([-1, 0, 1], dtype=np.float32)


def churn_bins(width: int = 3, digest8: int = DIGEST8) -> VersionBins:
    """Return the bins of version 7 of churn: a probability, and inputs of which one is a code."""
    features = tuple(
        FeatureBins(f"usage:f{column}", EDGES, categories=2 if column == 0 else 0)
        for column in range(width)
    )
    output = OutputBins("churned", score_grid_edges(), probability=True)
    return VersionBins("churn", "7", digest8, (output,), features)


def ids_of(
    key_hash: NDArray[np.uint64],
    holdout: NDArray[np.bool_],
    first: int = 0,
    *,
    role: int = 1,
    at_ms: int = AT_NS // 10**6,
    sealed: bool = False,
) -> bytes:
    """Return the joined prediction ids of calls."""
    return b"".join(
        write_prediction_id(
            KEY,
            sealed=sealed,
            role=role | (HOLDOUT_BIT if kept_out else 0),
            slot=0,
            sequence=first + number,
            model_hash=hash_model_name("churn"),
            version=DIGEST8.to_bytes(8, "little"),
            revision=3,
            at_ms=at_ms,
            key_hash=int(key),
            boot_id=5,
            rows=1,
            score=0.5,
            rule=RULE,
        )
        for number, (key, kept_out) in enumerate(zip(key_hash, holdout, strict=True))
    )


def served_batch(
    rng: np.random.Generator,
    calls: int = 4,
    *,
    width: int = 3,
    role: int = 1,
    at_ns: int = AT_NS,
    first: int = 0,
    rows_max: int = 3,
) -> ServedBatch:
    """Return random calls of version 7 of churn, each with 1 to *rows_max* rows."""
    # Inputs are small numbers, so that they meet the edges; some are missing.
    row_count = rng.integers(1, rows_max + 1, calls).astype("<u4")
    rows = int(row_count.sum())
    vectors = rng.integers(-2, 4, (rows, width)).astype("<f4")
    vectors[rng.random((rows, width)) < 0.1] = np.nan
    # Some calls are of the control group.
    key_hash = rng.integers(0, 2**63, calls).astype("<u8")
    return ServedBatch(
        model="churn",
        version="7",
        version_digest=DIGEST8,
        revision=3,
        at_unix_ns=np.full(calls, at_ns, "<i8").tobytes(),
        role=bytes([role]) * calls,
        row_count=row_count.tobytes(),
        prediction_ids=ids_of(
            key_hash, rng.random(calls) < 0.2, first, role=role, at_ms=at_ns // 10**6
        ),
        key_hash=key_hash.tobytes(),
        row_flags=rng.integers(0, 8, rows).astype("<u4").tobytes(),
        width=width,
        vectors=vectors.tobytes(),
        outputs=1,
        scores=rng.random(rows).astype("<f4").tobytes(),
        entity_ids=[f"customer-{number}" for number in range(rows)],
        model_contract="c0",
    )


def outcome_record(prediction_id: bytes, value: float = 1.0, *, after_ms: int = 0) -> OutcomeRecord:
    """Return a report about a prediction of version 7 of churn."""
    at_ms = AT_NS // 10**6 + after_ms
    return OutcomeRecord(
        prediction_id=prediction_id,
        name="churned",
        value=value,
        event_time_ms=at_ms,
        received_unix_ns=at_ms * 10**6,
    )
