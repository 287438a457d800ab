"""Counts by bin, the rows that they stand for, and the figures of them without our corrections."""

import math

import numpy as np
from numpy.typing import NDArray

from stats.drift.figures import DriftFigures, compare_counts

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 10
MOVED = np.array([0.05, 0.06, 0.08, 0.09, 0.1, 0.1, 0.11, 0.12, 0.13, 0.16])
"""Shares of ten bins that were equally full before: a PSI of about .1."""
REFERENCE_ROWS = 9_000
LIVE_ROWS = 5_000


def draw_counts(seed: int, shares: Floats, live_rows: int = LIVE_ROWS) -> tuple[Counts, Counts]:
    """Return (J,) counts of a reference with equally full bins, and of live rows with *shares*."""
    generator = np.random.default_rng(seed)
    equal = np.full(len(shares), 1 / len(shares))
    return generator.multinomial(REFERENCE_ROWS, equal), generator.multinomial(live_rows, shares)


def rows_of(counts: Counts, seed: int = 1) -> list[int]:
    """Return the bin of each row, in an order drawn at random."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(rows).tolist()


def our_figures(reference: Counts, live: Counts) -> DriftFigures:
    """Return our figures, with the number of a bin as its value."""
    found = compare_counts(reference, live, np.arange(len(reference), dtype=np.float64))
    assert isinstance(found, DriftFigures)
    return found


def plain_psi(figures: DriftFigures) -> float:
    """Return the PSI without what is taken off for chance."""
    return figures.psi.value + (figures.bins - 1) * _chance(figures)


def plain_distance(figures: DriftFigures) -> float:
    """Return the Jensen-Shannon distance in nats without what is taken off for chance."""
    by_chance = (figures.bins - 1) * _chance(figures) / 8
    return math.sqrt(figures.jensen_shannon.value + by_chance)


def _chance(figures: DriftFigures) -> float:
    return 1 / figures.reference_rows + 1 / figures.live_rows
