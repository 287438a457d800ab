"""The scale of a version's scores: the bins, decisions and distances of two versions' scores.

Shadow, canary and watch compare two versions by them. Each is over every output and is defined here
once, for training, gateways and certificates. R is the number of rows, K the number of outputs, J
the number of bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASS_TASKS = ("binary", "multiclass")
"""Scores say how likely each class is. Of several outputs the largest is the decision."""
TASKS = (*CLASS_TASKS, "regression", "ranking", "anomaly")

BINS_MAX = 60
"""Windows have room for 60 bins beside those of NaN, +inf, -inf and "not compared"."""
MOVED_PART = 0.25
"""A value that moved by more than this part of its spread counts as another decision."""
SPREAD_MIN = 1e-30
MAGNITUDE_MAX = 1e30
"""Bounds of spreads and centers, so that float32 can scale scores by them."""


@dataclass(frozen=True, eq=False, slots=True)
class OutputReference:
    """One output of a version on its reference rows."""

    name: str
    edges: NDArray[np.float32] | None
    """Not falling: the bin edges of this output on the rows where it is the predicted output.
    None: it is predicted so rarely that all outputs without edges share one bin."""
    spread: float
    """The unit of distances, above 0: 1 for probabilities, q95 - q05 for values."""
    center: float = 0.0
    """0 for classes, and the median for values."""


class ScoreScale:
    """The bins, decisions and distances of a version's scores.

    The predicted output of a row is the largest. Values have units of their own, so of several
    values it is the output that is the farthest above its center, in spreads. A row's bin is a bin
    of its predicted output. With one output these are the bins of its scores.

    outputs    the K outputs.
    task       one of TASKS.
    threshold  a score at or above it is a positive decision.
    """

    def __init__(self, outputs: Sequence[OutputReference], task: str, threshold: float) -> None:
        self.outputs = tuple(outputs)
        self.task = task
        self.threshold = threshold
        none = np.zeros(0, dtype=np.float32)
        self.edges = tuple(none if item.edges is None else item.edges for item in self.outputs)
        # The bins of the outputs lie one behind the other. The shared bin is the last.
        own_bins = [0 if item.edges is None else len(item.edges) + 1 for item in self.outputs]
        shares_bin = 0 in own_bins
        self.size = sum(own_bins) + shares_bin
        """J, without the bins of NaN and the infinities."""
        starts = np.cumsum([0, *own_bins[:-1]])
        self.first_bins = np.where(np.array(own_bins) > 0, starts, self.size - 1).astype(np.int64)
        """(K,) the first bin of each output."""
        # Values are scaled before they are compared with each other; classes are not.
        self.scaled = len(self.outputs) > 1 and task not in CLASS_TASKS
        self.centers = np.array([item.center for item in self.outputs], dtype=np.float32)
        self.spreads = np.array([item.spread for item in self.outputs], dtype=np.float32)

    def predicted(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the (R,) index of the predicted output of (R, K) finite scores."""
        scaled = (scores - self.centers) / self.spreads if self.scaled else scores
        predicted: NDArray[np.int64] = scaled.argmax(axis=1).astype(np.int64)
        return predicted

    def bins(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the (R,) bins of (R, K) scores: 0 to J-1, or J, J+1, J+2.

        J, J+1 and J+2 are the bins of rows with a NaN, else with +inf, else with -inf.
        """
        if len(self.outputs) == 1:
            bins = np.searchsorted(self.edges[0], scores[:, 0], side="left")
        else:
            predicted = self.predicted(scores)
            bins = self.first_bins[predicted]
            for output, edges in enumerate(self.edges):
                if len(edges):
                    rows = predicted == output
                    bins[rows] += np.searchsorted(edges, scores[rows, output], side="left")
        if not np.isfinite(scores).all():
            bins = np.where(np.isneginf(scores).any(axis=1), self.size + 2, bins)
            bins = np.where(np.isposinf(scores).any(axis=1), self.size + 1, bins)
            bins = np.where(np.isnan(scores).any(axis=1), self.size, bins)
        return bins.astype(np.int64)

    def distances(
        self, scores: NDArray[np.float32], others: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return the (R,) distances of finite (R, K) scores from *others*, 0 to 1.

        A distance is the largest difference of an output in spreads. From one spread on it is 1.
        """
        difference = np.abs(scores.astype(np.float64) - others.astype(np.float64))
        scaled = difference / self.spreads.astype(np.float64)
        return np.asarray(np.minimum(scaled.max(axis=1), 1.0))

    def flips(
        self,
        scores: NDArray[np.float32],
        others: NDArray[np.float32],
        row_offsets: NDArray[np.uint32] | None = None,
        *,
        threshold: float | None = None,
        others_threshold: float | None = None,
    ) -> NDArray[np.bool_]:
        """Return the (R,) rows whose decision by (R, K) *scores* is another than by *others*.

        Several classes: the largest output. Ranking: whether a row is the best of its call.
        Regression: a flip is a distance above MOVED_PART. Else: the first output at its threshold.

        row_offsets       (C + 1,) where the rows of each call begin. None: all are of one call.
        threshold         of *scores*; None: the scale's own.
        others_threshold  of *others*; None: *threshold*.
        """
        if self.task == "regression":
            return np.asarray(self.distances(scores, others) > MOVED_PART)
        if self.task in CLASS_TASKS and len(self.outputs) > 1:
            return np.asarray(scores.argmax(axis=1) != others.argmax(axis=1))
        if self.task == "ranking":
            best = _best_of_call(scores[:, 0], row_offsets)
            return np.asarray(best != _best_of_call(others[:, 0], row_offsets))
        own = self.threshold if threshold is None else threshold
        other = own if others_threshold is None else others_threshold
        return np.asarray((scores[:, 0] >= own) != (others[:, 0] >= other))


def _best_of_call(
    scores: NDArray[np.float32], row_offsets: NDArray[np.uint32] | None
) -> NDArray[np.bool_]:
    """Return the (R,) rows whose score is the highest of their call."""
    if row_offsets is None:
        row_offsets = np.array([0, len(scores)], dtype=np.uint32)
    starts = row_offsets.astype(np.intp)
    best = np.maximum.reduceat(scores, starts[:-1])
    return np.asarray(scores == np.repeat(best, starts[1:] - starts[:-1]))
