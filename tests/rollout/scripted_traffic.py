"""Seconds of scripted traffic with latencies and scores, as closed windows."""

import math

import numpy as np
from numpy.typing import NDArray

from protos import window_pb2
from rollout.evidence.approved_shift import Shift
from rollout.evidence.inbox import Second
from stats.latency import bins_of
from tests.rollout.scripted_parts import START, window

EDGES = np.quantile(np.random.default_rng(0).normal(size=200_001), np.arange(1, 20) / 20)
BINS = 20
LIKENESS = 0.9
"""How alike candidate and production rank; the certificate says so."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def scored(draw: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """Return production's and the candidate's scores of the same rows."""
    before = draw.normal(size=rows)
    return before, LIKENESS * before + math.sqrt(1 - LIKENESS**2) * draw.normal(size=rows)


def score_bins(scores: Floats) -> Counts:
    """Return the reference bins."""
    return np.searchsorted(EDGES, scores)


def certificate(rows: int = 20_000, seed: int = 99) -> Shift:
    """Return the approved shift."""
    before, after = scored(np.random.default_rng(seed), rows)
    joint = np.bincount(score_bins(before) * BINS + score_bins(after), minlength=BINS**2)
    return Shift("c" * 64, joint.reshape(BINS, BINS), 0.1)


class Traffic:
    """Ever new keys at a share; what the candidate does to its own is set on the fields."""

    def __init__(self, *, share: float = 0.05, keys_a_second: int = 400, seed: int = 1) -> None:
        self._draw = np.random.default_rng(seed)
        self._share = share
        self._keys = keys_a_second
        self.second = 0
        self.slower = 1.0
        self.tail_slower = 1.0
        """Of the slowest twentieth only."""
        self.load = 1.0
        """Times both arms' latency."""
        self.base_ms = 5.0
        self.shifted = 0.0
        self.constant = False
        self.errors = 0.0
        self.lost = 0.0
        """Part of the canary's keys that no window tells of."""
        self.missing = 0.0
        self.baseline_errors = 0.0

    def next(self) -> Second:
        """Return one more second."""
        canary = int(self._draw.binomial(self._keys, self._share))
        told = self._arm("production", self._keys - canary)
        kept = canary - int(self._draw.binomial(canary, self.lost))
        mine = self._arm("canary", kept)
        self.second += 1
        return Second(START + self.second, 1, (told, mine))

    def _arm(self, arm: str, keys: int) -> window_pb2.Window:
        draw, canary = self._draw, arm == "canary"
        names = draw.integers(0, 2**63, size=keys, dtype=np.uint64)
        failed = draw.random(keys) < (self.errors if canary else self.baseline_errors)
        made = window(arm, self.second + 1, errors=names[failed].tolist())
        names = names[~failed]
        made.rows, made.calls.answered = keys, len(names)
        made.features.missing = int(draw.binomial(keys, self.missing if canary else 0.01))
        before, after = scored(draw, len(names))
        noise = draw.normal(size=len(names))
        latency = self.base_ms * 1e6 * self.load * np.exp(0.5 * noise)
        if canary:
            latency *= np.where(noise > 1.645, self.tail_slower, self.slower)
            latency *= self.slower if self.tail_slower != 1.0 else 1.0
            after = np.full_like(after, 0.1) if self.constant else after + self.shifted
        mine = score_bins(after if canary else before)
        made.records.add(
            metric="METRIC_SCORE",
            key_hash=names.tolist(),
            bin=mine.tolist(),
            expected_bin=score_bins(before).tolist() if canary else [],
        )
        made.records.add(
            metric="METRIC_LATENCY",
            key_hash=names.tolist(),
            bin=bins_of(latency.astype(np.int64)).tolist(),
        )
        return made
