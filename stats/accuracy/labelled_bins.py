"""Labels by bin of the score: the counts from which every figure of two classes is made.

Counts add over hosts, hours and segments. Rows are the case in which each score is a bin, so one
function serves counts and rows, and the definitions are those of training.evaluation.metrics.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PROBABILITY_MIN = 1e-7
"""A float32 probability may be exactly 0 or 1, and its loss would be infinite."""
ROUNDING = 1e-6


@dataclass(frozen=True, eq=False, slots=True)
class LabelledBins:
    """Positive and negative rows by bin of the score. J is the number of bins.

    scores     (J,) float64, rising: the value that stands for each bin.
    positives  (J,) float64, rows with the outcome. Expected or weighted counts need not be whole.
    negatives  (J,) float64, rows without it.

    Raises ValueError for other shapes, for scores that do not rise or are not finite, and for
    counts that are negative or not finite. No bins at all are allowed.
    """

    scores: Floats
    positives: Floats
    negatives: Floats

    def __post_init__(self) -> None:
        shapes = {self.scores.shape, self.positives.shape, self.negatives.shape}
        if len(shapes) != 1 or self.scores.ndim != 1:
            raise ValueError(f"scores, positives and negatives of shapes {shapes} are no bins")
        if not np.isfinite(self.scores).all() or (np.diff(self.scores) <= 0).any():
            raise ValueError("the scores of bins are finite and rise; leave bins of NaN out")
        for name, counts in (("positives", self.positives), ("negatives", self.negatives)):
            if not np.isfinite(counts).all() or (counts < 0).any():
                raise ValueError(f"{name} holds a count that is negative or not finite")

    @property
    def rows(self) -> Floats:
        """(J,) float64: rows of each bin."""
        return self.positives + self.negatives

    @property
    def positive_rows(self) -> float:
        """All rows with the outcome."""
        return float(self.positives.sum())

    @property
    def negative_rows(self) -> float:
        """All rows without the outcome."""
        return float(self.negatives.sum())

    @property
    def n(self) -> int:
        """All rows; a part of a row is left out."""
        return int(self.positives.sum() + self.negatives.sum() + 1e-9)

    def filled(self) -> "LabelledBins":
        """Return the bins that have a row."""
        rows = self.rows > 0
        return LabelledBins(self.scores[rows], self.positives[rows], self.negatives[rows])


def bins_of_rows(
    positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None
) -> LabelledBins:
    """Return one bin for each distinct score.

    positive  (N,) bool, the labels.
    scores    (N,) float64, finite.
    weights   (N,) float64, at least 0; None: each row counts once.

    Raises ValueError for columns of different lengths and for scores that are not finite.
    """
    if len(positive) != len(scores) or (weights is not None and len(weights) != len(scores)):
        raise ValueError(f"{len(positive)} labels for {len(scores)} scores: one for each is needed")
    if not np.isfinite(scores).all():
        raise ValueError("a score is NaN or infinite: it is no prediction, so leave its row out")
    levels, level = np.unique(scores.astype(np.float64), return_inverse=True)
    counted = np.ones(len(scores)) if weights is None else weights
    return LabelledBins(
        levels,
        sum_by(level, counted * positive, len(levels)),
        sum_by(level, counted * ~positive, len(levels)),
    )


def merge_bins(bins: LabelledBins, groups: int) -> LabelledBins:
    """Return at most *groups* bins of neighbours with about equally many rows each.

    A merged bin is represented by the mean score of its rows.
    """
    bins = bins.filled()
    rows = bins.rows
    if len(rows) <= groups:
        return bins
    # A bin goes where its middle row goes, so that groups are of neighbours.
    middle = (np.cumsum(rows) - rows / 2) / rows.sum()
    group = np.minimum((middle * groups).astype(np.int64), groups - 1)
    group = np.unique(group, return_inverse=True)[1]
    count = int(group.max()) + 1
    return LabelledBins(
        sum_by(group, rows * bins.scores, count) / sum_by(group, rows, count),
        sum_by(group, bins.positives, count),
        sum_by(group, bins.negatives, count),
    )


def sum_by(groups: NDArray[np.int64], values: Floats, count: int) -> Floats:
    """Return the (count,) sums of *values* (N,) by group, 0 to count - 1."""
    return np.bincount(groups, weights=values, minlength=count).astype(np.float64)


def logits(probabilities: Floats) -> Floats:
    """Return ln(p / (1 - p)) of *probabilities*, which are held PROBABILITY_MIN away from 0 and 1.

    Raises ValueError for a number outside of 0 to 1: it is a score of another task.
    """
    check_probabilities(probabilities)
    clipped = np.clip(probabilities, PROBABILITY_MIN, 1.0 - PROBABILITY_MIN)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(margins: Floats) -> Floats:
    """Return 1 / (1 + e^-x)."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * margins)))


def check_probabilities(probabilities: Floats) -> None:
    """Raise ValueError unless all numbers lie in 0 to 1, up to the rounding of float32."""
    if not ((probabilities >= -ROUNDING) & (probabilities <= 1.0 + ROUNDING)).all():
        raise ValueError("a score is no probability: losses and calibration need scores in 0 to 1")
