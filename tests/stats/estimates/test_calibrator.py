"""Calibrators against scikit-learn, and the choice among them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from stats.accuracy.labelled_bins import LabelledBins, bins_of_rows, logits, sigmoid
from stats.estimates.calibrator import (
    choose_calibrator,
    deal_rows,
    fit_calibrator,
    pool_adjacent,
)
from tests.property_examples import examples


@examples(100)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 50)), min_size=1, max_size=30))
def test_pool_adjacent_equals_the_isotonic_regression_of_scikit_learn(
    points: list[tuple[float, float]],
) -> None:
    """Values rise, keep their weighted mean, and are those of the oracle."""
    values = np.array([value for value, _ in points])
    weights = np.array([weight for _, weight in points])
    found = pool_adjacent(values, weights)
    assert (np.diff(found) >= -1e-12).all()
    assert found @ weights == pytest.approx(values @ weights)
    oracle = IsotonicRegression().fit(np.arange(len(values)), values, weights)
    fitted = oracle.predict(np.arange(len(values)))
    assert found == pytest.approx(fitted, abs=1e-9)


def test_sigmoid_equals_that_of_scikit_learn() -> None:
    """Platt's line through log-odds, without a penalty."""
    generator = np.random.default_rng(1)
    scores = generator.beta(1, 3, 3_000)
    positive = generator.random(3_000) < sigmoid(0.6 * logits(scores) - 0.4)
    found = fit_calibrator("sigmoid", bins_of_rows(positive, scores))
    oracle = LogisticRegression(C=1e12, tol=1e-10).fit(logits(scores)[:, None], positive)
    assert found.slope == pytest.approx(oracle.coef_[0, 0], abs=1e-3)
    assert found.intercept == pytest.approx(oracle.intercept_[0], abs=1e-3)
    shares = found.shares_at(np.array([0.1, 0.5]))
    assert shares == pytest.approx(
        oracle.predict_proba(logits(np.array([[0.1], [0.5]])))[:, 1], abs=1e-3
    )


@pytest.mark.parametrize(
    ("kind", "chances"),
    [
        ("sigmoid", lambda scores: sigmoid(0.5 * logits(scores) - 0.7)),
        ("isotonic", lambda scores: np.where(scores > 0.3, 0.6, 0.05)),
    ],
)
def test_choice_is_the_simplest_calibrator_that_fits(kind: str, chances: object) -> None:
    """Two numbers are enough for a bend, and a step needs the freest kind."""
    generator = np.random.default_rng(2)
    scores = generator.beta(1, 2, 20_000)
    assert callable(chances)
    bins = bins_of_rows(generator.random(20_000) < chances(scores), scores)
    chosen = choose_calibrator(bins, *deal_rows(bins, seed=1))
    assert chosen.kind == kind
    shares = chosen.shares_at(np.array([0.2, 0.6]))
    assert shares == pytest.approx(chances(np.array([0.2, 0.6])), abs=0.03)


def test_calibrated_scores_mostly_stay_as_they_are() -> None:
    """A sigmoid judges them better by chance in one draw of four, and is then near them.

    With z of both halves normal, it does if |z1 + z2|^2 > 3 |z1 - z2|^2, which has the chance 1/4.
    """
    generator = np.random.default_rng(2)
    kinds = []
    for draw in range(20):
        scores = generator.beta(1, 2, 10_000)
        bins = bins_of_rows(generator.random(10_000) < scores, scores)
        chosen = choose_calibrator(bins, *deal_rows(bins, seed=draw))
        kinds.append(chosen.kind)
        shares = chosen.shares_at(np.array([0.2, 0.6]))
        assert shares == pytest.approx([0.2, 0.6], abs=0.03)
    assert set(kinds) <= {"none", "sigmoid"}
    assert kinds.count("none") >= 11


def test_scores_that_are_too_steep_are_mended_by_few_labels() -> None:
    """500 rows do not prove the bend by two standard errors; taken as they are, AUC is .07 off."""
    generator = np.random.default_rng(3)
    for _ in range(10):
        scores = sigmoid(1.5 * generator.normal(-1.0, 1.2, 500))
        positive = generator.random(500) < sigmoid(logits(scores) / 1.5)
        bins = bins_of_rows(positive, scores)
        assert choose_calibrator(bins, *deal_rows(bins, seed=1)).kind == "sigmoid"


def test_few_labels_leave_scores_as_they_are() -> None:
    """49 positive rows fit no line; an unknown kind and no rows at all raise."""
    bins = LabelledBins(np.array([0.2, 0.7]), np.array([9.0, 40.0]), np.array([90.0, 9.0]))
    assert choose_calibrator(bins, bins, bins).kind == "none"
    empty = LabelledBins(np.zeros(0), np.zeros(0), np.zeros(0))
    for kind, rows in (("isotonic", empty), ("beta", bins)):
        with pytest.raises(ValueError, match="a calibrator is one of"):
            fit_calibrator(kind, rows)
    half, other = deal_rows(bins, seed=3)
    assert (half.rows + other.rows).tolist() == bins.rows.tolist()
