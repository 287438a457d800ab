"""Seconds of scripted traffic with latencies and scores, as closed windows."""

import math

import numpy as np
from numpy.typing import NDArray

from protos import window_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.inbox import ClosedSecond
from stats.latency import latency_bins
from tests.rollout.scripted_parts import SCRIPT_START_S, make_window

SCORE_EDGES = np.quantile(np.random.default_rng(0).normal(size=200_001), np.arange(1, 20) / 20)
BINS = 20
SCORE_CORRELATION = 0.9
"""Correlation of the scores of candidate and production in the approved shift."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def draw_scores(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """Return production's and the candidate's scores of the same rows."""
    before = rng.normal(size=rows)
    return before, SCORE_CORRELATION * before + math.sqrt(1 - SCORE_CORRELATION**2) * rng.normal(
        size=rows
    )


def scripted_score_bins(scores: Floats) -> Counts:
    """Return the reference bin of each score."""
    return np.searchsorted(SCORE_EDGES, scores)


def approved_test_shift(rows: int = 20_000, seed: int = 99) -> ApprovedShift:
    """Return an approved shift from *rows* held-out rows."""
    before, after = draw_scores(np.random.default_rng(seed), rows)
    joint = np.bincount(
        scripted_score_bins(before) * BINS + scripted_score_bins(after), minlength=BINS**2
    )
    return ApprovedShift("c" * 64, joint.reshape(BINS, BINS), 0.1)


class ScriptedTraffic:
    """Traffic of new keys at a share. The fields set how the candidate behaves."""

    def __init__(self, *, share: float = 0.05, keys_a_second: int = 400, seed: int = 1) -> None:
        self._draw = np.random.default_rng(seed)
        self._share = share
        self._keys = keys_a_second
        self.second = 0
        self.latency_factor = 1.0
        self.tail_latency_factor = 1.0
        """Factor of the slowest twentieth of the candidate's answers."""
        self.load_factor = 1.0
        """Factor of both arms' latency."""
        self.base_ms = 5.0
        self.score_shift = 0.0
        self.constant_output = False
        self.error_rate = 0.0
        self.lost_part = 0.0
        """Part of the canary's keys that are in no window."""
        self.missing_feature_rate = 0.0
        self.baseline_error_rate = 0.0

    def next_second(self) -> ClosedSecond:
        """Return the next closed second."""
        canary = int(self._draw.binomial(self._keys, self._share))
        production = self._arm("production", self._keys - canary)
        canary_keys = canary - int(self._draw.binomial(canary, self.lost_part))
        canary_window = self._arm("canary", canary_keys)
        self.second += 1
        return ClosedSecond(SCRIPT_START_S + self.second, 1, (production, canary_window))

    def _arm(self, arm: str, keys: int) -> window_pb2.Window:
        rng, canary = self._draw, arm == "canary"
        names = rng.integers(0, 2**63, size=keys, dtype=np.uint64)
        failed = rng.random(keys) < (self.error_rate if canary else self.baseline_error_rate)
        window = make_window(arm, self.second + 1, errors=names[failed].tolist())
        names = names[~failed]
        window.rows, window.calls.answered = keys, len(names)
        window.features.missing = int(
            rng.binomial(keys, self.missing_feature_rate if canary else 0.01)
        )
        before, after = draw_scores(rng, len(names))
        noise = rng.normal(size=len(names))
        latency = self.base_ms * 1e6 * self.load_factor * np.exp(0.5 * noise)
        if canary:
            latency *= np.where(noise > 1.645, self.tail_latency_factor, self.latency_factor)
            latency *= self.latency_factor if self.tail_latency_factor != 1.0 else 1.0
            after = np.full_like(after, 0.1) if self.constant_output else after + self.score_shift
        bins = scripted_score_bins(after if canary else before)
        window.records.add(
            metric="METRIC_SCORE",
            key_hash=names.tolist(),
            bin=bins.tolist(),
            production_bin=scripted_score_bins(before).tolist() if canary else [],
        )
        window.records.add(
            metric="METRIC_LATENCY",
            key_hash=names.tolist(),
            bin=latency_bins(latency.astype(np.int64)).tolist(),
        )
        return window
