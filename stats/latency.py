"""The one table of latency edges, shared by gateways, controllers and both ingresses.

DDSketch's log buckets with 1 % relative error: gamma = 1.01/0.99 from 100 us to 100 s, rounded to
whole nanoseconds once and committed (latency_edges.txt), so that no host's libm can move an edge.
Counts on it add and subtract exactly, and counts above an edge are exact.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EDGES_NS: NDArray[np.int64] = np.array(
    (Path(__file__).parent / "latency_edges.txt").read_text().split(), dtype=np.int64
)
"""(692,) int64 ns, growing. Bin i holds edges[i-1] < v <= edges[i]; bin 0 all up to 100 us."""

BINS = len(EDGES_NS) + 1
"""693: the last bin holds what is above 100 s."""


def latency_bins(latency_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bin of each latency; same shape, int64, 0..692. One searchsorted."""
    return np.searchsorted(EDGES_NS, latency_ns, side="left")


def quantile_ns(counts: NDArray[np.int64], q: float) -> float:
    """Return the q-quantile of *counts* (BINS,), in ns, within 1 %; NaN when there are none."""
    total = int(counts.sum())
    if total == 0:
        return float("nan")
    index = int(np.searchsorted(np.cumsum(counts), q * total, side="left"))
    upper = EDGES_NS[min(index, len(EDGES_NS) - 1)]
    lower = EDGES_NS[max(index - 1, 0)]
    return float(2.0 * upper * lower / (upper + lower))
