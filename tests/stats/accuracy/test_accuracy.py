"""Figures of two classes against scikit-learn, their definitions, and simulated coverage."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, precision_score, recall_score, roc_auc_score

from stats.accuracy.area import area_figure, curve_area, macro_area_figure
from stats.accuracy.decisions import (
    DecisionCounts,
    cost_figure,
    decision_figures,
    decisions_at,
    top_decisions,
    top_figures,
)
from stats.accuracy.labelled_bins import LabelledBins, bins_of_rows, logits, merge_bins, sigmoid
from stats.accuracy.probabilities import (
    brier_figure,
    calibration_error_figure,
    calibration_line,
    class_loss_figure,
    log_loss_figure,
)
from stats.figure import figure_difference, normal_figure, wilson_figure
from tests.property_examples import examples

COUNTS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=12)


def rows_of(
    n: int, seed: int, shift: float = 0.0
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.bool_]], np.ndarray[tuple[int], np.dtype[np.float64]]
]:
    """Return labels and calibrated scores; *shift* moves the log-odds of the labels."""
    generator = np.random.default_rng(seed)
    scores = generator.beta(1.2, 4.0, n)
    chances = sigmoid(logits(scores) + shift)
    return generator.random(n) < chances, scores


def test_figures_of_two_classes_equal_those_of_scikit_learn() -> None:
    """AUC with ties, log loss, Brier score, precision and recall on 5,000 rows."""
    positive, scores = rows_of(5_000, 1)
    scores = scores.round(2)
    bins = bins_of_rows(positive, scores)
    assert area_figure(bins).value == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    assert log_loss_figure(bins).value == pytest.approx(log_loss(positive, clipped), abs=1e-9)
    assert brier_figure(bins).value == pytest.approx(brier_score_loss(positive, scores))
    figures = decision_figures(decisions_at(bins, 0.3))
    decided = scores >= 0.3
    assert figures["precision"].value == pytest.approx(precision_score(positive, decided))
    assert figures["recall"].value == pytest.approx(recall_score(positive, decided))
    assert figures["accuracy"].value == pytest.approx((positive == decided).mean())
    assert figures["selection_rate"].value == pytest.approx(decided.mean())


@examples(60)
@given(COUNTS)
def test_curve_area_is_that_of_all_pairs(counts: list[tuple[int, int]]) -> None:
    """Area, and DeLong's standard error, equal their definitions over pairs of rows."""
    positives = np.array([p for p, _ in counts], dtype=float)
    negatives = np.array([n for _, n in counts], dtype=float)
    if min(positives.sum(), negatives.sum()) < 2:
        return
    scores = np.arange(len(counts), dtype=float)
    found = curve_area(LabelledBins(scores, positives, negatives))
    ours = np.repeat(scores, positives.astype(int))
    others = np.repeat(scores, negatives.astype(int))
    wins = (ours[:, None] > others) + 0.5 * (ours[:, None] == others)
    assert found.value == pytest.approx(wins.mean())
    if found.value not in {0.0, 1.0}:
        variance = wins.mean(axis=1).var(ddof=1) / len(ours)
        variance += wins.mean(axis=0).var(ddof=1) / len(others)
        assert found.error == pytest.approx(math.sqrt(variance), abs=1e-12)


@examples(40)
@given(st.integers(0, 10_000), st.integers(3, 40))
def test_coarser_bins_move_the_area_by_no_more_than_the_binning_error(
    seed: int, groups: int
) -> None:
    """The bound is of the difference that ties inside bins can make."""
    positive, scores = rows_of(400, seed)
    fine = bins_of_rows(positive, scores)
    coarse = merge_bins(fine, groups)
    assert coarse.n == fine.n
    exact, binned = curve_area(fine), curve_area(coarse)
    assert abs(exact.value - binned.value) <= binned.binning_error + 1e-12


def test_classes_without_an_overlap_have_an_interval() -> None:
    """DeLong's error is 0 there, and an interval of no width would look exact."""
    scores = np.arange(40.0) / 40
    figure = area_figure(bins_of_rows(scores > 0.45, scores))
    assert figure.value == 1.0
    assert figure.low is not None
    assert 0.8 < figure.low < 0.99
    assert figure.high == 1.0


@pytest.mark.walk
def test_intervals_cover_what_they_estimate() -> None:
    """At least 92 % of 300 samples, for area, loss, slope and intercept."""
    wide_labels, wide_scores = rows_of(400_000, 5)
    truth_area = curve_area(bins_of_rows(wide_labels, wide_scores)).value
    chances = wide_scores
    truth_loss = float(-(chances * np.log(chances) + (1 - chances) * np.log1p(-chances)).mean())
    covered = {"area": 0, "loss": 0, "slope": 0, "intercept": 0}
    for seed in range(300):
        bins = bins_of_rows(*rows_of(600, seed + 10))
        line = calibration_line(bins)
        for name, figure, truth in (
            ("area", area_figure(bins), truth_area),
            ("loss", log_loss_figure(bins), truth_loss),
            ("slope", line.slope, 1.0),
            ("intercept", line.intercept, 0.0),
        ):
            _, low, high = figure.bounds()
            covered[name] += low <= truth <= high
    assert min(covered.values()) >= 276, covered


def test_calibration_line_equals_that_of_scikit_learn() -> None:
    """The slope is that of a logistic regression on log-odds without a penalty."""
    positive, scores = rows_of(4_000, 3, shift=0.5)
    line = calibration_line(bins_of_rows(positive, scores))
    oracle = LogisticRegression(C=1e12, tol=1e-10).fit(logits(scores)[:, None], positive)
    assert line.slope.value == pytest.approx(oracle.coef_[0, 0], abs=1e-4)
    assert line.intercept.value == pytest.approx(0.5, abs=0.12)


@pytest.mark.walk
def test_calibration_error_is_about_zero_for_calibrated_scores() -> None:
    """Without the correction the mean of 100 samples of 1,000 rows is above .025."""

    def mean_error(shift: float) -> float:
        figures = (
            calibration_error_figure(bins_of_rows(*rows_of(1_000, seed, shift)))
            for seed in range(100)
        )
        return float(np.mean([figure.bounds()[0] for figure in figures]))

    assert mean_error(0.0) < 0.01
    # Where scores are far off, the correction leaves the distance about as it is.
    truth, _, _ = calibration_error_figure(bins_of_rows(*rows_of(400_000, 7, 0.8))).bounds()
    assert mean_error(0.8) == pytest.approx(truth, abs=0.01)
    uncorrected = []
    for seed in range(100):
        bins = merge_bins(bins_of_rows(*rows_of(1_000, seed)), 15)
        apart = np.abs(bins.positives / bins.rows - bins.scores)
        uncorrected.append(bins.rows @ apart / bins.n)
    assert np.mean(uncorrected) > 0.025


def test_top_k_shares_the_bin_at_the_edge() -> None:
    """Three of the four rows of the last bin are selected, so three quarters of each class."""
    bins = LabelledBins(np.array([0.2, 0.8]), np.array([2.0, 3.0]), np.array([2.0, 1.0]))
    assert top_decisions(bins, 3) == DecisionCounts(2.25, 0.75, 2.75, 2.25)
    assert top_decisions(bins, 100) == DecisionCounts(5.0, 3.0, 0.0, 0.0)
    assert top_figures(bins, 3)["precision"].lacking == "not enough data: 8 of 30 rows needed"


def test_cost_is_the_mean_cost_of_a_row() -> None:
    """40 wrong alarms at 2 and 10 misses at 50 in 1,000 rows cost .58 a row."""
    figure = cost_figure(DecisionCounts(60, 40, 10, 890), false_positive=2, false_negative=50)
    assert figure.value == pytest.approx(0.58)
    costs = np.r_[np.full(40, 2.0), np.full(10, 50.0), np.zeros(950)]
    _, low, _ = figure.bounds()
    assert low == pytest.approx(0.58 - 1.96 * costs.std(ddof=1) / math.sqrt(1_000), abs=1e-4)


def test_figures_of_several_classes_are_those_of_their_bins() -> None:
    """Macro AUC is the mean over classes, and the loss is of each row's own class."""
    generator = np.random.default_rng(4)
    codes = np.arange(900) % 3
    scores = generator.dirichlet((1, 1, 1), 900) * 0.7 + np.eye(3)[codes] * 0.3
    classes = [bins_of_rows(codes == code, scores[:, code]) for code in range(3)]
    area = macro_area_figure(classes)
    assert area.value == pytest.approx(roc_auc_score(codes, scores, multi_class="ovr"))
    assert class_loss_figure(classes).value == pytest.approx(log_loss(codes, scores))


@pytest.mark.parametrize(
    ("positives", "negatives", "lacking"),
    [
        ([], [], "not enough data: 0 of 10 positive rows needed"),
        ([0, 0], [50, 50], "not enough data: 0 of 10 positive rows needed"),
        ([50, 50], [0, 0], "not enough data: 0 of 10 negative rows needed"),
        ([1, 0], [0, 0], "not enough data: 1 of 10 positive rows needed"),
    ],
    ids=["empty", "all negative", "all positive", "one row"],
)
def test_too_few_labels_give_a_sentence_and_no_number(
    positives: list[int], negatives: list[int], lacking: str
) -> None:
    """No figure of equal labels, of one row or of none has a number that looks right."""
    scores = np.array([0.2, 0.6])[: len(positives)]
    bins = LabelledBins(scores, np.array(positives, float), np.array(negatives, float))
    assert area_figure(bins).lacking == lacking
    assert area_figure(bins).value is None
    line = calibration_line(bins)
    assert (line.slope.value, line.intercept.value) == (None, None)
    assert "NaN" not in json.dumps(area_figure(bins).definition())
    if bins.n < 30:
        assert log_loss_figure(bins).value is None
        assert decision_figures(decisions_at(bins, 0.5))["recall"].value is None
    assert calibration_error_figure(
        LabelledBins(scores, bins.positives / 99, bins.negatives / 99)
    ).lacking


def test_bins_refuse_what_is_no_count_and_no_score() -> None:
    """NaN, infinite and negative numbers raise, and so do scores that do not rise."""
    one = np.array([1.0])
    for scores, positives in (
        ([np.nan], one),
        ([np.inf], one),
        ([0.5], -one),
        ([0.5], one * np.nan),
    ):
        with pytest.raises(ValueError, match="finite"):
            LabelledBins(np.array(scores), positives, one)
    with pytest.raises(ValueError, match="rise"):
        LabelledBins(np.array([0.5, 0.5]), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="no bins"):
        LabelledBins(np.array([0.5]), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        bins_of_rows(np.array([True]), np.array([np.nan]))
    with pytest.raises(ValueError, match="one for each"):
        bins_of_rows(np.array([True, False]), np.array([0.5]))
    with pytest.raises(ValueError, match="no probability"):
        log_loss_figure(LabelledBins(np.array([3.0]), one, one))
    with pytest.raises(ValueError, match="not negative"):
        DecisionCounts(-1, 0, 0, 0)


def test_scores_that_separate_the_classes_have_no_slope() -> None:
    """The likelihood grows for ever there, so Newton's method would end anywhere."""
    scores = np.linspace(0.01, 0.99, 100)
    line = calibration_line(bins_of_rows(scores > 0.5, scores))
    assert line.slope.lacking == "scores separate the classes, so no finite slope fits"
    equal = LabelledBins(np.array([0.4]), np.array([50.0]), np.array([60.0]))
    assert calibration_line(equal).slope.lacking == "all scores are equal, so no line fits"


@examples(60)
@given(st.integers(0, 60), st.integers(1, 60))
def test_interval_of_a_share_is_that_of_scipy(hits: int, more: int) -> None:
    """Wilson's interval without a correction for continuity."""
    figure = wilson_figure(hits, hits + more)
    oracle = binomtest(hits, hits + more).proportion_ci(method="wilson")
    assert (figure.low, figure.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_difference_of_figures_has_the_interval_of_both() -> None:
    """It is that of Newcombe for two shares (Statistics in Medicine 17, 1998, method 10)."""
    gap = figure_difference(wilson_figure(56, 70), wilson_figure(48, 80))
    assert gap.value == pytest.approx(0.2)
    assert (gap.low, gap.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    missing = figure_difference(wilson_figure(1, 2, needed=30), wilson_figure(48, 80))
    assert missing.lacking == "not enough data: 2 of 30 rows needed"
    with pytest.raises(ValueError, match="not enough data"):
        missing.bounds()
    with pytest.raises(ValueError, match="no estimate"):
        normal_figure(math.nan, 1.0, 3)
    with pytest.raises(ValueError, match="between none and all"):
        wilson_figure(3, 2)
