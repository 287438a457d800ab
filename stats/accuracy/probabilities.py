"""How good probabilities are: log loss, Brier score and calibration, from counts by bin.

Calibration says whether of the rows with a score of .3 three of ten have the outcome. The error of
calibration, ECE, is the mean distance between both. Chance alone makes it larger than 0, so its
bias is taken off.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.labelled_bins import (
    PROBABILITY_MIN,
    LabelledBins,
    check_probabilities,
    logits,
    merge_bins,
    sigmoid,
)
from stats.figure import Figure, no_figure, normal_figure, not_enough

Floats = NDArray[np.float64]

ROWS_NEEDED = 30
"""Rows below which a mean has no useful interval."""
CALIBRATION_ROWS_NEEDED = 100
CALIBRATION_GROUPS = 15
"""Groups of about equally many rows for ECE, as in most of its literature."""
STEPS_MAX = 50
SLOPE_MAX = 50.0
"""A slope beyond this means that scores separate the classes, where no finite slope fits."""


def binary_losses(scores: Floats) -> tuple[Floats, Floats]:
    """Return the log loss of *scores* for a positive and for a negative row, as arrays like it."""
    clipped = np.clip(scores, PROBABILITY_MIN, 1.0 - PROBABILITY_MIN)
    return np.asarray(-np.log(clipped)), np.asarray(-np.log1p(-clipped))


def class_losses(codes: NDArray[np.int64], probabilities: Floats) -> Floats:
    """Return the log loss of each row, (N,): of the probability (N, K) of its class, *codes*."""
    likely = np.take_along_axis(probabilities, codes[:, np.newaxis], axis=1)[:, 0]
    return np.asarray(-np.log(np.clip(likely, PROBABILITY_MIN, 1.0)))


def log_loss_figure(bins: LabelledBins) -> Figure:
    """Return the mean log loss in nats, with a normal interval."""
    check_probabilities(bins.scores)
    return _mean_loss(bins, *binary_losses(bins.scores))


def brier_figure(bins: LabelledBins) -> Figure:
    """Return the mean squared distance of score and outcome, 0 to 1, with a normal interval."""
    check_probabilities(bins.scores)
    return _mean_loss(bins, (1.0 - bins.scores) ** 2, bins.scores**2, highest=1.0)


def class_loss_figure(classes: list[LabelledBins]) -> Figure:
    """Return the log loss of a model of several classes.

    classes  the bins of each class's own probability. Only rows of that class count here.
    """
    losses = [binary_losses(bins.scores)[0] for bins in classes]
    members = [bins.positives for bins in classes]
    if not classes:
        return no_figure(0, not_enough(0, ROWS_NEEDED))
    return _mean_of(np.concatenate(losses), np.concatenate(members))


def _mean_loss(
    bins: LabelledBins, positive: Floats, negative: Floats, highest: float = math.inf
) -> Figure:
    losses = np.concatenate([positive, negative])
    return _mean_of(losses, np.concatenate([bins.positives, bins.negatives]), highest)


def _mean_of(losses: Floats, rows: Floats, highest: float = math.inf) -> Figure:
    n = float(rows.sum())
    if lacking := not_enough(n, ROWS_NEEDED):
        return no_figure(int(n), lacking)
    mean = float(rows @ losses / n)
    error = math.sqrt(float(rows @ (losses - mean) ** 2) / (n * (n - 1)))
    return normal_figure(mean, error, int(n), lowest=0.0, highest=highest)


def calibration_error_figure(bins: LabelledBins, groups: int = CALIBRATION_GROUPS) -> Figure:
    """Return the expected calibration error, less its bias, 0 to 1.

    groups  the number of groups of about equally many rows.

    The absolute difference d of a group with sampling error s is biased by E|N(d0, s)| - d0 at the
    true difference d0, which is estimated from d^2 - s^2. This closed form is what resamples of the
    labels would give.
    """
    check_probabilities(bins.scores)
    if lacking := not_enough(bins.n, CALIBRATION_ROWS_NEEDED):
        return no_figure(bins.n, lacking)
    merged = merge_bins(bins, groups)
    rows = merged.rows
    weights = rows / rows.sum()
    observed = merged.positives / rows
    # The error of a share that is 0 or 1 in a small group is taken at one row more of each class.
    smoothed = (merged.positives + 1.0) / (rows + 2.0)
    errors = np.sqrt(smoothed * (1.0 - smoothed) / rows)
    apart = np.abs(observed - merged.scores)
    true = np.sqrt(np.maximum(apart**2 - errors**2, 0.0))
    bias = np.array([_folded_mean(d, s) for d, s in zip(true, errors, strict=True)]) - true
    value = max(float(weights @ (apart - bias)), 0.0)
    error = math.sqrt(float(weights**2 @ errors**2))
    return normal_figure(value, error, bins.n, lowest=0.0, highest=1.0)


def _folded_mean(distance: float, error: float) -> float:
    """Return E|X| of a normal X with mean *distance* and standard deviation *error* > 0."""
    ratio = distance / error
    below = NormalDist().cdf(-ratio)
    return float(
        error * math.sqrt(2 / math.pi) * math.exp(-ratio * ratio / 2) + distance * (1 - 2 * below)
    )


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """The logistic line through outcomes against the log-odds of scores.

    slope      1 is right; below 1 the scores are too extreme.
    intercept  with a slope of 1: 0 is right; above 0 more rows have the outcome than scores say.
    """

    slope: Figure
    intercept: Figure


def calibration_line(bins: LabelledBins) -> CalibrationLine:
    """Return slope and intercept of calibration (Cox, Biometrika 45, 1958), with intervals."""
    for count, name in ((bins.positive_rows, "positive"), (bins.negative_rows, "negative")):
        if lacking := not_enough(count, ROWS_NEEDED, f"{name} rows"):
            missing = no_figure(bins.n, lacking)
            return CalibrationLine(missing, missing)
    bins = bins.filled()
    margins = logits(bins.scores)
    # The intercept: the shift of all log-odds under which the outcomes are the likeliest.
    constant, error = fit_logistic(np.ones((len(margins), 1)), bins.positives, bins.rows, margins)
    intercept = normal_figure(float(constant[0]), float(error[0]), bins.n)
    if len(margins) < 2:
        return CalibrationLine(
            no_figure(bins.n, "all scores are equal, so no line fits"), intercept
        )
    # The slope, with an intercept of its own.
    terms = np.column_stack([margins - margins.mean(), np.ones(len(margins))])
    line, errors = fit_logistic(terms, bins.positives, bins.rows, np.zeros(len(margins)))
    if abs(line[0]) > SLOPE_MAX or not np.isfinite(errors[0]):
        return CalibrationLine(
            no_figure(bins.n, "scores separate the classes, so no finite slope fits"), intercept
        )
    return CalibrationLine(normal_figure(float(line[0]), float(errors[0]), bins.n), intercept)


def fit_logistic(
    terms: Floats, positives: Floats, rows: Floats, offset: Floats, ridge: float = 1e-9
) -> tuple[Floats, Floats]:
    """Fit P(positive) = sigmoid(offset + terms @ b) by Newton's method; return b and its errors.

    terms      (J, T) float64. offset  (J,) float64.
    positives  (J,) of the *rows* (J,) that have each line of terms.
    ridge      a small penalty of b, so that classes that are separated stop at a large b.
    """
    weights = np.zeros(terms.shape[1])
    penalty = ridge * np.eye(terms.shape[1])
    information = penalty
    for _ in range(STEPS_MAX):
        fitted = sigmoid(offset + terms @ weights)
        gradient = terms.T @ (positives - rows * fitted) - ridge * weights
        information = (terms * (rows * fitted * (1.0 - fitted))[:, np.newaxis]).T @ terms + penalty
        step = np.linalg.solve(information, gradient)
        # A long first step may overshoot where the curve is flat.
        step *= min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-300))
        weights = weights + step
        if float(np.abs(step).max()) < 1e-10 * (1.0 + float(np.abs(weights).max())):
            break
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    return weights, errors
