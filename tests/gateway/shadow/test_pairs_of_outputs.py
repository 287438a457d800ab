"""Shadows are compared with production by every output, in the units of each."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway.telemetry.observations import JOINT_STRIDE, Observations
from gateway.telemetry.windows import Windows
from protos.window_pb2 import Window
from stats.score_scale import OutputReference, ScoreScale

VERSION: Any = SimpleNamespace(id=bytes(32), digest8=1, label="3")
NO_EDGES = np.zeros(0, dtype=np.float32)


def pairs_window(
    scale: ScoreScale, scores: np.ndarray, expected: np.ndarray, threshold: float = 0.0
) -> Window:
    """Return the window of a shadow that scored one call of R rows, (R, K) each.

    threshold  of the serving policy; 0: it has none.
    """
    policy = SimpleNamespace(decision_threshold=threshold)
    routes: Any = SimpleNamespace(
        model="churn",
        compared=False,
        deployment=SimpleNamespace(revision=1, policy=policy),
        limits=SimpleNamespace(evidence_sampled=65_536),
        scale=scale,
    )
    rows = len(scores)
    observations = Observations(
        key_hash=np.zeros(1, dtype=np.uint64),
        faults=np.zeros(1, dtype=np.uint8),
        holdout=None,
        latency_ns=np.ones(1, dtype=np.int64),
        scores=scores.astype(np.float32),
        expected=expected.astype(np.float32),
        row_offsets=np.array([0, rows], dtype=np.uint32),
        flags=np.zeros(rows, dtype=np.uint32),
    )
    windows = Windows()
    windows.add_shadow_pairs(routes, VERSION, observations, 1)
    (window,) = windows.close_windows(0, everything=True)
    return window


def test_pairs_of_classes_count_other_largest_classes() -> None:
    """The first output is equal on all rows, and the second and third are swapped."""
    outputs = [OutputReference(name, NO_EDGES, spread=1.0) for name in ("low", "middle", "high")]
    expected = np.array([[0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.2, 0.1, 0.7]])
    window = pairs_window(ScoreScale(outputs, "multiclass", 0.5), expected[:, [0, 2, 1]], expected)
    pairs = window.pairs
    assert (pairs.pairs, pairs.flips, pairs.task) == (3, 2, "multiclass")
    assert pairs.absolute_sum == pytest.approx(0.2 + 0.5 + 0.6)
    assert list(window.output_bins) == [0, 1, 2]
    stride = JOINT_STRIDE
    assert list(pairs.joint_index) == [0, stride + 2, 2 * stride + 1]
    assert [(item.name, round(item.absolute_sum, 6)) for item in pairs.outputs] == [
        ("low", 0.0),
        ("middle", 1.3),
        ("high", 1.3),
    ]


def test_pairs_of_a_value_are_measured_in_its_spread() -> None:
    """A row beyond a whole spread counts 1, and a row that is NaN is faulty."""
    output = OutputReference("spend", NO_EDGES, spread=1_000.0)
    scores = np.array([[5_010.0], [5_300.0], [9_999.0], [np.nan]])
    window = pairs_window(ScoreScale([output], "regression", 0.5), scores, np.full((4, 1), 5_000.0))
    pairs = window.pairs
    assert (pairs.pairs, pairs.flips, pairs.faulty) == (3, 2, 1)
    assert pairs.absolute_sum == pytest.approx(0.01 + 0.3 + 1.0, rel=1e-3)
    assert pairs.outputs[0].absolute_sum == pytest.approx(10 + 300 + 4_999)
    assert not window.output_bins


@pytest.mark.parametrize(("threshold", "flips"), [(0.0, 1), (0.2, 2), (0.95, 0)])
def test_pairs_of_one_probability_flip_at_the_threshold_of_policy_or_version(
    threshold: float, flips: int
) -> None:
    """The version's own threshold, 0.4, counts where the policy has none."""
    scale = ScoreScale([OutputReference("score", NO_EDGES, spread=1.0)], "binary", 0.4)
    scores, expected = np.array([[0.45], [0.25], [0.1]]), np.array([[0.35], [0.15], [0.3]])
    assert pairs_window(scale, scores, expected, threshold).pairs.flips == flips
