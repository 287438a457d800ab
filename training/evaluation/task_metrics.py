"""Metrics of classes, values, orders and anomaly scores, with 95 % bootstrap intervals.

Functions of arrays, without I/O. Those of two classes are in training.evaluation.metrics. Losses
and orders are those of stats.accuracy, by which versions in service are judged too.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.probabilities import class_losses
from stats.accuracy.ranking import CallOrder
from training.evaluation.metrics import (
    Bootstrap,
    Estimate,
    Floats,
    Statistic,
    area,
    divide,
    mean_of,
)


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
