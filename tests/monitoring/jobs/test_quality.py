"""From counts of outcomes to figures: final, provisional, among reported rows, on the holdout."""

import json

import numpy as np
import pytest

from monitoring.jobs.quality import (
    EFFECT_OF_ACTING,
    OutcomeCohort,
    QualitySettings,
    class_figures,
    cohort_of_columns,
    cohort_quality,
    compare_quality,
    quality_on_holdout,
)
from stats.accuracy.area import curve_area
from stats.accuracy.labelled_bins import LabelledBins, logits, sigmoid
from stats.accuracy.maturity import Delays, Maturity, MaturityPolicy

SETTINGS = QualitySettings(
    policy=MaturityPolicy(horizon_days=30, grace_days=5),
    threshold=0.3,
    top=(100,),
    false_positive=1.0,
    false_negative=20.0,
)
GRID = sigmoid(np.linspace(-5, 3, 200))


def draw_cohort(
    seed: int, rows: int = 6_000, *, age: int = 35, shift: float = 0.0, seen: float = 1.0
) -> OutcomeCohort:
    """Return a cohort with calibrated scores; *shift* moves outcomes, *seen* are reported."""
    generator = np.random.default_rng(seed)
    bins = generator.integers(0, len(GRID), rows)
    happened = generator.random(rows) < sigmoid(logits(GRID[bins]) + shift)
    reported = happened & (generator.random(rows) < seen)
    return OutcomeCohort(
        GRID,
        np.bincount(bins, minlength=len(GRID)),
        np.bincount(bins[reported], minlength=len(GRID)),
        np.zeros(len(GRID), dtype=np.int64),
        age,
    )


def test_final_cohort_counts_absent_outcomes_as_negative() -> None:
    """All predictions count, and every metric has a number."""
    cohort = draw_cohort(1)
    quality = cohort_quality(cohort, SETTINGS)
    assert quality.maturity is Maturity.FINAL
    negatives = (cohort.scored - cohort.positives).astype(float)
    bins = LabelledBins(GRID, cohort.positives.astype(float), negatives)
    assert quality.figures["auc"].value == pytest.approx(curve_area(bins).value)
    assert quality.coverage.value == 1.0
    assert all(figure.known for figure in quality.figures.values())
    assert {"precision_at_100", "cost", "calibration_slope"} <= quality.figures.keys()
    assert json.loads(json.dumps(quality.definition()))["basis"] == "of all predictions"


@pytest.mark.walk
def test_provisional_figures_cover_the_final_ones() -> None:
    """At least 92 % of 100 cohorts with 40 % of their outcomes, for area, loss and precision."""
    delays = Delays(np.array([0.0] * 9 + [400.0] + [0.0] * 20 + [600.0]))
    covered = {"auc": 0, "log_loss": 0, "precision": 0}
    whole = {
        name: cohort_quality(draw_cohort(1, 2_000_000), SETTINGS).figures[name].bounds()[0]
        for name in covered
    }
    for seed in range(100):
        cohort = draw_cohort(seed + 5, 3_000, age=10, seen=0.4)
        quality = cohort_quality(cohort, SETTINGS, delays)
        assert quality.maturity is Maturity.PROVISIONAL
        for name, truth in whole.items():
            _, low, high = quality.figures[name].bounds()
            covered[name] += low <= truth <= high
    assert min(covered.values()) >= 92, covered


def test_provisional_cohort_without_delays_has_no_figures() -> None:
    """A young cohort would look as if hardly anybody had the outcome."""
    quality = cohort_quality(draw_cohort(2, age=3, seen=0.2), SETTINGS)
    assert {figure.value for figure in quality.figures.values()} == {None}
    lacking = "not enough data: 0 of 100 outcomes of final cohorts needed"
    assert quality.figures["auc"].lacking == lacking
    late = Delays(np.array([0.0] * 20 + [500.0]))
    none_due = cohort_quality(draw_cohort(2, age=3, seen=0.2), SETTINGS, late)
    assert none_due.figures["auc"].lacking == (
        "not enough data: 0 of 1 outcomes that are due by this age needed"
    )


def test_outcomes_that_are_not_known_leave_only_reported_rows() -> None:
    """The coverage says how few they are, and the basis says that figures are among them."""
    cohort = draw_cohort(3)
    survey = OutcomeCohort(
        GRID, cohort.scored * 4, cohort.positives, cohort.scored - cohort.positives, 2
    )
    settings = QualitySettings(policy=MaturityPolicy(30, absent_is_negative=False))
    quality = cohort_quality(survey, settings)
    assert quality.coverage.value == pytest.approx(0.25)
    assert quality.basis == "among predictions with a reported outcome"
    assert quality.figures["auc"].value == pytest.approx(
        cohort_quality(cohort, SETTINGS).figures["auc"].value
    )


def test_counts_that_do_not_fit_have_a_note() -> None:
    """More outcomes than predictions, outcomes without a score, and nothing at all."""
    cohort = draw_cohort(4)
    odd = OutcomeCohort(GRID, cohort.scored // 9, cohort.positives, cohort.negatives, 40, 12)
    notes = cohort_quality(odd, SETTINGS).notes
    assert notes[0] == "12 outcomes are left out: their predictions have no score"
    assert "monitoring did not see" in notes[1]
    zeros = np.zeros(len(GRID), dtype=np.int64)
    empty = cohort_quality(OutcomeCohort(GRID, zeros, zeros, zeros, 40), SETTINGS)
    assert {figure.value for figure in empty.figures.values()} == {None}
    assert empty.coverage.lacking == "not enough data: 0 of 1 predictions needed"


def test_columns_of_cells_become_a_cohort() -> None:
    """Entries behind the bins are outcomes without a score, and short columns end with zeros."""
    cohort = cohort_of_columns(
        GRID[:4],
        np.array([5, 6, 7, 8, 9, 0, 0]),
        np.array([1, 2]),
        np.array([0, 0, 1, 0, 0, 0, 0, 4]),
        12,
    )
    assert cohort.scored.tolist() == [5, 6, 7, 8]
    assert cohort.positives.tolist() == [1, 2, 0, 0]
    assert cohort.negatives.tolist() == [0, 0, 1, 0]
    assert (cohort.unplaced, cohort.age_days) == (4, 12)


def test_versions_compare_by_the_difference_of_their_figures() -> None:
    """A version whose customers have more outcomes than scored has another intercept."""
    better, worse = draw_cohort(5), draw_cohort(6, shift=0.8)
    gap = compare_quality(
        cohort_quality(worse, SETTINGS).figures, cohort_quality(better, SETTINGS).figures
    )
    _, low, high = gap["calibration_intercept"].bounds()
    assert low <= 0.8 <= high
    assert low > 0.4


def test_holdout_shows_how_good_a_version_is_where_acting_helps() -> None:
    """Customers who are acted on have fewer outcomes; the holdout stays calibrated."""
    holdout, others = draw_cohort(7, 2_000), draw_cohort(8, 20_000, shift=-1.0)
    found = quality_on_holdout(holdout, others, SETTINGS)
    _, low, high = found.holdout.figures["calibration_intercept"].bounds()
    assert low <= 0.0 <= high
    assert found.everybody.figures["calibration_intercept"].bounds()[2] < -0.5
    assert found.by_acting["calibration_intercept"].bounds()[2] < -0.5
    assert found.explanation == EFFECT_OF_ACTING
    zero = np.zeros(1, dtype=np.int64)
    other = OutcomeCohort(GRID[:1], zero, zero, zero, 40)
    with pytest.raises(ValueError, match="other bins"):
        quality_on_holdout(holdout, other, SETTINGS)


def test_several_classes_have_figures_from_rows() -> None:
    """A code that is no class raises, and no rows have sentences."""
    generator = np.random.default_rng(9)
    codes = generator.integers(0, 3, 600)
    scores = generator.dirichlet((1, 1, 1), 600) * 0.5 + np.eye(3)[codes] * 0.5
    figures = class_figures(codes, scores)
    assert figures["accuracy"].value == pytest.approx((scores.argmax(axis=1) == codes).mean())
    assert figures["auc"].bounds()[0] > 0.8
    with pytest.raises(ValueError, match="one of 3 classes"):
        class_figures(np.array([3]), scores[:1])
    empty = class_figures(codes[:0], scores[:0])
    assert all(figure.lacking for figure in empty.values())
