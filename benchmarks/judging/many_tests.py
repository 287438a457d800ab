"""The judge's e-processes over arrays, for simulations of thousands of rollouts at once.

The formulas are those of stats.tilt and stats.departure, on e-values instead of their logarithms,
and for all rollouts of a block in one numpy call. tests/benchmarks/test_judging.py checks that both
give the same evidence on the same streams, to 1e-9. Only simulations use this file.
"""

import numpy as np
from numpy.typing import NDArray

from stats.departure import Expectation
from stats.tilt import Grid

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

E_MAX = 1e280
"""E-values are capped here: far above every threshold, and without overflow."""


class TiltArray:
    """The e-process of one metric for R rollouts that are judged together (see stats.tilt)."""

    def __init__(self, grid: Grid, rollouts: int, looks_max: int) -> None:
        self._deltas = np.array(grid.deltas)
        self._margin = grid.margin
        self._looks_max = looks_max
        self._s = np.zeros((rollouts, len(grid.deltas)))
        self._unspent_prior = 1.0
        """The share of the prior that later looks will spend."""
        self.e_max = np.ones(rollouts)
        """(R,) the largest e-value so far."""

    def step(self, canary: Counts | Floats, baseline: Counts | Floats, share: float) -> None:
        """Add one window: (R,) weights of first events of each arm, at the canary's *share*."""
        first = self._unspent_prior == 1.0
        prior = min(_prior(self._looks_max, first=first), self._unspent_prior)
        self._s += prior
        self._unspent_prior -= prior
        active = np.flatnonzero(canary + baseline)
        if not len(active):
            return  # Without an event S gains what the prior loses, so E stays as it is.
        log_tilt = np.log1p(share * np.expm1(self._deltas))
        none_tilt = np.log1p(share * np.expm1(self._margin))
        events = (canary + baseline)[active, None]
        gain = canary[active, None] * (self._deltas - self._margin) - events * (
            log_tilt - none_tilt
        )
        s = np.minimum(self._s[active] * np.exp(gain), E_MAX)
        self._s[active] = s
        self.e_max[active] = np.maximum(self.e_max[active], s.mean(axis=1) + self._unspent_prior)

    def select_rollouts(self, rows: NDArray[np.bool_]) -> None:
        """Keep only the rollouts in *rows*."""
        self._s, self.e_max = self._s[rows], self.e_max[rows]


class DepartureArray:
    """The prediction metric of R rollouts under one certified shift (see stats.departure)."""

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
        """Add one window: (R, J) keys by the candidate's bin, and those keys by the champion's."""
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
