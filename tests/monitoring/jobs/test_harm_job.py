"""Streams of harm grow where a version does harm, and stay where it is as approved."""

import math

import numpy as np
import pytest

from monitoring.jobs.harm import ApprovedQuality, harm_streams, look_at_area
from monitoring.jobs.quality import QualitySettings
from stats.accuracy.area import curve_area
from stats.accuracy.decisions import cost_figure, decisions_at
from stats.accuracy.harm import brier_evidence, calibration_evidence, cost_evidence, risk_allowed
from stats.accuracy.labelled_bins import LabelledBins, logits, sigmoid
from stats.accuracy.maturity import MaturityPolicy
from stats.accuracy.probabilities import brier_figure

GRID = sigmoid(np.linspace(-4, 4, 300))
SETTINGS = QualitySettings(
    policy=MaturityPolicy(30), threshold=0.3, false_positive=1.0, false_negative=8.0
)


def draw_week(
    seed: int, *, shift: float = 0.0, noise: float = 0.0, rows: int = 4_000
) -> LabelledBins:
    """Return a week; outcomes are shifted in log-odds, or follow the score less with *noise*."""
    generator = np.random.default_rng(seed)
    bins = generator.integers(0, len(GRID), rows)
    margins = logits(GRID[bins]) + shift + noise * generator.normal(size=rows)
    positive = generator.random(rows) < sigmoid(margins)
    size = len(GRID)
    return LabelledBins(
        GRID,
        np.bincount(bins[positive], minlength=size).astype(np.float64),
        np.bincount(bins[~positive], minlength=size).astype(np.float64),
    )


def approved() -> ApprovedQuality:
    """Return the quality of a large week."""
    large = draw_week(0, rows=400_000)
    cost = cost_figure(decisions_at(large, 0.3), false_positive=1.0, false_negative=8.0)
    return ApprovedQuality(curve_area(large).value, brier_figure(large).bounds()[0], cost.value)


def test_streams_are_those_of_the_evidence() -> None:
    """Their sums over one look equal the e-values of stats.accuracy.harm."""
    bins, quality = draw_week(1, shift=0.5), approved()
    streams = harm_streams(bins, SETTINGS, quality)
    evidence = calibration_evidence(bins)
    assert streams["calibration above"].log_e == pytest.approx(evidence.log_e_above)
    assert streams["calibration below"].log_e == pytest.approx(evidence.log_e_below)
    assert quality.brier is not None
    allowed = risk_allowed(quality.brier)
    assert streams["brier"].log_e == pytest.approx(brier_evidence(bins, allowed))
    counts = decisions_at(bins, 0.3)
    wrong = [counts.false_positives, counts.false_negatives]
    right = counts.true_positives + counts.true_negatives
    assert quality.cost is not None
    allowed = 8.0 * risk_allowed(quality.cost / 8.0)
    expected = cost_evidence(wrong, [1.0, 8.0], right, allowed)
    assert streams["cost"].log_e == pytest.approx(expected)
    assert streams["cost"].log_gains.shape == (4, 3)
    without = harm_streams(bins, SETTINGS, ApprovedQuality(0.8, 0.15))
    assert "cost" not in without


@pytest.mark.parametrize(
    ("shift", "noise", "harmed"),
    [
        (0.0, 0.0, set()),
        (0.9, 0.0, {"calibration above", "cost"}),
        (-0.9, 0.0, {"calibration below"}),
        (0.0, 4.0, {"brier", "cost"}),
    ],
)
def test_harm_is_found_in_its_own_streams(shift: float, noise: float, harmed: set[str]) -> None:
    """Three weeks of evidence; what is not harmed stays below an e-value of 20."""
    quality = approved()
    weeks = [
        harm_streams(draw_week(seed, shift=shift, noise=noise), SETTINGS, quality)
        for seed in (1, 2, 3)
    ]
    log_es = {name: sum(week[name].log_e for week in weeks) for name in weeks[0]}
    for name in harmed:
        assert log_es[name] > math.log(1e3), (name, log_es)
    if not harmed:
        assert max(log_es.values()) < math.log(20)


def test_area_falls_where_scores_say_less() -> None:
    """Eight noisy weeks are enough; weeks as approved, and a single week, are not."""
    quality = approved()
    noisy = look_at_area([draw_week(s, noise=3.0) for s in range(8)], quality, 0.01)
    assert noisy.fell
    assert not look_at_area([draw_week(s) for s in range(8)], quality, 0.01).fell
    single = look_at_area([draw_week(1, noise=3.0)], quality, 0.01)
    assert not single.fell
    assert single.bound.lacking == "not enough data: 1 of 2 final weeks needed"
    empty = LabelledBins(GRID, np.zeros(300), np.zeros(300))
    assert look_at_area([empty] * 9, quality, 0.01).bound.n == 0
