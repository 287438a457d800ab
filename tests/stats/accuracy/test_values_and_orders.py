"""Predicted values and ordered offers against their definitions and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, ndcg_score, root_mean_squared_error

from stats.accuracy.ranking import order_calls, order_figures, position_figures
from stats.accuracy.values import ErrorSums, coverage_figure, sum_errors, value_figures


def test_errors_of_values_equal_those_of_scikit_learn_and_add() -> None:
    """Sums of two halves give the figures of all rows."""
    generator = np.random.default_rng(1)
    actual = generator.gamma(2.0, 40.0, 500)
    predicted = actual + generator.normal(2.0, 9.0, 500)
    sums = sum_errors(actual[:200], predicted[:200]) + sum_errors(actual[200:], predicted[200:])
    figures = value_figures(sums)
    assert figures["mae"].value == pytest.approx(mean_absolute_error(actual, predicted))
    assert figures["rmse"].value == pytest.approx(root_mean_squared_error(actual, predicted))
    assert figures["bias"].value == pytest.approx((predicted - actual).mean())
    _, low, high = figures["bias"].bounds()
    half = 1.959964 * (predicted - actual).std(ddof=1) / math.sqrt(500)
    assert high - low == pytest.approx(2 * half, rel=1e-6)


def test_intervals_of_errors_cover() -> None:
    """At least 92 % of 400 samples of 300 rows."""
    generator = np.random.default_rng(2)
    covered = {"mae": 0, "rmse": 0, "bias": 0}
    truth = {"mae": 3 * math.sqrt(2 / math.pi), "rmse": 3.0, "bias": 0.0}
    for _ in range(400):
        figures = value_figures(sum_errors(np.zeros(300), generator.normal(0, 3, 300)))
        for name, figure in figures.items():
            _, low, high = figure.bounds()
            covered[name] += low <= truth[name] <= high
    assert min(covered.values()) >= 368, covered


def test_values_that_are_no_numbers_are_refused() -> None:
    """NaN raises; two rows and none have a sentence."""
    with pytest.raises(ValueError, match="leave its row out"):
        sum_errors(np.array([np.nan]), np.array([1.0]))
    with pytest.raises(ValueError, match="one each"):
        sum_errors(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="not negative"):
        ErrorSums(-1, 0.0, 0.0, 0.0, 0.0)
    empty = value_figures(sum_errors(np.zeros(0), np.zeros(0)))
    assert {figure.lacking for figure in empty.values()} == {"not enough data: 0 of 30 rows needed"}
    without = ErrorSums(90, 4.0, 60.0, 90.0) + sum_errors(np.zeros(9), np.ones(9))
    assert value_figures(without)["rmse"].lacking.startswith("the sums have no fourth powers")
    assert value_figures(without)["mae"].value == pytest.approx(69 / 99)
    assert coverage_figure(90, 100).value == 0.9
    assert coverage_figure(1, 2).lacking


def test_order_of_calls_equals_that_of_scikit_learn() -> None:
    """NDCG of 60 calls of six offers; ties are averaged by both."""
    generator = np.random.default_rng(3)
    worth = generator.integers(0, 4, (60, 6)).astype(float)
    worth[:, 0], worth[:, 1] = 0.0, 3.0  # every call is judged
    scores = generator.integers(0, 5, (60, 6)).astype(float)
    order = order_calls(np.arange(0, 361, 6), worth.ravel(), scores.ravel())
    figures = order_figures(order)
    assert figures["ndcg"].value == pytest.approx(ndcg_score(worth, scores, k=5))
    assert figures["hit_rate"].n == 60
    assert order_figures(order_calls(np.array([0, 2]), np.ones(2), np.ones(2)))["ndcg"].lacking


def test_positions_have_the_rate_of_the_offers_that_stood_there() -> None:
    """The first of two offers is taken in two calls of three."""
    offsets, taken = np.arange(0, 181, 2), np.tile([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], 30)
    positions = np.tile([0, 1], 90)
    first, second, third = position_figures(offsets, taken, positions, 3)
    assert first.value == pytest.approx(2 / 3)
    assert second.value == pytest.approx(1 / 3)
    assert third.lacking == "not enough data: 0 of 30 calls needed"
    with pytest.raises(ValueError, match="each offer has one"):
        position_figures(offsets, taken[:-1], positions, 3)
