"""Evidence by key has no scores of rows whose features are missing or degraded."""

import numpy as np
import pytest

from gateway.telemetry.observations import NOT_COMPARED, Observations, count_observations
from protos import predict_pb2, window_pb2
from stats.score_scale import OutputReference, ScoreScale


@pytest.mark.parametrize(
    ("flag", "compared"),
    [
        (0, True),
        (predict_pb2.STALE, True),
        (predict_pb2.DEFAULTED, True),
        (predict_pb2.MISSING, False),
        (predict_pb2.DEGRADED | predict_pb2.DEFAULTED, False),
    ],
)
def test_count_observations_compares_no_scores_of_rows_without_stored_features(
    flag: int, compared: bool
) -> None:
    """While the store is slow, many rows score alike; that must not count against a candidate."""
    observations = Observations(
        key_hash=np.array([11, 12], dtype=np.uint64),
        faults=np.zeros(2, dtype=np.uint8),
        holdout=None,
        latency_ns=np.array([1_000_000, 2_000_000]),
        scores=np.array([[0.2], [0.9]], dtype=np.float32),
        expected=np.array([[0.2], [0.9]], dtype=np.float32),
        row_offsets=np.array([0, 1, 2], dtype=np.uint32),
        flags=np.array([0, flag], dtype=np.uint32),
    )
    edges = np.linspace(0.05, 0.95, 19, dtype=np.float32)
    scale = ScoreScale([OutputReference("score", edges, spread=1.0)], "binary", 0.5)
    records = count_observations(observations, scale, 65_536).records
    scores, latency = (
        window_pb2.KeyRecords.FromString(records[metric])
        for metric in (window_pb2.METRIC_SCORE, window_pb2.METRIC_LATENCY)
    )
    assert scores.key_hash == [11, 12]
    assert (scores.bin[1] != NOT_COMPARED) == compared
    assert scores.bin[0] == scores.production_bin[0]
    assert latency.key_hash == [11, 12]
