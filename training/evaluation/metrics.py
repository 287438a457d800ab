"""Metrics of scores with bootstrap intervals. Functions of arrays, without I/O.

Every metric is a function of sums over the rows, so a resample needs these sums only. More than
10,000 rows are dealt into 10,000 groups at random, and whole groups are resampled: sums of groups
of independent rows vary as sums of the rows do, and 10,000 groups give that variation to about 1 %.
So a million rows need little more memory than their columns. Fewer rows are resampled one by one.

The area under the ROC curve is not a sum. It is linearised: the mean placement of the positive rows
plus the mean placement of the negative rows, less its value (DeLong et al., Biometrics 44, 1988).
The ends of its interval differ from those of resampled areas by less than a tenth of the interval's
width, from 60 rows on; tests/training/evaluation/test_metrics.py has the comparison.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.area import placements
from stats.accuracy.probabilities import binary_losses

RESAMPLES = 1_000
GROUPS_MAX = 10_000
CONFIDENCE_LEVEL = 0.95
WEIGHTS_PER_CHUNK = 2_500_000

Floats = NDArray[np.float64]
Column = NDArray[np.float64] | NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % bootstrap interval. All are None if the number is not defined (0/0)."""

    value: float | None
    low: float | None
    high: float | None

    def definition(self) -> dict[str, Any]:
        """Return the estimate as JSON values for the card."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, eq=False, slots=True)
class Statistic:
    """A metric as a function of sums over rows.

    sums     (M, C) float64, the sums of C columns over each of the M groups of rows.
    of_sums  maps C vectors of sums over all rows of a resample, (R,) each, to (R,) values.
    """

    sums: Floats
    of_sums: Callable[..., Floats]


class Bootstrap:
    """Resamples of N rows, the same for every statistic, so that comparisons are paired.

    groups  M, the number of groups that are resampled; it is N for at most 10,000 rows.
    """

    def __init__(self, rows: int, *, seed: int, groups_max: int = GROUPS_MAX) -> None:
        self.rows = rows
        self.groups = min(rows, groups_max)
        self._seed = seed
        # Rows are dealt at random, so that neighbours in a table are no group.
        self._group_of_row: NDArray[np.int64] | None = None
        if self.groups < rows:
            self._group_of_row = np.random.default_rng((seed, 1)).permutation(rows) % self.groups

    def definition(self) -> dict[str, Any]:
        """Return what the intervals of a card are made of, as JSON values."""
        return {
            "confidence_level": CONFIDENCE_LEVEL,
            "resamples": RESAMPLES,
            "rows": self.rows,
            "groups": self.groups,
        }

    def statistic(self, of_sums: Callable[..., Floats], *columns: Column) -> Statistic:
        """Return the metric that *of_sums* computes from the sums of *columns*, (N,) each."""
        sums = np.empty((self.groups, len(columns)))
        for number, column in enumerate(columns):
            sums[:, number] = (
                column
                if self._group_of_row is None
                else np.bincount(self._group_of_row, weights=column, minlength=self.groups)
            )
        return Statistic(sums, of_sums)

    def ratio(self, numerator: Column, denominator: Column) -> Statistic:
        """Return the sum of *numerator* over the sum of *denominator*, (N,) each."""
        return self.statistic(divide, numerator, denominator)

    def intervals(self, statistics: Mapping[str, Statistic]) -> dict[str, Estimate]:
        """Return each statistic of all rows with its percentile bootstrap interval."""
        if not statistics:
            return {}
        sums = np.concatenate([statistic.sums for statistic in statistics.values()], axis=1)
        # Draw how often each resample has each group, in chunks, because weights take memory.
        generator = np.random.default_rng(self._seed)
        shares = np.full(self.groups, 1.0 / self.groups)
        chunk = max(1, WEIGHTS_PER_CHUNK // self.groups)
        resampled = np.empty((RESAMPLES, sums.shape[1]))
        for start in range(0, RESAMPLES, chunk):
            size = min(chunk, RESAMPLES - start)
            weights = generator.multinomial(self.groups, shares, size=size)
            resampled[start : start + size] = weights.astype(np.float64) @ sums
        # The value itself counts each row once.
        totals = sums.sum(axis=0)
        estimates, first = {}, 0
        for name, statistic in statistics.items():
            own = slice(first, first + statistic.sums.shape[1])
            first = own.stop
            value = statistic.of_sums(*totals[np.newaxis, own].T)
            estimates[name] = _estimate(float(value[0]), statistic.of_sums(*resampled[:, own].T))
        return estimates


def evaluate_scores(
    positive: NDArray[np.bool_], scores: Floats, *, threshold: float, seed: int
) -> dict[str, Estimate]:
    """Return AUC, log loss and Brier score, and the metrics of the decisions at *threshold*.

    positive  (N,) bool, the labels, with both classes.
    scores    (N,) P(positive).
    seed      of the bootstrap.
    """
    bootstrap = Bootstrap(len(scores), seed=seed)
    losses = np.where(positive, *binary_losses(scores))
    selected = scores >= threshold
    rows = np.ones(len(scores), dtype=np.bool_)
    return bootstrap.intervals(
        {
            "auc": area(bootstrap, positive, scores),
            "log_loss": bootstrap.ratio(losses, rows),
            "brier": bootstrap.ratio((scores - positive) ** 2, rows),
            "precision": bootstrap.ratio(selected & positive, selected),
            "recall": bootstrap.ratio(selected & positive, positive),
            "accuracy": bootstrap.ratio(selected == positive, rows),
            "selection_rate": bootstrap.ratio(selected, rows),
        }
    )


def auc_gain(
    positive: NDArray[np.bool_], champion: Floats, candidate: Floats, *, seed: int
) -> Estimate:
    """Return AUC(candidate) - AUC(champion), paired: each resample has the same rows for both."""
    bootstrap = Bootstrap(len(positive), seed=seed)
    gain = placements(positive, candidate) - placements(positive, champion)
    statistic = _mean_placement(bootstrap, positive, gain, lowest=-1.0, highest=1.0)
    return bootstrap.intervals({"gain": statistic})["gain"]


def area(bootstrap: Bootstrap, positive: NDArray[np.bool_], scores: Floats) -> Statistic:
    """Return the area under the ROC curve of *scores* (N,) for the rows *positive* (N,) bool."""
    return _mean_placement(
        bootstrap, positive, placements(positive, scores), lowest=0.0, highest=1.0
    )


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Return the mean of several metrics as one."""
    ends = np.cumsum([0, *(statistic.sums.shape[1] for statistic in statistics)])

    def of_sums(*columns: Floats) -> Floats:
        values = [
            statistic.of_sums(*columns[first:last])
            for statistic, first, last in zip(statistics, ends[:-1], ends[1:], strict=True)
        ]
        return np.asarray(np.mean(values, axis=0))

    return Statistic(np.concatenate([item.sums for item in statistics], axis=1), of_sums)


def mean_gain(others: Floats, losses: Floats, *, seed: int) -> Estimate:
    """Return by how much the mean of *losses* is below that of *others*, paired, (N,) each."""
    bootstrap = Bootstrap(len(losses), seed=seed)
    rows = np.ones(len(losses), dtype=np.bool_)
    return bootstrap.intervals({"gain": bootstrap.ratio(others - losses, rows)})["gain"]


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; 0/0 is NaN, and resamples with it are left out of an interval."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator / denominator)


def _mean_placement(
    bootstrap: Bootstrap,
    positive: NDArray[np.bool_],
    placed: Floats,
    *,
    lowest: float,
    highest: float,
) -> Statistic:
    """Return the mean of *placed* over the positive rows, which equals that of the negative rows.

    A resample changes it by both classes: by other positive rows, and by other negative rows that
    they are placed among.
    """
    value = float(placed[positive].mean())

    def of_sums(ours: Floats, positives: Floats, others: Floats, negatives: Floats) -> Floats:
        changed = divide(ours, positives) + divide(others, negatives) - value
        return np.clip(changed, lowest, highest)

    return bootstrap.statistic(
        of_sums,
        np.where(positive, placed, 0.0),
        positive,
        np.where(positive, 0.0, placed),
        ~positive,
    )


def _estimate(value: float, resampled: Floats) -> Estimate:
    defined = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(defined):
        return Estimate(None, None, None)
    low, high = np.quantile(
        defined, [(1.0 - CONFIDENCE_LEVEL) / 2.0, (1.0 + CONFIDENCE_LEVEL) / 2.0]
    )
    return Estimate(value, float(low), float(high))
