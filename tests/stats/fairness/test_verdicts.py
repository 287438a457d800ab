"""Verdicts on groups."""

import json
import math

import numpy as np
import pytest

from stats.accuracy.labelled_bins import bins_of_rows, logits, sigmoid
from stats.accuracy.probabilities import calibration_line
from stats.fairness.ratio_evidence import (
    RateCounts,
    RatioEvidence,
    add_look,
    ratio_evidence_from,
    start_ratio_evidence,
)
from stats.fairness.verdicts import (
    CalibrationTally,
    GroupVerdict,
    calibration_verdict,
    people_needed,
    ratio_figure,
    ratio_verdict_of,
)


def evidence_of(looks: int, counts: RateCounts) -> RatioEvidence:
    """Return the evidence of equal looks."""
    evidence = start_ratio_evidence()
    for _ in range(looks):
        evidence = add_look(evidence, counts)
    return evidence


def test_verdict_is_outside_within_or_says_what_is_missing() -> None:
    """40 comparisons share the error rate; the sentence has n of N."""
    outside = ratio_verdict_of("tpr", evidence_of(10, RateCounts(200, 20, 900, 180)), 40)
    assert outside.verdict is GroupVerdict.OUTSIDE
    assert outside.text == "outside: the ratio is below 0.8"
    assert outside.ratio.value == pytest.approx(0.5, abs=0.01)
    assert outside.gap.value == pytest.approx(-0.1)
    high = ratio_verdict_of("fpr", evidence_of(10, RateCounts(200, 80, 900, 180)), 40)
    assert high.text == "outside: the ratio is above 1.25"
    within = ratio_verdict_of("tpr", evidence_of(10, RateCounts(400, 120, 900, 270)), 40)
    assert within.verdict is GroupVerdict.WITHIN
    few = ratio_verdict_of("tpr", evidence_of(1, RateCounts(20, 1, 900, 90)), 40)
    assert few.verdict is GroupVerdict.NOT_ENOUGH_DATA
    assert few.text == "not enough data: 20 of 1418 people needed"
    assert json.loads(json.dumps(few.definition()))["verdict"] == "not enough data"


def test_group_of_one_and_nobody_have_no_number() -> None:
    """Neither a rate of nobody nor a ratio of nothing looks right."""
    one = ratio_verdict_of("tpr", evidence_of(1, RateCounts(1, 1, 50, 10)), 4)
    assert one.verdict is GroupVerdict.NOT_ENOUGH_DATA
    assert one.ratio.lacking == "not enough data: 1 of 10 people needed"
    nobody = ratio_verdict_of("tpr", start_ratio_evidence(), 4)
    assert nobody.rate.value is None
    assert nobody.text.startswith("not enough data: 0 of")
    assert "nobody" in ratio_figure(RateCounts(50, 0, 90, 0)).lacking


def test_people_needed_are_those_of_the_published_table() -> None:
    """1,417 at a rate of 10 %, 367 at 30 % and 5,090 at 3 %, to rounding."""
    assert [people_needed(rate) for rate in (0.1, 0.3, 0.03)] == pytest.approx(
        [1_417, 367, 5_090], abs=4
    )
    assert people_needed(0.0) == people_needed(0.001)
    assert people_needed(1.0) == 30


def test_calibration_of_a_group_is_judged_by_its_outcomes() -> None:
    """A group with more outcomes than its scores say is outside, and a calibrated one is within."""
    generator = np.random.default_rng(1)
    verdicts = []
    for shift in (0.9, 0.0):
        tally, labels, scores = CalibrationTally(), [], []
        for _ in range(6):
            drawn = generator.beta(2, 5, 1_500)
            positive = generator.random(1_500) < sigmoid(logits(drawn) + shift)
            tally = tally.after(bins_of_rows(positive, drawn))
            labels.append(positive)
            scores.append(drawn)
        group = bins_of_rows(np.concatenate(labels), np.concatenate(scores))
        intercept = calibration_line(group).intercept
        verdicts.append(calibration_verdict(tally, intercept, intercept, 40))
    assert verdicts[0].verdict is GroupVerdict.OUTSIDE
    assert verdicts[0].text.startswith("outside: more people")
    assert verdicts[0].log_change is not None
    assert verdicts[0].log_change > math.log(1e4)
    assert verdicts[1].verdict is GroupVerdict.WITHIN
    empty = bins_of_rows(np.zeros(0, dtype=np.bool_), np.zeros(0))
    nothing = calibration_line(empty).intercept
    lacking = calibration_verdict(CalibrationTally().after(empty), nothing, nothing, 40)
    assert lacking.text.startswith("not enough data: 0 of")


def test_other_bounds_have_verdicts_of_their_own() -> None:
    """A ratio of .65 is outside of .8 and within .5, and closer bounds need more people."""
    verdicts = {}
    for bound in (0.8, 0.5):
        evidence = start_ratio_evidence(bound)
        for _ in range(4):
            evidence = add_look(evidence, RateCounts(3_000, 585, 9_000, 2_700))
        verdict = ratio_verdict_of("selection_rate", evidence, 8)
        verdicts[bound] = verdict.verdict, verdict.text
        assert ratio_evidence_from(json.loads(json.dumps(evidence.definition()))) == evidence
    assert verdicts[0.8] == (GroupVerdict.OUTSIDE, "outside: the ratio is below 0.8")
    assert verdicts[0.5] == (GroupVerdict.WITHIN, "within: the ratio is between 0.5 and 2")
    assert people_needed(0.1, 0.9) > 4 * people_needed(0.1) > 16 * people_needed(0.1, 0.5)
