"""Tests of metrics against their definitions, and of their intervals."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.accuracy.area import placements
from tests.property_examples import examples
from training.evaluation.metrics import (
    RESAMPLES,
    Bootstrap,
    Estimate,
    auc_gain,
    evaluate_scores,
)


def pairs_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """AUC by its definition: the share of pairs in order, ties counted half."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def draw_scores(rows: int, seed: int, separation: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels, of which three in ten are positive, and scores that tell them apart."""
    generator = np.random.default_rng(seed)
    positive = generator.random(rows) < 0.3
    return positive, 1 / (1 + np.exp(-generator.normal(0, 1, rows) - separation * positive))


def resampled_areas(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The areas of resamples of single rows, by ranks: the textbook's bootstrap."""
    generator = np.random.default_rng(99)
    areas = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = generator.integers(0, len(scores), len(scores))
        area = placements(positive[drawn], scores[drawn])
        areas[number] = area[positive[drawn]].mean()
    return areas


def distance_of_ends(found: Estimate, resampled: np.ndarray) -> float:
    """The largest distance of an end of *found* from that of *resampled*, in widths of these."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert found.low is not None
    assert found.high is not None
    return float(max(abs(found.low - low), abs(found.high - high)) / (high - low))


@examples(40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 8))
def test_placements_average_to_the_share_of_pairs_in_order(
    seed: int, rows: int, distinct: int
) -> None:
    """In both classes; ties count half, also if there are many."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, distinct, rows) / distinct
    positive = generator.random(rows) < 0.5
    positive[0], positive[-1] = True, False

    placed = placements(positive, scores)

    assert placed[positive].mean() == pytest.approx(pairs_auc(positive, scores))
    assert placed[~positive].mean() == pytest.approx(pairs_auc(positive, scores))


@pytest.mark.walk
@pytest.mark.parametrize(("rows", "separation"), [(60, 1.0), (500, 2.5), (2_000, 1.0)])
def test_auc_interval_is_that_of_resampled_areas(rows: int, separation: float) -> None:
    """Each end is within a tenth of the interval's width, although areas are linearised."""
    positive, scores = draw_scores(rows, 3, separation)
    found = evaluate_scores(positive, scores, threshold=0.5, seed=7)["auc"]
    assert distance_of_ends(found, resampled_areas(positive, scores)) < 0.1


@pytest.mark.walk
def test_gain_interval_is_that_of_resampled_areas() -> None:
    """So it is for the difference of two areas, with the same rows for both."""
    positive, scores = draw_scores(2_000, 4, 1.0)
    poorer = scores + np.random.default_rng(5).normal(0, 0.2, 2_000)
    gain = auc_gain(positive, poorer, scores, seed=7)
    resampled = resampled_areas(positive, scores) - resampled_areas(positive, poorer)
    assert distance_of_ends(gain, resampled) < 0.1


def test_interval_of_groups_is_that_of_rows() -> None:
    """4,000 rows in 1,000 groups: the ends differ by a tenth of the width at most."""
    _, scores = draw_scores(4_000, 6, 1.0)
    selected, rows = scores > 0.7, np.ones(4_000, dtype=np.bool_)
    estimates = [
        bootstrap.intervals({"rate": bootstrap.ratio(selected, rows)})["rate"]
        for bootstrap in (
            Bootstrap(4_000, seed=1, groups_max=1_000),
            Bootstrap(4_000, seed=2),
        )
    ]
    ends = [(item.low, item.high) for item in estimates]
    width = np.subtract(*ends[1][::-1])
    assert np.abs(np.subtract(*ends)).max() < 0.1 * width
    assert estimates[0].value == pytest.approx(estimates[1].value)
    expected = 2 * 1.96 * np.sqrt(selected.var() / 4_000)
    assert width == pytest.approx(expected, rel=0.1)


@pytest.mark.walk
def test_metrics_of_a_million_rows_fit_into_200_mb() -> None:
    """Weights of each row took 250 times eight bytes a row."""
    positive, scores = draw_scores(1_000_000, 7, 1.0)
    tracemalloc.start()
    try:
        found = evaluate_scores(positive, scores, threshold=0.5, seed=7)
        gain = auc_gain(positive, scores[::-1], scores, seed=7)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6
    # A million rows know the area to about .002.
    assert found["auc"].low is not None
    assert found["auc"].high is not None
    assert 0.001 < found["auc"].high - found["auc"].low < 0.004
    assert gain.low is not None
    assert gain.low > 0.2


def test_card_says_what_intervals_are_made_of() -> None:
    """The number of resamples, and of the groups of rows that they draw."""
    assert Bootstrap(2_148, seed=1).definition() == {
        "confidence_level": 0.95,
        "resamples": 1_000,
        "rows": 2_148,
        "groups": 2_148,
    }
    assert Bootstrap(300_000, seed=1).definition()["groups"] == 10_000


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
