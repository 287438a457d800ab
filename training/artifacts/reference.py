"""Writes reference.json: bin edges and counts of a version's inputs and scores.

Bin j has edges[j-1] < value <= edges[j], and the first and last bins are open. The edges never
change after training. Edges from live data would hide drift: in a window, one outlier of 1e6
reduces a PSI of 1.0 to 0.00007.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json

SCORE_BINS = 20
FEATURE_BINS = 10


def write_reference(
    *,
    names: tuple[str, ...],
    rows: NDArray[np.float32],
    scores: NDArray[np.float32],
    score_name: str,
    threshold: float,
) -> bytes:
    """Return the content of reference.json.

    names   names of the F model inputs.
    rows    (N, F) float32, the rows that the model was fitted on.
    scores  (M,) float32, scores of the held-out rows. Scores of fitted rows would be too extreme.
    """
    features = [_feature_bins(name, rows[:, column]) for column, name in enumerate(names)]
    edges = score_edges(scores)
    return canonical_json(
        {
            "decision_threshold": threshold,
            "score": {
                "name": score_name,
                "edges": edges.tolist(),
                "counts": bin_counts(scores, edges).tolist(),
                "rows": len(scores),
                "missing": int(np.isnan(scores).sum()),
            },
            "features": features,
        }
    )


def score_edges(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (19,) float32 edges, strictly growing, of 20 bins with about equally many scores.

    If many scores are equal, quantiles repeat. A repeated edge becomes the next float32 above, and
    its bin stays empty.
    """
    edges = _quantiles(scores, SCORE_BINS)
    for index in range(1, len(edges)):
        edges[index] = max(edges[index], np.nextafter(edges[index - 1], np.float32(np.inf)))
    return edges


def bin_indices(values: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return each value's bin, 0 to J - 1. The values must not be NaN."""
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def bin_counts(values: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the number of values in each of the J = len(edges) + 1 bins, without NaN."""
    present = values[~np.isnan(values)]
    return np.bincount(bin_indices(present, edges), minlength=len(edges) + 1).astype(np.int64)


def _feature_bins(name: str, values: NDArray[np.float32]) -> dict[str, Any]:
    """Return the edges, counts and missing values of a feature.

    A missing value counts as missing if it is NaN, and in the bin of its default otherwise.
    """
    # Distinct deciles: a column of 0 and 1 has two bins.
    edges = np.unique(_quantiles(values, FEATURE_BINS))
    return {
        "name": name,
        "edges": edges.tolist(),
        "counts": bin_counts(values, edges).tolist(),
        "missing": int(np.isnan(values).sum()),
    }


def _quantiles(values: NDArray[np.float32], bins: int) -> NDArray[np.float32]:
    """Return the inner edges of *bins* equal parts. Each edge is one of the values."""
    present = values[~np.isnan(values)]
    if not len(present):
        return np.zeros(bins - 1, dtype=np.float32)
    shares = np.arange(1, bins) / bins
    return np.quantile(present, shares, method="inverted_cdf").astype(np.float32)
