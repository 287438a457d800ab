"""reference.json: what inputs and scores looked like when the version was made.

Bins are fixed here once, with open ends: bin j holds edges[j-1] < value <= edges[j]. Bins drawn
anew from each live window hide drift: one outlier of 1e6 takes a PSI of 1.0 down to 0.00007.
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
    """Return reference.json.

    names   the F columns as the model sees them.
    rows    (N, F) float32, those the model was fitted on.
    scores  (M,) float32, of held-out rows: a model is surer of rows it was fitted on.
    """
    features = [_feature(name, rows[:, column]) for column, name in enumerate(names)]
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
    """Return (19,) float32, strictly growing: 20 bins of about as many scores each.

    Where many scores are equal, an edge repeats; the next one is then the nearest float32 above,
    and the bin between the two stays empty.
    """
    edges = _quantiles(scores, SCORE_BINS)
    for index in range(1, len(edges)):
        edges[index] = max(edges[index], np.nextafter(edges[index - 1], np.float32(np.inf)))
    return edges


def bin_indices(values: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return each value's bin, 0..J-1; NaN is in none and must be taken out before."""
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def bin_counts(values: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return (J,) how many values, NaN left out, lie in each of the len(edges) + 1 bins."""
    present = values[~np.isnan(values)]
    return np.bincount(bin_indices(present, edges), minlength=len(edges) + 1).astype(np.int64)


def _feature(name: str, values: NDArray[np.float32]) -> dict[str, Any]:
    """Deciles, each once: a yes/no column has two bins. Missing counts NaN; a missing value that
    has a default counts where the default lies, here as online.
    """
    edges = np.unique(_quantiles(values, FEATURE_BINS))
    return {
        "name": name,
        "edges": edges.tolist(),
        "counts": bin_counts(values, edges).tolist(),
        "missing": int(np.isnan(values).sum()),
    }


def _quantiles(values: NDArray[np.float32], bins: int) -> NDArray[np.float32]:
    """Inner edges that are values themselves, so that float32 in and float32 out agree."""
    present = values[~np.isnan(values)]
    if not len(present):
        return np.zeros(bins - 1, dtype=np.float32)
    shares = np.arange(1, bins) / bins
    return np.quantile(present, shares, method="inverted_cdf").astype(np.float32)
