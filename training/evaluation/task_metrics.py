"""Metrics of classes, values, orders and anomaly scores, with 95 % bootstrap intervals.

Functions of arrays, without I/O. Those of two classes are in training.evaluation.metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import (
    Bootstrap,
    Estimate,
    Floats,
    Statistic,
    area,
    divide,
    mean_of,
)

PROBABILITY_MIN = 1e-7
"""A float32 probability may be exactly 0, and its loss would be infinite."""
OFFERS_SHOWN = 5
"""Offers of a call that count for NDCG: a caller seldom shows more."""


def class_losses(codes: NDArray[np.int64], probabilities: Floats) -> Floats:
    """Return the log loss of each row, (N,): of the probability (N, K) of its class, *codes*."""
    likely = np.take_along_axis(probabilities, codes[:, np.newaxis], axis=1)[:, 0]
    return np.asarray(-np.log(np.clip(likely, PROBABILITY_MIN, 1.0)))


def evaluate_classes(
    codes: NDArray[np.int64], probabilities: Floats, classes: Sequence[str], *, seed: int
) -> dict[str, Estimate]:
    """Return log loss, accuracy, the mean AUC of each class against the rest, and each recall.

    codes          (N,) the index of each row's class.
    probabilities  (N, K), of which the largest is the decision.
    classes        the K names. Each class has a row, and so has each rest.
    """
    bootstrap = Bootstrap(len(codes), seed=seed)
    rows = np.ones(len(codes), dtype=np.bool_)
    right = probabilities.argmax(axis=1) == codes
    # One class at a time, so that there is one row of sums and no table of all classes.
    areas, recalls = [], {}
    for code, name in enumerate(classes):
        member = codes == code
        areas.append(area(bootstrap, member, probabilities[:, code]))
        recalls[f"recall.{name}"] = bootstrap.ratio(right & member, member)
    return bootstrap.intervals(
        {
            "log_loss": bootstrap.ratio(class_losses(codes, probabilities), rows),
            "accuracy": bootstrap.ratio(right, rows),
            "auc": mean_of(areas),
            **recalls,
        }
    )


def evaluate_values(actual: Floats, predicted: Floats, *, seed: int) -> dict[str, Estimate]:
    """Return mean absolute error, root mean squared error, R2, and bias: the mean error.

    actual, predicted  (N,). An error is predicted - actual.
    """
    errors, rows = predicted - actual, np.ones(len(actual))
    # Values are centred first: sums of squares of large numbers would lose the spread.
    centred = actual - actual.mean()

    def root(squares: Floats, count: Floats) -> Floats:
        return np.sqrt(divide(squares, count))

    def r2(count: Floats, total: Floats, squares: Floats, lost: Floats) -> Floats:
        # A resample of equal values has no spread, and is left out.
        return 1.0 - divide(lost, squares - divide(total**2, count))

    bootstrap = Bootstrap(len(errors), seed=seed)
    return bootstrap.intervals(
        {
            "mae": bootstrap.ratio(np.abs(errors), rows),
            "rmse": bootstrap.statistic(root, errors**2, rows),
            "r2": bootstrap.statistic(r2, rows, centred, centred**2, errors**2),
            "bias": bootstrap.ratio(errors, rows),
        }
    )


@dataclass(frozen=True, eq=False, slots=True)
class CallOrder:
    """How well the offers of each call are ordered. C is the number of calls that are judged.

    A call is judged if its offers differ: where all of them were worth the same, every order is as
    good.

    ndcg  (C,) the discounted gain of the first OFFERS_SHOWN offers, over the largest possible.
    hits  (C,) whether the first offer was one of the best, 0 to 1.
    """

    ndcg: Floats
    hits: Floats


def order_calls(offsets: NDArray[np.int64], worth: Floats, scores: Floats) -> CallOrder:
    """Return how well *scores* (N,) order the offers of each call by their *worth* (N,), from 0 on.

    offsets  (calls + 1,) where the rows of each call begin.

    Offers with equal scores come in any order, so each has the mean of their places. Equal scores
    for all offers give what a random order gives on average.
    """
    sizes = np.diff(offsets)
    call_of = np.repeat(np.arange(len(sizes)), sizes)
    starts = offsets[:-1]
    best = np.maximum.reduceat(worth, starts)
    differ = best > np.minimum.reduceat(worth, starts)
    # Discount each place, and share those of equal scores.
    order = np.lexsort((-scores, call_of))
    places = np.arange(len(scores)) - starts[call_of]
    discounts = np.where(places < OFFERS_SHOWN, 1.0 / np.log2(places + 2.0), 0.0)
    gained = _sums_of_calls(worth[order] * _shared(discounts, order, call_of, scores), starts)
    ideal = _sums_of_calls(worth[np.lexsort((-worth, call_of))] * discounts, starts)
    # The first place is shared in the same way.
    first = _shared((places == 0).astype(np.float64), order, call_of, scores)
    is_best = (worth == best[call_of])[order]
    hits = _sums_of_calls(first * is_best, starts)
    return CallOrder(divide(gained, ideal)[differ], hits[differ])


def _shared(
    weights: Floats, order: NDArray[np.int64], call_of: NDArray[np.int64], scores: Floats
) -> Floats:
    """Return the mean of *weights* (N,), by place, over the offers of a call with equal scores."""
    ordered, calls = scores[order], call_of[order]
    begins = np.r_[True, (ordered[1:] != ordered[:-1]) | (calls[1:] != calls[:-1])]
    tie = np.cumsum(begins) - 1
    return np.asarray((np.bincount(tie, weights=weights) / np.bincount(tie))[tie])


def _sums_of_calls(values: Floats, starts: NDArray[np.int64]) -> Floats:
    return np.asarray(np.add.reduceat(values, starts))


def evaluate_order(order: CallOrder, *, seed: int) -> dict[str, Estimate]:
    """Return NDCG, and the share of calls whose best offer has the largest score; by call."""
    bootstrap = Bootstrap(len(order.ndcg), seed=seed)
    calls = np.ones(len(order.ndcg), dtype=np.bool_)
    return bootstrap.intervals(
        {
            "ndcg": bootstrap.ratio(order.ndcg, calls),
            "hit_rate": bootstrap.ratio(order.hits, calls),
        }
    )


def evaluate_anomalies(
    positive: NDArray[np.bool_] | None, scores: Floats, *, threshold: float, seed: int
) -> dict[str, Estimate]:
    """Return the share of rows at or above *threshold*, and how well scores find known anomalies.

    positive  (N,) bool, the known anomalies, with both classes; None: none are known.
    """
    bootstrap = Bootstrap(len(scores), seed=seed)
    selected = scores >= threshold
    rows = np.ones(len(scores), dtype=np.bool_)
    statistics = {"selection_rate": bootstrap.ratio(selected, rows)}
    if positive is not None:
        statistics |= {
            "auc": area(bootstrap, positive, scores),
            "average_precision": average_precision(bootstrap, positive, scores),
            "precision": bootstrap.ratio(selected & positive, selected),
            "recall": bootstrap.ratio(selected & positive, positive),
        }
    return bootstrap.intervals(statistics)


def average_precision(
    bootstrap: Bootstrap, positive: NDArray[np.bool_], scores: Floats
) -> Statistic:
    """Return the mean over the positive rows of the precision at their scores.

    It is not a sum over the rows, so it is linearised like the area under the ROC curve: each row
    counts by the derivative of the metric by the row's weight.
    """
    # Count the rows with at least each score.
    levels, level = np.unique(-scores, return_inverse=True)
    rows_at = np.bincount(level, minlength=len(levels)).astype(np.float64)
    positives_at = np.bincount(level, weights=positive, minlength=len(levels))
    rows, positives = np.cumsum(rows_at), np.cumsum(positives_at)
    precision, total = positives / rows, positives[-1]
    value = float((positives_at * precision).sum() / total)
    # A row changes the precision at its own score and at every lower one.
    raised = np.cumsum((positives_at / rows)[::-1])[::-1]
    lowered = np.cumsum((positives_at * precision / rows)[::-1])[::-1]
    own = np.where(positive, precision[level] - value + raised[level], 0.0)
    derivative = (own - lowered[level]) / total

    def of_sums(changes: Floats) -> Floats:
        return np.clip(value + changes, 0.0, 1.0)

    return bootstrap.statistic(of_sums, derivative)
