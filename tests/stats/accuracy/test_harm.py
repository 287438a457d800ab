"""E-values of harm are 1 on average under their null hypotheses, and grow where harm is done."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.accuracy.harm import (
    TOLERANCE,
    area_bound,
    area_fell,
    brier_evidence,
    calibration_evidence,
    cost_evidence,
    risk_allowed,
    risk_evidence,
)
from stats.accuracy.labelled_bins import LabelledBins, bins_of_rows, logits, sigmoid
from tests.property_examples import examples

PROBABILITIES = st.floats(0.02, 0.98)


@examples(60)
@given(st.lists(PROBABILITIES, min_size=1, max_size=3, unique=True), st.floats(-3.0, 1.0))
def test_calibration_evidence_expects_no_gain_under_its_null(
    scores: list[float], inside: float
) -> None:
    """All outcomes of up to three rows are enumerated: E[E] <= 1 at and under the edge."""
    ordered = np.sort(np.array(scores))
    for sign in (1.0, -1.0):
        chances = sigmoid(logits(ordered) + sign * min(inside, 1.0) * TOLERANCE)
        mean = 0.0
        for labels in itertools.product((0.0, 1.0), repeat=len(ordered)):
            positives = np.array(labels)
            evidence = calibration_evidence(LabelledBins(ordered, positives, 1.0 - positives))
            log_e = evidence.log_e_above if sign > 0 else evidence.log_e_below
            chance = np.prod(np.where(positives > 0, chances, 1.0 - chances))
            mean += float(chance) * math.exp(log_e)
        assert mean <= 1.0 + 1e-9


@examples(60)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=4), st.floats(0.05, 0.9), st.data())
def test_risk_evidence_expects_no_gain_under_its_null(
    losses: list[float], mean_max: float, data: st.DataObject
) -> None:
    """Two rows are drawn from a distribution of losses whose mean is at most the allowed one."""
    weights = np.array(
        data.draw(st.lists(st.floats(0.01, 1), min_size=len(losses), max_size=len(losses)))
    )
    values = np.array(losses)
    shares = weights / weights.sum()
    mean = float(shares @ values)
    if mean > mean_max:
        values = values * (mean_max / mean)
    expected = sum(
        shares[i] * shares[j] * math.exp(risk_evidence(values[[i, j]], np.ones(2), mean_max))
        for i in range(len(values))
        for j in range(len(values))
    )
    assert expected <= 1.0 + 1e-9


def test_calibration_evidence_finds_what_is_off_and_tolerates_a_little() -> None:
    """A shift of .6 in log-odds is found in 4,000 rows; one of .15 is not, and neither is none."""
    generator = np.random.default_rng(3)
    scores = generator.beta(2, 6, 4_000)
    for shift, above, below in ((0.6, True, False), (-0.6, False, True), (0.15, False, False)):
        positive = generator.random(4_000) < sigmoid(logits(scores) + shift)
        evidence = calibration_evidence(bins_of_rows(positive, scores))
        assert (evidence.log_e_above > math.log(1e4)) == above
        assert (evidence.log_e_below > math.log(1e4)) == below


def test_risk_evidence_finds_a_worse_brier_score_and_cost() -> None:
    """A model that no longer tells anything is found; the approved one is not."""
    generator = np.random.default_rng(4)
    scores = generator.beta(1, 3, 8_000)
    right = bins_of_rows(generator.random(8_000) < scores, scores)
    wrong = bins_of_rows(generator.random(8_000) < 0.5, scores)
    approved = float((scores * (1 - scores)).mean())
    assert brier_evidence(right, risk_allowed(approved)) < 0.0
    assert brier_evidence(wrong, risk_allowed(approved)) > math.log(1e6)
    assert cost_evidence([900.0, 90.0], [1.0, 20.0], 9_010.0, 0.35) < 0.0
    assert cost_evidence([900.0, 990.0], [1.0, 20.0], 8_110.0, 0.35) > math.log(1e6)
    with pytest.raises(ValueError, match="between 0 and 1"):
        risk_evidence(np.array([2.0]), np.ones(1), 0.5)


def test_area_bound_seldom_accuses_a_version_that_is_as_approved() -> None:
    """At most 5 of 500 quarters at 5 %, looked at each week, with the area at the margin's edge."""
    generator = np.random.default_rng(5)
    alarms = 0
    for _ in range(500):
        errors = generator.uniform(0.01, 0.02, 13)
        areas = 0.78 + errors * generator.standard_normal(13)
        alarms += any(
            area_fell(area_bound(areas[:week], errors[:week], 0.05), 0.80) for week in range(1, 14)
        )
    assert alarms <= 25
    fallen = area_bound(np.full(8, 0.70), np.full(8, 0.015), 0.01)
    assert area_fell(fallen, 0.80)
    assert area_bound(np.array([0.7]), np.array([0.01]), 0.01).lacking
    with pytest.raises(ValueError, match="finite"):
        area_bound(np.array([np.nan]), np.array([0.01]), 0.01)
