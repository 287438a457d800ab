"""The fixed grid of scores: the same bins for every version of every model, so that counts add.

A probability p has the bin of its logit. 1,022 bins of equal width cover logits from -8 to 8, which
are probabilities from .0003 to .9997, and two open bins lie outside. Bins are the finer the nearer
a probability is to 0 or 1, where most scores of a rare outcome lie. J is SCORE_BINS.

The edges are float32 numbers, and a score is compared with them. So a bin follows from the score
alone, on every machine and in every program, and no logarithm is rounded.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

LOGIT_MAX = 8.0
INNER_BINS = 1_022
SCORE_BINS = INNER_BINS + 2
"""J: the inner bins and the two open ends."""
NAN_BIN = SCORE_BINS
POSITIVE_INFINITY_BIN = SCORE_BINS + 1
NEGATIVE_INFINITY_BIN = SCORE_BINS + 2
SPECIAL_BINS = 3
"""Bins behind J, of this grid and of every other table of edges: NaN, +inf, -inf."""


@cache
def score_grid_edges() -> NDArray[np.float32]:
    """Return the (J - 1,) growing edges. Bin j has edges[j-1] < p <= edges[j]."""
    logits = np.linspace(-LOGIT_MAX, LOGIT_MAX, INNER_BINS + 1)
    edges = (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    edges.flags.writeable = False
    return edges


@cache
def score_grid_values() -> NDArray[np.float64]:
    """Return a (J,) probability that stands for each bin: the middle of its logits.

    The open ends have the probability half a bin outside of the grid. A score differs from the
    value of its inner bin by .002 at most.
    """
    width = 2 * LOGIT_MAX / INNER_BINS
    logits = -LOGIT_MAX + width * (np.arange(SCORE_BINS) - 0.5)
    values: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits))
    values.flags.writeable = False
    return values


def bins_by_edges(values: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the (N,) bins of *values* by (J - 1,) edges: 0 to J-1, or J, J+1, J+2.

    Bin j has edges[j-1] < value <= edges[j]. J, J+1 and J+2 are the bins of NaN, +inf and -inf.
    """
    size = len(edges) + 1
    bins = np.searchsorted(edges, values, side="left").astype(np.int64)
    if not np.isfinite(values).all():
        bins[np.isneginf(values)] = size + 2
        bins[np.isposinf(values)] = size + 1
        bins[np.isnan(values)] = size
    return bins
