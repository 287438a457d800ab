"""Metrics are what their definitions say, and their intervals cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property_examples import examples
from training.evaluation.metrics import auc_gain, auc_statistic, evaluate_scores


def pairs_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """AUC from its definition: every positive against every negative, ties half."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


@examples(40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 8))
def test_auc_is_the_share_of_pairs_in_order(seed: int, rows: int, distinct: int) -> None:
    """Also under heavy ties."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, distinct, rows) / distinct
    positive = draw.random(rows) < 0.5
    positive[0], positive[-1] = True, False

    value = auc_statistic(positive, scores)(np.ones((1, rows)))[0]

    assert value == pytest.approx(pairs_auc(positive, scores))


def test_a_weight_is_a_repeated_row() -> None:
    """A resample that draws a row three times is the same as three such rows."""
    draw = np.random.default_rng(1)
    scores, positive = draw.random(40).round(1), draw.random(40) < 0.4
    weights = draw.integers(0, 4, 40)

    weighted = auc_statistic(positive, scores)(weights[None, :].astype(np.float64))[0]

    repeated = np.repeat(np.arange(40), weights)
    assert weighted == pytest.approx(pairs_auc(positive[repeated], scores[repeated]))


def test_the_metrics_of_a_case_worked_by_hand() -> None:
    """Four rows; one false alarm, no miss."""
    positive = np.array([True, True, False, False])
    scores = np.array([0.9, 0.5, 0.6, 0.2])

    found = evaluate_scores(positive, scores, threshold=0.5, seed=1)

    assert found["auc"].value == pytest.approx(0.75)
    assert found["precision"].value == pytest.approx(2 / 3)
    assert found["recall"].value == pytest.approx(1.0)
    assert found["accuracy"].value == pytest.approx(0.75)
    assert found["selection_rate"].value == pytest.approx(0.75)
    assert found["brier"].value == pytest.approx((0.01 + 0.25 + 0.36 + 0.04) / 4)
    expected = -np.log([0.9, 0.5, 0.4, 0.8]).mean()
    assert found["log_loss"].value == pytest.approx(expected)


def test_nobody_selected_has_no_precision() -> None:
    """0/0 is said as None, which JSON can carry, and warns nobody."""
    positive = np.array([True, False])
    assert (
        evaluate_scores(positive, np.array([0.1, 0.2]), threshold=0.5, seed=1)["precision"].value
        is None
    )


def test_scores_of_exactly_zero_and_one_have_a_finite_loss() -> None:
    """A float32 sigmoid saturates; one wrong sure answer must not make the loss infinite."""
    found = evaluate_scores(np.array([True, False]), np.array([0.0, 1.0]), threshold=0.5, seed=1)
    assert found["log_loss"].value == pytest.approx(-np.log(1e-7))


def test_the_gain_of_a_model_over_itself_is_zero_and_its_interval_too() -> None:
    """Paired: the same resample for both, so nothing but the models can differ."""
    draw = np.random.default_rng(2)
    scores, positive = draw.random(200), draw.random(200) < 0.3
    gain = auc_gain(positive, scores, scores, seed=5)
    assert (gain.value, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_a_truly_better_model_gains_and_a_worse_one_loses() -> None:
    """The interval lies on the right side of zero, and turns with the order of the two."""
    draw = np.random.default_rng(2)
    positive = draw.random(600) < 0.3
    good = positive + draw.normal(0, 0.7, 600)
    poor = positive + draw.normal(0, 2.0, 600)
    better, worse = auc_gain(positive, poor, good, seed=5), auc_gain(positive, good, poor, seed=5)
    assert better.low is not None
    assert better.low > 0
    assert worse.high is not None
    assert worse.high < 0
    assert worse.value == pytest.approx(-(better.value or 0))
