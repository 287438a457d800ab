"""Tests of the expected shift."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.score_scale import OutputReference, ScoreScale
from tests.property_examples import examples
from training.artifacts.reference import bin_counts, score_edges, value_spread
from training.evaluation.expected_shift import ExpectedShift, expected_shift, population_stability


def shift_of(before: np.ndarray, after: np.ndarray, threshold: float = 0.5) -> ExpectedShift:
    """The shift of one probability on the score edges of the scores before."""
    output = OutputReference("score", score_edges(before), spread=1.0)
    return expected_shift(
        before[:, np.newaxis],
        after[:, np.newaxis],
        champion="c0ffee",
        scale=ScoreScale([output], "binary", 0.5),
        candidate_threshold=threshold,
    )


@examples(40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_expected_shift_table_adds_up_to_the_bins_of_both_versions(seed: int, rows: int) -> None:
    """Its rows sum to the champion's counts, and its columns to the candidate's."""
    generator = np.random.default_rng(seed)
    before = generator.random(rows).astype(np.float32).round(2)
    after = generator.random(rows).astype(np.float32).round(2)

    shift = shift_of(before, after)

    edges = score_edges(before)
    assert shift.table.shape == (20, 20)
    assert shift.table.sum(axis=1).tolist() == bin_counts(before, edges).tolist()
    assert shift.table.sum(axis=0).tolist() == bin_counts(after, edges).tolist()
    assert shift.flips == int(((before >= 0.5) != (after >= 0.5)).sum())


def test_expected_shift_of_equal_scores_is_diagonal() -> None:
    """PSI and mean difference are 0, and no decision flips."""
    scores = np.random.default_rng(1).random(500).astype(np.float32)
    shift = shift_of(scores, scores)
    assert shift.table.sum() == np.trace(shift.table) == 500
    assert (shift.flip_rate, shift.psi, shift.mean_differences) == (0.0, 0.0, (0.0,))


def test_expected_shift_uses_the_threshold_of_each_version() -> None:
    """With .3 instead of .5, every row between becomes positive."""
    scores = np.linspace(0, 1, 101).astype(np.float32)
    shift = shift_of(scores, scores, threshold=0.3)
    assert shift.flips == shift.to_positive == 20


def test_expected_shift_digest_changes_with_one_row() -> None:
    """An approver accepts this table and no other."""
    before = np.linspace(0, 1, 200).astype(np.float32)
    after = before.copy()
    first = shift_of(before, after).digest
    after[7] = 0.99
    assert first == shift_of(before, before.copy()).digest
    assert shift_of(before, after).digest != first


def test_expected_shift_of_one_probability_keeps_the_fields_of_older_cards() -> None:
    """Its digest names exactly these."""
    scores = np.linspace(0, 1, 101).astype(np.float32)
    assert list(shift_of(scores, scores).definition()) == [
        "champion",
        "rows",
        "edges",
        "table",
        "flips",
        "to_positive",
        "flip_rate",
        "mean_difference",
        "psi",
        "digest",
    ]


def test_expected_shift_of_values_is_measured_in_their_spread() -> None:
    """1 % more of values around 100,000 is no other decision, and far from a whole spread."""
    before = np.random.default_rng(2).normal(100_000, 20_000, (2_000, 1)).astype(np.float32)
    output = OutputReference("spend", score_edges(before[:, 0]), value_spread(before[:, 0]))
    shift = expected_shift(
        before,
        before * np.float32(1.01),
        champion="c0ffee",
        scale=ScoreScale([output], "regression", 0.5),
        candidate_threshold=0.5,
    )

    assert (shift.flips, shift.table.shape) == (0, (20, 20))
    definition = shift.definition()
    assert definition["mean_distance_in_spreads"] == pytest.approx(0.015, rel=0.1)
    assert definition["mean_difference"]["spend"]["difference"] == pytest.approx(1_000, rel=0.02)
    assert "to_positive" not in definition


def test_expected_shift_of_classes_counts_other_largest_classes() -> None:
    """A class that is never predicted any more leaves its bins empty."""
    before = np.random.default_rng(3).dirichlet((2, 2, 1), 1_000).astype(np.float32)
    outputs = [OutputReference(name, np.zeros(0, np.float32), 1.0) for name in "abc"]
    shift = expected_shift(
        before,
        before * np.array([1, 1, 0], np.float32),
        champion="c0ffee",
        scale=ScoreScale(outputs, "multiclass", 0.5),
        candidate_threshold=0.5,
    )

    last = int((before.argmax(axis=1) == 2).sum())
    assert shift.flips == last > 50
    assert shift.table.sum(axis=0)[2] == 0
    assert shift.definition()["edges"] == [[], [], []]


def test_population_stability_of_a_moved_population() -> None:
    """(.5, .5) to (.9, .1) gives .4 ln 1.8 - .4 ln .2 = .879.

    Smoothing changes it by less than 1 %.
    """
    psi = population_stability(np.array([5_000, 5_000]), np.array([9_000, 1_000]))
    assert psi == pytest.approx(0.879, rel=0.01)
