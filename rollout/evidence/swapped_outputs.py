"""Tests whether two outputs of the candidate are swapped, which no better model explains.

A better model differs from production, so a difference without an approval is held and not rolled
back. A model whose classes are in another order is a fault all the same: where production predicts
output p it predicts q, and where production predicts q it predicts p.

    pair (p, q)   of the keys that production puts to p and the candidate to p or q, at most half
                  are q
    E of a swap   the smaller one of the pairs (p, q) and (q, p)
    E             the mean over all swaps, each with a late onset

If no two outputs are swapped, one pair of each swap is true, and the smaller E is at most its E. So
E is valid at every look.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stats.tilt import log_sum

SWAPPED_MAX = 0.5
"""Part of the keys of one output that a candidate may put to the other one ..."""
SWAPPED_BET = 0.9
"""... and the part of them that a candidate with swapped outputs puts there."""
SHADOW_ROWS_MIN = 25
SHADOW_PART_MIN = 0.8
"""A shadow's outputs are swapped if it puts so many rows, and this part of them, of either output
to the other one. This is no test: rows of one customer repeat in a shadow."""

Counts = NDArray[np.int64]


def output_counts(joint: Counts, output_bins: Sequence[int]) -> Counts:
    """Return (C, C) rows by the output that production predicts, then by the candidate's.

    joint        (J, J) rows by production's bin, then by the candidate's bin.
    output_bins  (C,) the first bin of each output, growing, from 0.
    """
    # Bins from J on are those of NaN and the like; they lie behind the last output in 64 bins.
    return np.add.reduceat(np.add.reduceat(joint, output_bins, axis=0), output_bins, axis=1)


def swapped_outputs(counts: Counts) -> list[tuple[int, int]]:
    """Return the pairs of outputs that are swapped in (C, C) *counts* of a shadow's rows."""
    same = counts.diagonal()
    rows = same[:, np.newaxis] + counts
    mostly = (counts >= SHADOW_ROWS_MIN) & (counts > SHADOW_PART_MIN * rows)
    both = np.triu(mostly & mostly.T, 1)
    return [(int(p), int(q)) for p, q in zip(*np.nonzero(both), strict=True)]


class SwapTest:
    """The test over the pairs of outputs. Without several outputs it counts nothing.

    looks_max  windows over which the prior for a late onset is spread.
    """

    def __init__(self, looks_max: int) -> None:
        self._looks_max = looks_max
        self.output_bins: tuple[int, ...] = ()
        """(C,) the first bin of each output, growing. Empty: one output, or not known yet."""
        self.log_s = np.zeros(0)
        """(C * C,) ln S of each pair (p, q), in rows of p."""
        self.prior_spent = 0.0

    def learn_outputs(self, output_bins: Sequence[int]) -> None:
        """Note where the bins of each output begin. Only the first time counts."""
        if not self.output_bins and len(output_bins) > 1 and output_bins[0] == 0:
            self.output_bins = tuple(output_bins)
            self.log_s = np.full(len(output_bins) ** 2, -math.inf)

    def count(self, joint: Counts) -> None:
        """Count one second's (64, 64) keys by production's bin, then by the candidate's bin."""
        if not self.output_bins:
            return
        # The prior that has become due, half of it in the first second.
        due = 0.5 if self.prior_spent == 0.0 else 0.5 / self._looks_max
        prior = min(due, 1.0 - self.prior_spent)
        log_prior = math.log(prior) if prior > 0.0 else -math.inf
        # What each key adds: q is a hit of the pair (p, q), and p is a miss.
        counts = output_counts(joint, self.output_bins)
        misses = np.repeat(counts.diagonal(), len(counts))
        gains = counts.reshape(-1) * math.log(SWAPPED_BET / SWAPPED_MAX)
        gains += misses * math.log((1 - SWAPPED_BET) / (1 - SWAPPED_MAX))
        self.log_s = np.logaddexp(self.log_s, log_prior) + gains
        self.prior_spent += prior

    @property
    def log_e(self) -> float:
        """Ln E of "two outputs are swapped"; 0 without several outputs."""
        if not self.output_bins:
            return 0.0
        outputs = len(self.output_bins)
        left = 1.0 - self.prior_spent
        log_left = math.log(left) if left > 0.0 else -math.inf
        pairs = np.logaddexp(self.log_s, log_left).reshape(outputs, outputs)
        swaps = np.minimum(pairs, pairs.T)[np.triu_indices(outputs, 1)]
        return log_sum(swaps.tolist()) - math.log(len(swaps))
