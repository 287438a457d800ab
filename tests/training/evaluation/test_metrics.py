"""Tests of metrics against their definitions, and of their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property_examples import examples
from training.evaluation.metrics import auc_gain, auc_statistic, evaluate_scores


def pairs_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """AUC by its definition: the share of pairs in order, ties counted half."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


@examples(40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 8))
def test_auc_is_the_share_of_pairs_in_order(seed: int, rows: int, distinct: int) -> None:
    """Ties count half, also if there are many."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, distinct, rows) / distinct
    positive = generator.random(rows) < 0.5
    positive[0], positive[-1] = True, False

    value = auc_statistic(positive, scores)(np.ones((1, rows)))[0]

    assert value == pytest.approx(pairs_auc(positive, scores))


def test_auc_weight_counts_as_a_repeated_row() -> None:
    """A weight of three gives the same value as three equal rows."""
    generator = np.random.default_rng(1)
    scores, positive = generator.random(40).round(1), generator.random(40) < 0.4
    weights = generator.integers(0, 4, 40)

    weighted = auc_statistic(positive, scores)(weights[None, :].astype(np.float64))[0]

    repeated = np.repeat(np.arange(40), weights)
    assert weighted == pytest.approx(pairs_auc(positive[repeated], scores[repeated]))


def test_metrics_of_a_case_computed_by_hand() -> None:
    """There are four rows, with one false alarm and no miss."""
    positive = np.array([True, True, False, False])
    scores = np.array([0.9, 0.5, 0.6, 0.2])

    metrics = evaluate_scores(positive, scores, threshold=0.5, seed=1)

    assert metrics["auc"].value == pytest.approx(0.75)
    assert metrics["precision"].value == pytest.approx(2 / 3)
    assert metrics["recall"].value == pytest.approx(1.0)
    assert metrics["accuracy"].value == pytest.approx(0.75)
    assert metrics["selection_rate"].value == pytest.approx(0.75)
    assert metrics["brier"].value == pytest.approx((0.01 + 0.25 + 0.36 + 0.04) / 4)
    expected = -np.log([0.9, 0.5, 0.4, 0.8]).mean()
    assert metrics["log_loss"].value == pytest.approx(expected)


def test_precision_is_none_without_a_selected_row() -> None:
    """0/0 is None, and gives no warning."""
    positive = np.array([True, False])
    assert (
        evaluate_scores(positive, np.array([0.1, 0.2]), threshold=0.5, seed=1)["precision"].value
        is None
    )


def test_log_loss_is_finite_for_scores_of_0_and_1() -> None:
    """A float32 sigmoid saturates, so such scores happen."""
    metrics = evaluate_scores(np.array([True, False]), np.array([0.0, 1.0]), threshold=0.5, seed=1)
    assert metrics["log_loss"].value == pytest.approx(-np.log(1e-7))


def test_auc_gain_of_a_model_over_itself_is_zero() -> None:
    """The resamples are the same for both, so the interval is 0 as well."""
    generator = np.random.default_rng(2)
    scores, positive = generator.random(200), generator.random(200) < 0.3
    gain = auc_gain(positive, scores, scores, seed=5)
    assert (gain.value, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_auc_gain_has_the_sign_of_the_better_model() -> None:
    """The interval is on one side of 0, and changes sides with the roles."""
    generator = np.random.default_rng(2)
    positive = generator.random(600) < 0.3
    good = positive + generator.normal(0, 0.7, 600)
    poor = positive + generator.normal(0, 2.0, 600)
    better, worse = auc_gain(positive, poor, good, seed=5), auc_gain(positive, good, poor, seed=5)
    assert better.low is not None
    assert better.low > 0
    assert worse.high is not None
    assert worse.high < 0
    assert worse.value == pytest.approx(-(better.value or 0))
