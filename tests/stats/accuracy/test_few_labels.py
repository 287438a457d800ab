"""Risks of cohorts with few labels: right on average, in their intervals, and more exact."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stats.accuracy.few_labels import (
    LABELS_NEEDED,
    LabelledLosses,
    powered_figure,
    powered_mean,
    powered_risk,
    powered_weight,
    sum_losses,
)
from stats.accuracy.harm import brier_losses
from stats.accuracy.labelled_bins import LabelledBins, bins_of_rows, logits, sigmoid
from tests.property_examples import examples

Floats = NDArray[np.float64]
BINS = np.linspace(0.01, 0.99, 50)
LOSSES = brier_losses(BINS)
ROWS, LABELLED = 2_000, 60


class Customers:
    """Customers of weeks, whose scores and outcomes are drawn by bin.

    intercept  of the scores' log-odds; -3: few have the outcome.
    truth      (scores, week) -> P(outcome), whatever the scores say.
    """

    def __init__(self, seed: int, intercept: float, truth: Callable[[Floats, int], Floats]) -> None:
        self._generator = np.random.default_rng(seed)
        margins = self._generator.normal(intercept, 1.2, 200_000)
        places = np.searchsorted(BINS, sigmoid(margins)).clip(0, len(BINS) - 1)
        self.mix = np.bincount(places, minlength=len(BINS)) / len(margins)
        self._truth = truth

    def risk(self, week: int) -> float:
        """Return the true Brier score of a week."""
        true = self._truth(BINS, week)
        positive, negative = np.split(LOSSES, 2)
        return float(self.mix @ (true * positive + (1 - true) * negative))

    def week(self, week: int, shares: Floats = BINS, labelled: int = LABELLED) -> LabelledLosses:
        """Return a week of ROWS customers, of whom some have labels, drawn at random."""
        scored = self._generator.multinomial(ROWS, self.mix)
        chosen = self._generator.multivariate_hypergeometric(scored, labelled)
        positives = self._generator.binomial(chosen, self._truth(BINS, week))
        bins = LabelledBins(BINS, positives.astype(float), (chosen - positives).astype(float))
        return sum_losses(bins, scored.astype(float), LOSSES, shares)


def as_scored(scores: Floats, week: int) -> Floats:
    """Scores are calibrated."""
    return scores


def off(scores: Floats, week: int) -> Floats:
    """Far more have the outcome than scores say."""
    return sigmoid(0.4 * logits(scores) + 1.0)


def worse_by_the_week(scores: Floats, week: int) -> Floats:
    """Scores say less from week to week."""
    return sigmoid((1.0 - week / 30) * logits(scores))


WORLDS = {
    "calibrated": (-1.0, as_scored, BINS),
    "rare": (-3.0, as_scored, BINS),
    "off": (-1.0, off, BINS),
    "drifting": (-1.0, worse_by_the_week, BINS),
    "blind": (-1.0, as_scored, np.full(len(BINS), 0.5)),
}
"""Name -> (intercept, truth, shares that are expected). The guarantee holds in all of them."""


@pytest.mark.walk
@pytest.mark.parametrize("name", WORLDS)
def test_ends_hold_at_every_week(name: str) -> None:
    """In at most 5 % of 400 runs of 26 weeks either end is ever on the wrong side of the truth.

    At 5 % each, more than 29 of 400 runs would happen with a probability of 2 %.
    """
    intercept, truth, shares = WORLDS[name]
    customers = Customers(11, intercept, truth)
    risks = np.array([customers.risk(week) for week in range(26)])
    means = np.cumsum(risks) / np.arange(1, 27)
    above = below = 0
    errors = []
    for _ in range(400):
        weeks = [customers.week(week, shares) for week in range(26)]
        figures = [powered_risk(weeks[:count], 0.05) for count in range(2, 27)]
        ends = np.array([figure.bounds() for figure in figures])
        above += bool((ends[:, 1] > means[1:]).any())
        below += bool((ends[:, 2] < means[1:]).any())
        errors.append(ends[-1, 0] - means[-1])
    assert max(above, below) <= 29
    # The estimate is right on average.
    assert abs(np.mean(errors)) < 3.5 * np.std(errors) / math.sqrt(len(errors))


@pytest.mark.walk
@pytest.mark.parametrize("name", WORLDS)
def test_interval_of_one_cohort_covers_its_risk(name: str) -> None:
    """In 93 % or more of 3,000 cohorts, whatever the scores are worth."""
    intercept, truth, shares = WORLDS[name]
    customers = Customers(12, intercept, truth)
    true = customers.risk(0)
    earlier = [customers.week(0, shares) for _ in range(5)]
    weight = powered_weight(earlier)
    found = [powered_figure(customers.week(0, shares), weight).bounds() for _ in range(3_000)]
    covered = np.mean([low <= true <= high for _, low, high in found])
    assert covered >= 0.93


@pytest.mark.walk
def test_scores_make_the_risk_more_exact_than_its_labels() -> None:
    """By the stated variance, too: calibrated scores say which customers are hard."""
    customers = Customers(13, -1.5, as_scored)
    weight = powered_weight([customers.week(0) for _ in range(50)])
    assert weight == pytest.approx(1.0, abs=0.2)
    weeks = [customers.week(0) for _ in range(3_000)]
    powered = [powered_mean(week, weight) for week in weeks]
    plain = [powered_mean(week, 0.0) for week in weeks]
    exact = np.std([value for value, _ in powered])
    # Of calibrated scores the variance of the expected losses is taken off, up to the labels' part.
    positive, negative = np.split(LOSSES, 2)
    by_bin = BINS * positive + (1 - BINS) * negative
    mean = customers.mix @ by_bin
    explained = customers.mix @ (by_bin - mean) ** 2
    whole = customers.mix @ (BINS * (positive - mean) ** 2 + (1 - BINS) * (negative - mean) ** 2)
    gained = math.sqrt(1 - (1 - LABELLED / ROWS) * explained / whole)
    assert gained < 0.96
    assert exact / np.std([value for value, _ in plain]) == pytest.approx(gained, abs=0.02)
    assert exact == pytest.approx(math.sqrt(np.mean([item for _, item in powered])), rel=0.05)


@st.composite
def accuracy_weeks(draw: st.DrawFn) -> LabelledLosses:
    """Return a week of any accuracy, whose labelled rows may be unlike all its rows."""
    labels = st.lists(st.integers(0, 40), min_size=3, max_size=3)
    positives, negatives, others = (np.array(draw(labels), dtype=float) for _ in range(3))
    # Two labels at least.
    bins = LabelledBins(np.array([0.1, 0.5, 0.9]), positives + 1.0, negatives)
    losses = np.array([0.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    shares = np.array(draw(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3)))
    return sum_losses(bins, bins.rows + 50.0 * others, losses, shares)


@examples(200)
@given(weeks=st.lists(accuracy_weeks(), min_size=2, max_size=6), alpha=st.floats(1e-3, 0.2))
def test_risk_and_its_ends_are_values_of_the_metric(
    weeks: list[LabelledLosses], alpha: float
) -> None:
    """Accuracy is from 0 to 1 however the labelled rows are corrected; a cost is 0 at least."""
    value, low, high = powered_risk(weeks, alpha, highest=1.0).bounds()
    assert 0.0 <= low <= value <= high <= 1.0
    # A cut does not move what is in the range.
    cost, cost_low, cost_high = powered_risk(weeks, alpha).bounds()
    assert 0.0 <= cost_low <= cost <= cost_high
    assert (value, low, high) == (min(cost, 1.0), min(cost_low, 1.0), min(cost_high, 1.0))


def test_losses_of_bins_are_those_of_rows() -> None:
    """Mean, variances and covariance are those of NumPy on the rows."""
    generator = np.random.default_rng(14)
    scores = np.round(generator.beta(2, 3, 500), 2).clip(0.01, 0.99)
    positive = generator.random(500) < scores
    labelled = np.arange(500) < 80
    bins = bins_of_rows(positive[labelled], scores[labelled])
    everybody = np.array([(scores == level).sum() for level in bins.scores], dtype=float)
    shares = bins.scores**1.1
    found = sum_losses(bins, everybody, brier_losses(bins.scores), shares)
    losses = (scores - positive)[labelled] ** 2
    share = scores**1.1
    expected = share * (1 - scores) ** 2 + (1 - share) * scores**2
    table = np.cov(losses, expected[labelled])
    assert found.mean == pytest.approx(losses.mean())
    assert found.variance >= table[0, 0] - 1e-12
    assert found.expected == pytest.approx(expected[labelled].mean())
    assert (found.expected_variance, found.covariance) == pytest.approx((table[1, 1], table[0, 1]))
    known = np.isin(scores, bins.scores)
    assert found.all_expected == pytest.approx(expected[known].mean())
    assert (found.labelled, found.rows) == (80, int(known.sum()))


def test_too_few_labels_have_no_figure() -> None:
    """And equal labels of a rare outcome have a variance all the same."""
    shares, zeros = np.array([0.02]), np.zeros(1)
    few = LabelledBins(shares, zeros, np.array([LABELS_NEEDED - 1.0]))
    losses = brier_losses(shares)
    figure = powered_figure(sum_losses(few, np.array([900.0]), losses, shares), 1.0)
    assert figure.lacking == "not enough data: 29 of 30 labelled rows needed"
    equal = LabelledBins(shares, zeros, np.array([50.0]))
    value, low, high = powered_figure(
        sum_losses(equal, np.array([900.0]), losses, shares), 1.0, highest=1.0
    ).bounds()
    assert (value, low) == (pytest.approx(0.0004), 0.0)
    assert high > 0.02
    assert powered_risk([], 0.05).lacking == "not enough data: 0 of 2 weeks needed"
    with pytest.raises(ValueError, match="two at least"):
        sum_losses(LabelledBins(shares, zeros, np.ones(1)), np.ones(1), losses, shares)
