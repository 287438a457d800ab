"""Tests of the fairness report."""

import numpy as np
import pytest

from training.evaluation.fairness import compare_groups, ratio_verdict
from training.evaluation.metrics import Estimate


def test_fairness_gives_no_verdict_on_too_few_rows() -> None:
    """With 99 members the report has counts only."""
    member = np.arange(1_000) < 99
    report = compare_groups(member, ~member, np.full(1_000, 0.9), threshold=0.5, seed=1)
    assert report["verdict"] == "not enough data"
    assert report["counts"]["member"] == {"rows": 99, "positives": 0, "selected": 99}
    assert report["selection_rate_ratio"] is None


def test_fairness_rates_follow_from_the_counts() -> None:
    """Members are selected at 1/4 and others at 1/2, so the ratio is .5 and outside the band."""
    member = np.arange(800) % 2 == 0
    scores = np.where(member, np.arange(800) % 8 < 2, np.arange(800) % 4 < 2).astype(np.float64)
    report = compare_groups(member, np.ones(800, np.bool_), scores, threshold=0.5, seed=1)
    assert report["selection_rate_ratio"]["value"] == pytest.approx(0.5)
    assert report["tpr_gap"]["value"] == pytest.approx(-0.25)
    assert report["verdict"] == "outside band"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.85, 1.1, "within band"),
        (0.7, 0.9, "undecided"),
        (0.5, 0.79, "outside band"),
        (1.3, 1.9, "outside band"),
        (0.5, 2.0, "undecided"),
        (None, None, "not enough data"),
    ],
)
def test_fairness_verdict_follows_from_the_interval(
    low: float | None, high: float | None, verdict: str
) -> None:
    """An interval that crosses the band is undecided."""
    assert ratio_verdict(Estimate(None if low is None else 1.0, low, high)) == verdict
