"""Thousands of rollouts at once: the judge's e-processes over arrays instead of one at a time.

The same formulas as stats.tilt and stats.departure, on plain numbers instead of logarithms and for
all rollouts of a block in one numpy call. tests/benchmarks/test_judging.py holds both to the same
evidence, to 1e-9, on the same streams; nothing but simulations uses it.
"""

import numpy as np
from numpy.typing import NDArray

from stats.departure import Expectation
from stats.tilt import Grid

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

E_MAX = 1e280
"""E is kept below it: far beyond every threshold, and no overflow."""


class TiltArray:
    """One metric of R rollouts that are looked at together.

    rollouts  R.
    """

    def __init__(self, grid: Grid, rollouts: int, looks_max: int) -> None:
        self._deltas = np.array(grid.deltas)
        self._margin = grid.margin
        self._looks_max = looks_max
        self._s = np.zeros((rollouts, len(grid.deltas)))
        self._unspent_prior = 1.0
        """Prior not yet spent."""
        self.e_max = np.ones(rollouts)
        """(R,) the largest E so far."""

    def step(self, canary: Counts | Floats, baseline: Counts | Floats, share: float) -> None:
        """Take one window of (R,) first events a side, by weight, all at one *share*."""
        first = self._unspent_prior == 1.0
        prior = min(_prior(self._looks_max, first=first), self._unspent_prior)
        self._s += prior
        self._unspent_prior -= prior
        hit = np.flatnonzero(canary + baseline)
        if not len(hit):
            return  # without an event, what the prior loses S gains: E stays
        log_tilt = np.log1p(share * np.expm1(self._deltas))
        none_tilt = np.log1p(share * np.expm1(self._margin))
        events = (canary + baseline)[hit, None]
        gain = canary[hit, None] * (self._deltas - self._margin) - events * (log_tilt - none_tilt)
        s = np.minimum(self._s[hit] * np.exp(gain), E_MAX)
        self._s[hit] = s
        self.e_max[hit] = np.maximum(self.e_max[hit], s.mean(axis=1) + self._unspent_prior)

    def select_rollouts(self, rows: NDArray[np.bool_]) -> None:
        """Go on with those rollouts only."""
        self._s, self.e_max = self._s[rows], self.e_max[rows]


class DepartureArray:
    """The prediction metric of R rollouts under one certificate."""

    def __init__(self, expected: Expectation, rollouts: int, looks_max: int) -> None:
        self._paired = np.hstack([expected.scores, -expected.log_norms]).T.copy()
        self._stakes = expected.stakes.copy()
        self._looks_max = looks_max
        self._s = np.zeros((rollouts, len(self._stakes)))
        self._unspent_prior = 1.0
        self.candidate = np.zeros((rollouts, expected.bins), dtype=np.int64)
        self.champion = np.zeros((rollouts, expected.bins), dtype=np.int64)
        self.e_max = np.ones(rollouts)

    def step(self, candidate: Counts, champion: Counts) -> None:
        """Take one window of (R, J) keys by candidate's bin, and the same keys by champion's."""
        first = self._unspent_prior == 1.0
        prior = min(_prior(self._looks_max, first=first), self._unspent_prior)
        self._unspent_prior -= prior
        self.candidate += candidate
        self.champion += champion
        gain = np.hstack([candidate, champion]).astype(np.float64) @ self._paired
        self._s += prior
        np.exp(gain, out=gain)
        self._s *= gain
        np.minimum(self._s, E_MAX, out=self._s)
        np.maximum(self.e_max, self._s @ self._stakes + self._unspent_prior, out=self.e_max)


def _prior(looks_max: int, *, first: bool) -> float:
    if first:
        return 1.0 if looks_max == 0 else 0.5
    return 0.0 if looks_max == 0 else 0.5 / looks_max
