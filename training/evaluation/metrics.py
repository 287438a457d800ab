"""Metrics of scores with bootstrap intervals. Functions of arrays, without I/O."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1_000
RESAMPLES_PER_CHUNK = 250
CONFIDENCE_LEVEL = 0.95

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Maps (R, N) weights of rows to (R,) values. A weight is how often a resample has the row."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % bootstrap interval. All are None if the number is not defined (0/0)."""

    value: float | None
    low: float | None
    high: float | None

    def definition(self) -> dict[str, Any]:
        """Return the estimate as JSON values for the card."""
        return {"value": self.value, "low": self.low, "high": self.high}


def evaluate_scores(
    positive: NDArray[np.bool_], scores: Floats, *, threshold: float, seed: int
) -> dict[str, Estimate]:
    """Return AUC, log loss and Brier score, and the metrics of the decisions at *threshold*.

    positive  (N,) bool, the labels, with both classes.
    scores    (N,) P(positive).
    seed      of the bootstrap.
    """
    # A float32 score may be exactly 0 or 1, and its loss would be infinite.
    clipped = np.clip(scores, 1e-7, 1.0 - 1e-7)
    losses = -np.where(positive, np.log(clipped), np.log1p(-clipped))
    selected = scores >= threshold
    true_positive = (selected & positive).astype(np.float64)
    # Every metric is a ratio of weighted sums.
    return intervals(
        {
            "auc": auc_statistic(positive, scores),
            "log_loss": _ratio(losses, np.ones(len(scores))),
            "brier": _ratio((scores - positive) ** 2, np.ones(len(scores))),
            "precision": _ratio(true_positive, selected.astype(np.float64)),
            "recall": _ratio(true_positive, positive.astype(np.float64)),
            "accuracy": _ratio((selected == positive).astype(np.float64), np.ones(len(scores))),
            "selection_rate": _ratio(selected.astype(np.float64), np.ones(len(scores))),
        },
        rows=len(scores),
        seed=seed,
    )


def auc_gain(
    positive: NDArray[np.bool_], champion: Floats, candidate: Floats, *, seed: int
) -> Estimate:
    """Return AUC(candidate) - AUC(champion), paired: each resample has the same rows for both."""
    champion_auc = auc_statistic(positive, champion)
    candidate_auc = auc_statistic(positive, candidate)
    statistics: dict[str, Statistic] = {
        "gain": lambda weights: candidate_auc(weights) - champion_auc(weights)
    }
    return intervals(statistics, rows=len(positive), seed=seed)["gain"]


def intervals(statistics: dict[str, Statistic], *, rows: int, seed: int) -> dict[str, Estimate]:
    """Return each statistic of the *rows* rows with its percentile bootstrap interval."""
    # Resample in chunks, because the weights take memory.
    generator = np.random.default_rng(seed)
    resampled: dict[str, list[Floats]] = {name: [] for name in statistics}
    for start in range(0, RESAMPLES, RESAMPLES_PER_CHUNK):
        size = min(RESAMPLES_PER_CHUNK, RESAMPLES - start)
        weights = generator.multinomial(rows, np.full(rows, 1.0 / rows), size=size).astype(
            np.float64
        )
        for name, statistic in statistics.items():
            resampled[name].append(statistic(weights))
    # The value itself counts each row once.
    equal_weights = np.ones((1, rows))
    return {
        name: _estimate(float(statistic(equal_weights)[0]), np.concatenate(resampled[name]))
        for name, statistic in statistics.items()
    }


def auc_statistic(positive: NDArray[np.bool_], scores: Floats) -> Statistic:
    """Return the area under the ROC curve as a statistic of weights. Ties count half.

    The scores are sorted once, for all resamples.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    sorted_positive = positive[order].astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        # Sum the weights of both classes over each group of equal scores.
        ranked = weights[:, order]
        positives = np.add.reduceat(ranked * sorted_positive, starts, axis=1)
        negatives = np.add.reduceat(ranked * (1.0 - sorted_positive), starts, axis=1)
        negatives_below = np.cumsum(negatives, axis=1) - negatives
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        # A resample with one class only gives NaN, and is left out.
        with np.errstate(invalid="ignore", divide="ignore"):
            ordered_pairs = (positives * (negatives_below + 0.5 * negatives)).sum(axis=1)
            return np.asarray(ordered_pairs / pairs)

    return statistic


def _ratio(numerator: Floats, denominator: Floats) -> Statistic:
    def statistic(weights: Floats) -> Floats:
        # 0/0 is NaN, and is left out.
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ numerator) / (weights @ denominator))

    return statistic


def _estimate(value: float, resampled: Floats) -> Estimate:
    defined = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(defined):
        return Estimate(None, None, None)
    low, high = np.quantile(
        defined, [(1.0 - CONFIDENCE_LEVEL) / 2.0, (1.0 + CONFIDENCE_LEVEL) / 2.0]
    )
    return Estimate(value, float(low), float(high))
