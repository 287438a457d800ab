"""How good the scores are, with intervals. Pure: arrays in, numbers out."""

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
"""(R, N) row weights -> (R,) values. A row's weight is how often a resample drew it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % bootstrap interval; None where it is not defined (0/0)."""

    value: float | None
    low: float | None
    high: float | None

    def definition(self) -> dict[str, Any]:
        """Return JSON values, as the card holds them."""
        return {"value": self.value, "low": self.low, "high": self.high}


def evaluate_scores(
    positive: NDArray[np.bool_], scores: Floats, *, threshold: float, seed: int
) -> dict[str, Estimate]:
    """Return AUC, log loss, Brier score and the decisions' metrics at *threshold*.

    positive  (N,) bool, both classes present.
    scores    (N,) P(positive).
    """
    clipped = np.clip(scores, 1e-7, 1.0 - 1e-7)  # float32 says exactly 0 or 1 for a sure model
    losses = -np.where(positive, np.log(clipped), np.log1p(-clipped))
    decided = scores >= threshold
    hit = (decided & positive).astype(np.float64)
    return intervals(
        {
            "auc": auc_statistic(positive, scores),
            "log_loss": _ratio(losses, np.ones(len(scores))),
            "brier": _ratio((scores - positive) ** 2, np.ones(len(scores))),
            "precision": _ratio(hit, decided.astype(np.float64)),
            "recall": _ratio(hit, positive.astype(np.float64)),
            "accuracy": _ratio((decided == positive).astype(np.float64), np.ones(len(scores))),
            "selection_rate": _ratio(decided.astype(np.float64), np.ones(len(scores))),
        },
        rows=len(scores),
        seed=seed,
    )


def auc_gain(
    positive: NDArray[np.bool_], champion: Floats, candidate: Floats, *, seed: int
) -> Estimate:
    """AUC(candidate) - AUC(champion), paired: every resample draws the same rows for both."""
    before, after = auc_statistic(positive, champion), auc_statistic(positive, candidate)
    statistics: dict[str, Statistic] = {"gain": lambda weights: after(weights) - before(weights)}
    return intervals(statistics, rows=len(positive), seed=seed)["gain"]


def intervals(statistics: dict[str, Statistic], *, rows: int, seed: int) -> dict[str, Estimate]:
    """Return each statistic on the rows as they are, with its percentile bootstrap interval."""
    draw = np.random.default_rng(seed)
    drawn: dict[str, list[Floats]] = {name: [] for name in statistics}
    for start in range(0, RESAMPLES, RESAMPLES_PER_CHUNK):
        size = min(RESAMPLES_PER_CHUNK, RESAMPLES - start)
        weights = draw.multinomial(rows, np.full(rows, 1.0 / rows), size=size).astype(np.float64)
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    once = np.ones((1, rows))
    return {
        name: _estimate(float(statistic(once)[0]), np.concatenate(drawn[name]))
        for name, statistic in statistics.items()
    }


def auc_statistic(positive: NDArray[np.bool_], scores: Floats) -> Statistic:
    """Area under the ROC curve, ties counted half, for any weights at one sort."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    sorted_positive = positive[order].astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        ranked = weights[:, order]
        ups = np.add.reduceat(ranked * sorted_positive, starts, axis=1)
        downs = np.add.reduceat(ranked * (1.0 - sorted_positive), starts, axis=1)
        below = np.cumsum(downs, axis=1) - downs
        pairs = ups.sum(axis=1) * downs.sum(axis=1)
        with np.errstate(
            invalid="ignore", divide="ignore"
        ):  # a resample of one class: NaN, left out
            return np.asarray((ups * (below + 0.5 * downs)).sum(axis=1) / pairs)

    return statistic


def _ratio(top: Floats, bottom: Floats) -> Statistic:
    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 is NaN: not defined, left out
            return np.asarray((weights @ top) / (weights @ bottom))

    return statistic


def _estimate(value: float, drawn: Floats) -> Estimate:
    defined = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(defined):
        return Estimate(None, None, None)
    low, high = np.quantile(
        defined, [(1.0 - CONFIDENCE_LEVEL) / 2.0, (1.0 + CONFIDENCE_LEVEL) / 2.0]
    )
    return Estimate(value, float(low), float(high))
