"""Accuracy that is expected without labels: near the realised one, and honest about its limits."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from stats.accuracy.area import curve_area
from stats.accuracy.labelled_bins import bins_of_rows, merge_bins, sigmoid
from stats.estimates.shift_weights import shift_weights
from stats.estimates.without_labels import (
    BLIND_SPOT,
    METRICS,
    LiveRows,
    ReferenceRows,
    expect_by_calibration,
    expect_by_weights,
    metric_values,
)

Floats = NDArray[np.float64]


def draw_customers(n: int, seed: int, shift: float = 0.0) -> ReferenceRows:
    """Return customers whose outcome depends on a feature that the score does not see."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n, 2))
    features[:, 1] += shift
    positive = generator.random(n) < sigmoid(-1.5 + 1.2 * features[:, 0] + 1.2 * features[:, 1])
    return ReferenceRows(features, positive, sigmoid(-1.2 + features[:, 0]))


def live_bins(rows: ReferenceRows) -> LiveRows:
    """Return the rows by score, without their labels."""
    merged = merge_bins(bins_of_rows(np.ones(len(rows.scores), dtype=np.bool_), rows.scores), 100)
    return LiveRows(merged.scores, merged.positives)


def test_expected_accuracy_is_the_realised_one_where_nothing_changed() -> None:
    """Every metric of 8,000 rows lies in its interval."""
    reference, today = draw_customers(8_000, 1), draw_customers(8_000, 2)
    bins = bins_of_rows(reference.positive, reference.scores)
    expected = expect_by_calibration(bins, live_bins(today), threshold=0.4, seed=1)
    realised = metric_values(bins_of_rows(today.positive, today.scores), 0.4)
    for name in METRICS:
        _, low, high = expected.figures[name].bounds()
        assert low <= realised[name] <= high, name
    assert expected.method == "calibrated"
    assert json.loads(json.dumps(expected.definition()))["blind_spot"] == BLIND_SPOT
    assert "not enough data: 0 of 8 final cohorts needed" in expected.track_record


@pytest.mark.walk
def test_weights_see_a_shift_that_the_score_does_not() -> None:
    """CBPE is wrong about the rate of outcomes there, and the weighted version is right."""
    reference, today = draw_customers(8_000, 3), draw_customers(8_000, 4, shift=0.8)
    realised = metric_values(bins_of_rows(today.positive, today.scores), 0.4)
    live = live_bins(today)
    bins = bins_of_rows(reference.positive, reference.scores)
    plain = expect_by_calibration(bins, live, threshold=0.4, seed=1).figures
    weighted = expect_by_weights(reference, live, today.features, threshold=0.4, seed=1)
    assert weighted.figures["brier"].value == pytest.approx(realised["brier"], abs=0.01)
    assert abs(plain["brier"].bounds()[0] - realised["brier"]) > 0.03
    _, low, high = weighted.figures["auc"].bounds()
    assert low <= curve_area(bins_of_rows(today.positive, today.scores)).value <= high


def test_interval_is_as_wide_as_the_errors_of_the_past() -> None:
    """Eight cohorts that were missed by .1 widen it; seven say that they are too few."""
    reference = draw_customers(2_000, 5)
    bins, live = bins_of_rows(reference.positive, reference.scores), live_bins(reference)
    past = {name: [0.1] * 8 for name in METRICS}
    wide = expect_by_calibration(bins, live, threshold=0.4, seed=1, past=past)
    value, low, high = wide.figures["auc"].bounds()
    assert high - value >= 0.1 - 1e-12
    assert value - low >= 0.1 - 1e-12
    assert "8 final cohorts" in wide.track_record
    few = {name: [0.1] * 7 for name in METRICS}
    narrow = expect_by_calibration(bins, live, threshold=0.4, seed=1, past=few)
    assert "7 of 8" in narrow.track_record
    assert narrow.figures["auc"].bounds()[2] < high


def test_customers_unlike_any_before_have_no_estimate() -> None:
    """Where no reference row looks like today's, there is a sentence in place of a number."""
    reference, today = draw_customers(3_000, 6), draw_customers(3_000, 7, shift=6.0)
    found = expect_by_weights(reference, live_bins(today), today.features, threshold=0.4, seed=1)
    assert {figure.value for figure in found.figures.values()} == {None}
    assert found.figures["auc"].lacking.startswith("not enough overlap of today's rows")


def test_too_few_rows_have_no_estimate() -> None:
    """A day without rows, and a reference without labels, have none either."""
    reference = draw_customers(400, 8)
    bins = bins_of_rows(reference.positive, reference.scores)
    empty = LiveRows(np.zeros(0), np.zeros(0))
    lacking = expect_by_calibration(bins, empty, threshold=0.4, seed=1).figures["auc"].lacking
    assert lacking == "not enough data: 0 of 300 rows of today needed"
    nothing = bins_of_rows(np.zeros(0, dtype=np.bool_), np.zeros(0))
    unlabelled = expect_by_calibration(nothing, live_bins(reference), threshold=0.4, seed=1)
    assert unlabelled.track_record == "not enough data: 0 of 300 labelled reference rows needed"
    equal = bins_of_rows(np.zeros(400, dtype=np.bool_), np.zeros(400))
    none_positive = LiveRows(np.array([0.0]), np.array([500.0]))
    found = expect_by_calibration(equal, none_positive, threshold=0.4, seed=1)
    assert "not defined" in found.figures["auc"].lacking
    with pytest.raises(ValueError, match="no probability"):
        LiveRows(np.array([4.0]), np.array([9.0]))


def test_shift_weights_are_the_ratio_of_densities() -> None:
    """A normal feature moved by .5 has the weights e^(.5 x - .125); missing values are a kind."""
    generator = np.random.default_rng(9)
    before, after = generator.normal(size=(20_000, 1)), generator.normal(0.5, 1, (20_000, 1))
    found = shift_weights(before, after)
    truth = np.exp(0.5 * before[:, 0] - 0.125)
    assert np.corrcoef(found.weights, truth)[0, 1] > 0.99
    assert found.effective_rows == pytest.approx(truth.sum() ** 2 / (truth**2).sum(), rel=0.1)
    gone = after.copy()
    gone[:10_000] = np.nan
    holed = before.copy()
    holed[:2_000] = np.nan
    weights = shift_weights(holed, gone).weights
    assert weights[:2_000].mean() == pytest.approx(5.0, rel=0.1)
    for first, second in ((before[:0], after), (before, after[:, :0]), (before[:, 0], after)):
        with pytest.raises(ValueError, match=r"do not compare|need a row"):
            shift_weights(first, second)
