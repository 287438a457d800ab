"""Chooses the threshold of decisions by their cost, or by how many of them can be acted on."""

import numpy as np
from numpy.typing import NDArray

from training.recipe import Capacity, Cost


def choose_threshold(
    threshold: float | Cost | Capacity, positive: NDArray[np.bool_], scores: NDArray[np.float32]
) -> float:
    """Return the threshold, above 0 and below 1, at or above which a score is a positive decision.

    positive  (N,) bool, the held-out labels.
    scores    (N,) float32, their scores.

    A chosen threshold lies half-way between two scores, so that rounding moves no decision. Among
    thresholds of equal cost it is the highest.
    """
    if isinstance(threshold, int | float):
        return float(threshold)
    # Sort from the highest score on. Rows with equal scores are decided alike.
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    selected = np.r_[0, np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True]) + 1]
    # A threshold above 0 and below 1 selects every score of 1, and no score of 0.
    never, always = int((ordered <= 0.0).sum()), int((ordered >= 1.0).sum())
    selected = selected[(selected >= always) & (selected <= len(ordered) - never)]
    # Choose how many rows are decided positive.
    if isinstance(threshold, Capacity):
        fitting = selected <= threshold.share * len(scores)
        chosen = selected[fitting][-1] if fitting.any() else selected[0]
    else:
        hits = np.r_[0, np.cumsum(positive[order])]
        misses = hits[-1] - hits[selected]
        alarms = selected - hits[selected]
        cost = threshold.false_positive * alarms + threshold.false_negative * misses
        chosen = selected[np.argmin(cost)]
    # Half-way between the last row that is decided positive and the next.
    above = 1.0 if chosen == 0 else ordered[chosen - 1]
    below = 0.0 if chosen == len(ordered) else ordered[chosen]
    return float((above + below) / 2.0)


def capacity_threshold(capacity: Capacity, scores: NDArray[np.float32]) -> float:
    """Return the threshold that at most the capacity's share of *scores*, (N,), is at or above.

    The scores may be any numbers. The threshold is half-way between two of them; if the largest
    ones are equal and too many, it is above all.
    """
    ordered = np.sort(scores.astype(np.float64))[::-1]
    ends = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    fitting = ends[ends <= capacity.share * len(ordered)]
    if not len(fitting):
        return float(np.nextafter(np.float32(ordered[0]), np.float32(np.inf)))
    last = int(fitting[-1])
    return float((ordered[last - 1] + ordered[last]) / 2.0)
