"""Tests of the metrics of classes, values, orders and anomalies against their definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.accuracy.ranking import OFFERS_SHOWN, order_calls
from tests.property_examples import examples
from tests.training.evaluation.test_metrics import distance_of_ends
from training.evaluation.metrics import RESAMPLES, Bootstrap
from training.evaluation.task_metrics import (
    average_precision,
    evaluate_anomalies,
    evaluate_classes,
    evaluate_order,
    evaluate_values,
)


def test_metrics_of_classes_follow_from_their_definitions() -> None:
    """The log loss is of the probability of the row's class, and the AUC a mean over classes."""
    generator = np.random.default_rng(1)
    codes = np.arange(900) % 3
    scores = generator.dirichlet((1, 1, 1), 900)
    scores = (scores + np.eye(3)[codes] * 0.3) / 1.3
    found = evaluate_classes(codes, scores, ("a", "b", "c"), seed=7)
    assert found["log_loss"].value == pytest.approx(-np.log(scores[range(900), codes]).mean())
    decided = scores.argmax(axis=1)
    assert found["accuracy"].value == pytest.approx((decided == codes).mean())
    assert found["recall.b"].value == pytest.approx((decided[codes == 1] == 1).mean())
    areas = []
    for code in range(3):
        ours, others = scores[codes == code, code], scores[codes != code, code]
        areas.append((ours[:, None] > others[None, :]).mean())
    assert found["auc"].value == pytest.approx(np.mean(areas))
    for estimate in found.values():
        assert estimate.low < estimate.value < estimate.high  # type: ignore[operator]


def test_probability_of_0_has_a_finite_loss() -> None:
    """A float32 softmax may give 0 to the class that came true."""
    codes = np.array([0, 1] * 10)
    scores = np.tile([1.0, 0.0], (20, 1))
    loss = evaluate_classes(codes, scores, ("a", "b"), seed=7)["log_loss"].value
    assert loss == pytest.approx(-math.log(1e-7) / 2)


def test_metrics_of_values_follow_from_their_definitions() -> None:
    """They are in the unit of the values, and R2 has none."""
    generator = np.random.default_rng(2)
    actual = generator.normal(50_000, 8_000, 2_000)
    predicted = actual + generator.normal(500, 2_000, 2_000)
    found = evaluate_values(actual, predicted, seed=7)
    errors = predicted - actual
    assert found["mae"].value == pytest.approx(np.abs(errors).mean())
    assert found["rmse"].value == pytest.approx(math.sqrt((errors**2).mean()))
    assert found["bias"].value == pytest.approx(errors.mean())
    assert found["r2"].value == pytest.approx(1 - (errors**2).sum() / (2_000 * actual.var()))
    assert found["bias"].low is not None
    assert found["bias"].low > 0, "500 too much is far from 0"


def slow_ndcg(worth: list[float], scores: list[float]) -> tuple[float, float]:
    """NDCG and hit rate as means over all orders that the scores allow."""
    discounts = [1 / math.log2(place + 2) if place < OFFERS_SHOWN else 0.0 for place in range(9)]
    ideal = sum(w * d for w, d in zip(sorted(worth, reverse=True), discounts, strict=False))
    gains, hits = [], []
    for order in itertools.permutations(range(len(worth))):
        ordered = [scores[item] for item in order]
        if ordered == sorted(ordered, reverse=True):
            gains.append(sum(worth[item] * d for item, d in zip(order, discounts, strict=False)))
            hits.append(worth[order[0]] == max(worth))
    return float(np.mean(gains)) / ideal, float(np.mean(hits))


@examples(60)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=6),
        min_size=1,
        max_size=4,
    )
)
def test_order_of_calls_is_the_mean_over_the_orders_of_equal_scores(
    calls: list[list[tuple[int, int]]],
) -> None:
    """Calls whose offers were worth the same do not count."""
    rows = [row for call in calls for row in call]
    offsets = np.cumsum([0, *map(len, calls)])
    worth, scores = np.array(rows, dtype=np.float64).T
    found = order_calls(offsets, worth, scores)
    expected = [
        slow_ndcg([float(w) for w, _ in call], [float(s) for _, s in call])
        for call in calls
        if len({w for w, _ in call}) > 1
    ]
    assert found.ndcg.tolist() == pytest.approx([ndcg for ndcg, _ in expected])
    assert found.hits.tolist() == pytest.approx([hit for _, hit in expected])


def test_interval_of_an_order_is_by_call() -> None:
    """Each call twice is no more evidence than once, if both are one call."""
    generator = np.random.default_rng(3)
    worth, scores = generator.random(1_500) < 0.3, generator.random(1_500)
    once = order_calls(np.arange(0, 1_501, 5), worth.astype(float), scores)
    widths = []
    for order in (once, order_calls(np.arange(0, 1_501, 15), worth.astype(float), scores)):
        found = evaluate_order(order, seed=7)["ndcg"]
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[0] > 0.02
    assert len(once.ndcg) == sum(0 < call.sum() < 5 for call in worth.reshape(-1, 5))


def slow_average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """The mean over the positive rows of the share of positives among rows at least as high."""
    return float(np.mean([positive[scores >= score].mean() for score in scores[positive]]))


@examples(40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 8))
def test_average_precision_is_that_of_its_definition(seed: int, rows: int, distinct: int) -> None:
    """Ties count as one level, and the sum of the derivatives is 0."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, distinct, rows) / distinct
    positive = generator.random(rows) < 0.4
    positive[0], positive[-1] = True, False
    statistic = average_precision(Bootstrap(rows, seed=1), positive, scores)
    assert statistic.sums.sum() == pytest.approx(0.0, abs=1e-9)
    found = evaluate_anomalies(positive, scores, threshold=0.5, seed=1)["average_precision"]
    assert found.value == pytest.approx(slow_average_precision(positive, scores))


@pytest.mark.walk
def test_interval_of_average_precision_is_that_of_resampled_ones() -> None:
    """Each end is within a tenth of the interval's width, although it is linearised."""
    generator = np.random.default_rng(5)
    positive = generator.random(1_000) < 0.2
    scores = generator.normal(0, 1, 1_000) + positive
    resampled = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = generator.integers(0, 1_000, 1_000)
        order = np.argsort(-scores[drawn], kind="stable")
        hits = positive[drawn][order]
        resampled[number] = (np.cumsum(hits) / np.arange(1, 1_001))[hits].mean()
    found = evaluate_anomalies(positive, scores, threshold=1.0, seed=7)["average_precision"]
    assert distance_of_ends(found, resampled) < 0.1


def test_anomalies_without_known_ones_have_a_share_only() -> None:
    """There is nothing that the scores could be compared with."""
    scores = np.arange(200) / 200
    found = evaluate_anomalies(None, scores, threshold=0.95, seed=1)
    assert list(found) == ["selection_rate"]
    assert found["selection_rate"].value == pytest.approx(0.05)
