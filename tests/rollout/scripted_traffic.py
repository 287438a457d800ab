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
"""How alike candidate and production rank; the certificate says so."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def draw_scores(draw: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """Return production's and the candidate's scores of the same rows."""
    before = draw.normal(size=rows)
    return before, SCORE_CORRELATION * before + math.sqrt(1 - SCORE_CORRELATION**2) * draw.normal(
        size=rows
    )


def scripted_score_bins(scores: Floats) -> Counts:
    """Return the reference bins."""
    return np.searchsorted(SCORE_EDGES, scores)


def approved_test_shift(rows: int = 20_000, seed: int = 99) -> ApprovedShift:
    """Return the approved shift."""
    before, after = draw_scores(np.random.default_rng(seed), rows)
    joint = np.bincount(
        scripted_score_bins(before) * BINS + scripted_score_bins(after), minlength=BINS**2
    )
    return ApprovedShift("c" * 64, joint.reshape(BINS, BINS), 0.1)


class ScriptedTraffic:
    """Ever new keys at a share; what the candidate does to its own is set on the fields."""

    def __init__(self, *, share: float = 0.05, keys_a_second: int = 400, seed: int = 1) -> None:
        self._draw = np.random.default_rng(seed)
        self._share = share
        self._keys = keys_a_second
        self.second = 0
        self.latency_factor = 1.0
        self.tail_latency_factor = 1.0
        """Of the slowest twentieth only."""
        self.load_factor = 1.0
        """Times both arms' latency."""
        self.base_ms = 5.0
        self.score_shift = 0.0
        self.constant_output = False
        self.error_rate = 0.0
        self.lost_part = 0.0
        """Part of the canary's keys that no window tells of."""
        self.missing_feature_rate = 0.0
        self.baseline_error_rate = 0.0

    def next_second(self) -> ClosedSecond:
        """Return one more second."""
        canary = int(self._draw.binomial(self._keys, self._share))
        told = self._arm("production", self._keys - canary)
        kept = canary - int(self._draw.binomial(canary, self.lost_part))
        mine = self._arm("canary", kept)
        self.second += 1
        return ClosedSecond(SCRIPT_START_S + self.second, 1, (told, mine))

    def _arm(self, arm: str, keys: int) -> window_pb2.Window:
        draw, canary = self._draw, arm == "canary"
        names = draw.integers(0, 2**63, size=keys, dtype=np.uint64)
        failed = draw.random(keys) < (self.error_rate if canary else self.baseline_error_rate)
        made = make_window(arm, self.second + 1, errors=names[failed].tolist())
        names = names[~failed]
        made.rows, made.calls.answered = keys, len(names)
        made.features.missing = int(
            draw.binomial(keys, self.missing_feature_rate if canary else 0.01)
        )
        before, after = draw_scores(draw, len(names))
        noise = draw.normal(size=len(names))
        latency = self.base_ms * 1e6 * self.load_factor * np.exp(0.5 * noise)
        if canary:
            latency *= np.where(noise > 1.645, self.tail_latency_factor, self.latency_factor)
            latency *= self.latency_factor if self.tail_latency_factor != 1.0 else 1.0
            after = np.full_like(after, 0.1) if self.constant_output else after + self.score_shift
        mine = scripted_score_bins(after if canary else before)
        made.records.add(
            metric="METRIC_SCORE",
            key_hash=names.tolist(),
            bin=mine.tolist(),
            production_bin=scripted_score_bins(before).tolist() if canary else [],
        )
        made.records.add(
            metric="METRIC_LATENCY",
            key_hash=names.tolist(),
            bin=latency_bins(latency.astype(np.int64)).tolist(),
        )
        return made
