"""The table of latency bins that gateways and controllers share.

The edges are those of DDSketch with 1 % relative error: gamma = 1.01/0.99, from 100 us to 100 s.
They were rounded to whole nanoseconds once and committed as latency_edges.txt, so that they do not
depend on a host's libm. Counts on these bins can be added and subtracted exactly.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EDGES_NS: NDArray[np.int64] = np.array(
    (Path(__file__).parent / "latency_edges.txt").read_text().split(), dtype=np.int64
)
"""(692,) int64 ns, increasing. Bin i has edges[i-1] < v <= edges[i]; bin 0 has all up to 100 us."""

BINS = len(EDGES_NS) + 1
"""693. The last bin has everything above 100 s."""


def latency_bins(latency_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bin of each latency in ns: the same shape, int64, 0 to 692."""
    return np.searchsorted(EDGES_NS, latency_ns, side="left")


def quantile_ns(counts: NDArray[np.int64], q: float) -> float:
    """Return the q-quantile of (BINS,) *counts* in ns, within 1 %; NaN if all counts are 0."""
    total = int(counts.sum())
    if total == 0:
        return float("nan")
    index = int(np.searchsorted(np.cumsum(counts), q * total, side="left"))
    upper = EDGES_NS[min(index, len(EDGES_NS) - 1)]
    lower = EDGES_NS[max(index - 1, 0)]
    return float(2.0 * upper * lower / (upper + lower))
