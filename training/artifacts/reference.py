"""Writes reference.json: task, bin edges and counts of a version's inputs and scores.

Bin j has edges[j-1] < value <= edges[j], and the first and last bins are open. The edges never
change after training. Edges from live data would hide drift: in a window, one outlier of 1e6
reduces a PSI of 1.0 to 0.00007.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import canonical_json
from stats.score_grid import NAN_BIN, bins_by_edges, score_grid_edges
from stats.score_scale import (
    BINS_MAX,
    CLASS_TASKS,
    SPREAD_MIN,
    OutputReference,
    ScoreScale,
)

SCORE_BINS = 20
FEATURE_BINS = 10


def write_reference(
    *,
    names: tuple[str, ...],
    rows: NDArray[np.float32],
    scores: NDArray[np.float32],
    outputs: tuple[str, ...],
    task: str,
    threshold: float,
    positive: NDArray[np.bool_] | None = None,
) -> bytes:
    """Return the content of reference.json.

    names    names of the F model inputs.
    rows     (N, F) float32, the rows that the model was fitted on.
    scores   (M, K) float32, scores of the held-out rows. Scores of fitted rows would be too
             extreme.
    outputs  names of the K outputs.
    task     one of stats.score_scale.TASKS.
    positive (M,) bool, the labels of the held-out rows, of a version of two classes; None: the
             accuracy of rows without outcomes cannot be estimated from them.
    """
    # Releases that judged the first output only read "score".
    first = scores[:, 0]
    edges = score_edges(first)
    # The others read the task and every output.
    return canonical_json(
        {
            "decision_threshold": threshold,
            "score": {
                "name": outputs[0],
                "edges": edges.tolist(),
                "counts": bin_counts(first, edges).tolist(),
                "rows": len(first),
                "missing": int(np.isnan(first).sum()),
            },
            "task": task,
            "outputs": _outputs(scores, outputs, task),
            "features": [_feature_bins(name, rows[:, column]) for column, name in enumerate(names)],
            **({} if positive is None else {"held_out_labels": _label_bins(first, positive)}),
        }
    )


def _label_bins(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Return the labels of M rows by bin of the score grid, for the bins that have a row."""
    bins = bins_by_edges(scores, score_grid_edges())
    # Scores that are NaN or infinite have no place on the grid.
    placed = bins < NAN_BIN
    counts = [np.bincount(bins[placed & rows], minlength=NAN_BIN) for rows in (positive, ~positive)]
    filled = np.flatnonzero(counts[0] + counts[1])
    return {
        "bins": filled.tolist(),
        "positives": counts[0][filled].tolist(),
        "negatives": counts[1][filled].tolist(),
    }


def _outputs(
    scores: NDArray[np.float32], names: tuple[str, ...], task: str
) -> list[dict[str, Any]]:
    """Return name, spread, center and bins of each output, of which all fill about equally."""
    finite = scores[np.isfinite(scores).all(axis=1)]
    # Probabilities are compared as they are. Values differ in units of their spread.
    probabilities = task in CLASS_TASKS and (not len(finite) or _are_probabilities(finite))
    spreads = [1.0 if probabilities else value_spread(column) for column in finite.T]
    centers = [0.0 if task in CLASS_TASKS else _median(column) for column in finite.T]
    # Each row is counted in its predicted output, so that one has more bins the more rows it has.
    plain = [
        OutputReference(name, None, spread, center)
        for name, spread, center in zip(names, spreads, centers, strict=True)
    ]
    predicted = ScoreScale(plain, task, threshold=0.5).predicted(finite)
    rows = np.bincount(predicted, minlength=len(names))
    described = []
    for output, bins in enumerate(bins_of_outputs(rows)):
        own = finite[predicted == output, output]
        edges = None if bins == 0 else score_edges(own, bins)
        described.append(
            {
                "name": names[output],
                "edges": None if edges is None else edges.tolist(),
                "counts": None if edges is None else bin_counts(own, edges).tolist(),
                "rows": len(own),
                "spread": spreads[output],
                "center": centers[output],
            }
        )
    return described


def bins_of_outputs(rows: NDArray[np.int64]) -> list[int]:
    """Return how many bins each output has, by the (K,) rows in which it is the predicted one.

    The outputs share 20 bins, each with one at least. More outputs than windows have room for: the
    rarest have 0, which is one bin for all of them together.
    """
    bins = np.zeros(len(rows), dtype=np.int64)
    fits = len(rows) <= BINS_MAX
    bins[np.argsort(-rows, kind="stable")[: len(rows) if fits else BINS_MAX - 1]] = 1
    # Each further bin goes to the output with the most rows a bin.
    for _ in range(SCORE_BINS - len(rows)):
        bins[np.argmax(rows / bins)] += 1
    return [int(count) for count in bins]


def value_spread(values: NDArray[np.float32]) -> float:
    """Return q95 - q05 of the finite *values*, (N,): the unit in which two of them differ.

    Nine of ten values lie within it, and a few extreme ones do not stretch it. If it is 0, because
    most values are equal, it is the whole range, else their magnitude, else 1.
    """
    if not len(values):
        return 1.0
    low, high = np.quantile(values.astype(np.float64), (0.05, 0.95), method="inverted_cdf")
    sizes = (high - low, float(np.ptp(values.astype(np.float64))), abs(float(values[0])), 1.0)
    return next(float(size) for size in sizes if size >= SPREAD_MIN)


def _median(values: NDArray[np.float32]) -> float:
    return float(np.quantile(values, 0.5, method="inverted_cdf")) if len(values) else 0.0


def _are_probabilities(scores: NDArray[np.float32]) -> bool:
    return bool(scores.min() >= 0.0 and scores.max() <= 1.0)


def score_edges(scores: NDArray[np.float32], bins: int = SCORE_BINS) -> NDArray[np.float32]:
    """Return float32 edges, strictly growing, of *bins* bins with about equally many scores.

    If many scores are equal, quantiles repeat. A repeated edge becomes the next float32 above, and
    its bin stays empty.
    """
    edges = _quantiles(scores, bins)
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
